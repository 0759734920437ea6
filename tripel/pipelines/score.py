"""How likely a text is, token by token, and the table that shows it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tripel.decode.search import Alternatives
from tripel.text.tokenizer import Tokenizer

TABLE_ROWS = 200
"""The most tokens that a table shows one by one."""

N_LEAST = 20
"""Of longer texts, the tokens that are shown: the least likely."""

_BAR = 20


class TokenChoice(NamedTuple):
    """A token that could have stood in a place, and its log-probability there in nats."""

    id: int
    piece: str
    log_prob: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"id": self.id, "piece": self.piece, "log_prob": self.log_prob}


def choices(alternatives: Alternatives, tokenizer: Tokenizer) -> tuple[TokenChoice, ...]:
    """Alternatives with their spelling."""
    ids = [token_id for token_id, _ in alternatives]
    spelled = zip(alternatives, tokenizer.pieces(ids), strict=True)
    return tuple(TokenChoice(token_id, piece, log_prob) for (token_id, log_prob), piece in spelled)


@dataclass(frozen=True)
class Score:
    """How likely a model finds a text. log_probs: of every token after those before it, in nats.

    pieces: the vocabulary's spelling of the tokens; offsets: the characters of text that each stands for (several
    tokens may share one, spelled in bytes). unknown: what of the text the tokenizer does not know, each once; it was
    scored as the unknown token. alternatives: the likeliest tokens of each place, if asked for.
    """

    text: str
    ids: tuple[int, ...]
    pieces: tuple[str, ...]
    offsets: tuple[tuple[int, int], ...]
    log_probs: tuple[float, ...]
    alternatives: tuple[tuple[TokenChoice, ...], ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def n_tokens(self) -> int:
        """Tokens scored."""
        return len(self.ids)

    @property
    def n_bytes(self) -> int:
        """The length of the text in UTF-8."""
        return len(self.text.encode("utf-8"))

    @property
    def log_prob(self) -> float:
        """Of the whole text, in nats."""
        return math.fsum(self.log_probs)

    @property
    def perplexity(self) -> float:
        """exp(-mean log p): between as many equally likely tokens the model hesitates. Not comparable between tokenizers."""
        mean = -self.log_prob / max(1, self.n_tokens)
        return math.exp(mean) if mean < 700 else math.inf

    @property
    def bits_per_byte(self) -> float:
        """-log2 p(text) / bytes: comparable between all models and tokenizers."""
        return -self.log_prob / math.log(2) / max(1, self.n_bytes)

    @property
    def note(self) -> str | None:
        """What the person should know of the figures, or None."""
        if not self.unknown:
            return None
        named = ", ".join(map(repr, self.unknown[:10])) + (" ..." if len(self.unknown) > 10 else "")
        return f"scored as the unknown token, since the model does not know it: {named}"

    def to_json(self) -> str:
        """One line: text, n_tokens, n_bytes, log_prob (nats), perplexity, bits_per_byte, tokens with id, piece, start,
        end, log_prob and, if asked for, top; unknown, if anything was."""
        tokens: list[dict[str, Any]] = [
            {"id": token_id, "piece": piece, "start": start, "end": end, "log_prob": log_prob}
            for token_id, piece, (start, end), log_prob in zip(
                self.ids, self.pieces, self.offsets, self.log_probs, strict=True
            )
        ]
        for token, alternatives in zip(tokens, self.alternatives, strict=False):
            token["top"] = [choice.as_dict() for choice in alternatives]
        value = {
            "text": self.text,
            "n_tokens": self.n_tokens,
            "n_bytes": self.n_bytes,
            "log_prob": self.log_prob,
            "perplexity": self.perplexity,
            "bits_per_byte": self.bits_per_byte,
            "tokens": tokens,
        }
        return json.dumps(value | ({"unknown": self.unknown} if self.unknown else {}), ensure_ascii=False)

    def __rich__(self) -> RenderableType:
        """A row for every token, of a long text for the least likely, and the totals."""
        places = list(range(self.n_tokens))
        if self.n_tokens > TABLE_ROWS:
            places = sorted(sorted(places, key=self.log_probs.__getitem__)[:N_LEAST])
        table = Table("place", "token", "p", "", "log p", box=None, pad_edge=False)
        table.columns[0].justify = table.columns[2].justify = table.columns[4].justify = "right"
        for place in places:
            p = math.exp(self.log_probs[place])
            bar = Text("█" * round(p * _BAR) or "▏", style="green" if p >= 0.5 else "yellow" if p >= 0.05 else "red")
            table.add_row(str(place + 1), Text(self._shown(place)), f"{p:.3f}", bar, f"{self.log_probs[place]:.3f}")
        parts: list[RenderableType] = [table, Text(self._totals())]
        if len(places) < self.n_tokens:
            parts.insert(0, Text(f"the {len(places)} least likely of {self.n_tokens:,} tokens:"))
        return Group(*parts)

    def _shown(self, place: int) -> str:
        start, end = self.offsets[place]
        shared = place > 0 and self.offsets[place - 1] == (start, end)
        following = place + 1 < self.n_tokens and self.offsets[place + 1] == (start, end)
        if shared or following or start == end:
            return self.pieces[place]
        return repr(self.text[start:end])[1:-1].replace(" ", "␣")

    def _totals(self) -> str:
        return (
            f"{self.n_tokens:,} tokens, {self.n_bytes:,} bytes; log p {self.log_prob:,.2f}; "
            f"perplexity {self.perplexity:,.3f}; {self.bits_per_byte:.4f} bits per byte"
        )
