"""Filling blanks: what could stand in a place, by what stands on both sides of it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tripel.errors import InputError
from tripel.models.encoder import Encoder
from tripel.pipelines.embed import Embedder
from tripel.pipelines.settings import check_text
from tripel.tasks.framing import framed
from tripel.text.holes import HoledText
from tripel.text.tokenizer import Tokenizer

BLANK = re.compile(r"_{2,}|\[MASK\]|<mask>")
MOST_PIECES = 3
"""The longest word that is tried, in pieces."""
_MOST_BLANKS = 64
_ROWS_AT_ONCE = 64


@dataclass(frozen=True)
class Candidate:
    """What could stand in a blank. probability: of one piece, the model's own among all pieces; of a word of several, the
    product of its pieces' when as many are hidden, each given those before it."""

    word: str
    probability: float
    n_pieces: int


@dataclass(frozen=True)
class Filling:
    """A text with its blanks filled. blanks: the likeliest candidates of each by itself, best first. text: with all blanks
    filled together, the most certain first, each given those before it."""

    given: str
    text: str
    blanks: tuple[tuple[Candidate, ...], ...]

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        blanks = [
            [{"word": c.word, "probability": c.probability, "pieces": c.n_pieces} for c in blank]
            for blank in self.blanks
        ]
        return {"given": self.given, "text": self.text, "blanks": blanks}

    def to_json(self) -> str:
        """One line."""
        return json.dumps(self.as_dict(), ensure_ascii=False)


class Filler(Embedder):
    """A masked-token model in use. Raises InputError for a vocabulary without a mask token."""

    def __init__(self, model: Encoder, tokenizer: Tokenizer) -> None:
        super().__init__(model, tokenizer)
        if model.vocabulary.mask_id is None:
            raise InputError(
                "the model has no token that stands for a missing word",
                given=f"{tokenizer.vocab_size} tokens",
                expected="<mask> or [MASK] among them",
                mend="use a model that was trained to fill blanks",
            )
        marks = tokenizer.word_marks
        extra = (0, model.vocabulary.target_size - tokenizer.vocab_size)
        spaced, letters = np.pad(marks.spaced, extra), np.pad(marks.letter_first, extra)
        said, marked = np.pad(_can_be_said(tokenizer), extra), bool(marks.spaced.any())
        # After a space stands what has a space before it; after a sign, or within a word, what has none.
        self._starting = torch.from_numpy(said & (spaced | (not marked)))
        self._going_on = torch.from_numpy(said & ~(spaced & marked))
        self._letters = torch.from_numpy(said & letters)
        self._letters_on = torch.from_numpy(said & letters & ~spaced & marked)

    def fill(self, text: str, k: int = 5) -> Filling:
        """The k likeliest candidates for every blank (`___` or `[MASK]`) of a text, words of up to three pieces among them.

        Raises InputError for a text without blanks, with nothing else, or longer than the model can read.
        """
        check_text(text, "text", 1, mend="fill it in parts")
        if k < 1:
            raise InputError("a blank needs a candidate", given=f"k={k}", expected="1 or more")
        segments = BLANK.split(text)
        holes = self._holes(text, segments)
        blanks = tuple(self._candidates(holes, number, k) for number in range(len(segments) - 1))
        chosen = [blanks[0][0].word] if len(blanks) == 1 else self._together(holes)
        filled = segments[0] + "".join(word + after for word, after in zip(chosen, segments[1:], strict=True))
        return Filling(text, filled, blanks)

    def _holes(self, text: str, segments: Sequence[str]) -> HoledText:
        n_blanks = len(segments) - 1
        if not n_blanks:
            raise InputError(
                "there is no blank in the text",
                given=repr(text),
                expected="___ or [MASK] where a word is missing",
                mend='for example: tripel fill RUN "The ___ sat on the mat."',
            )
        if not "".join(segments).strip():
            raise InputError(
                "there is nothing but blanks in the text",
                given=repr(text),
                expected="words around the blank, from which it can be guessed",
                mend="write the sentence that the missing word stands in",
            )
        holes = self.tokenizer.encode_around(segments)
        n_tokens = sum(map(len, holes.parts)) + n_blanks + 2
        if n_tokens > self._room + 2 or n_blanks > _MOST_BLANKS:
            raise InputError(
                "the text is longer than the model can read" if n_blanks <= _MOST_BLANKS else "too many blanks",
                given=f"{n_tokens} tokens, begin and end included, {n_blanks} of them blanks",
                expected=f"at most {self._room + 2} tokens, {_MOST_BLANKS} blanks",
                mend="fill it in parts, a sentence at a time",
            )
        return holes

    def _candidates(self, holes: HoledText, number: int, k: int) -> tuple[Candidate, ...]:
        """Of one blank, the other ones staying hidden."""
        room = self._room - sum(map(len, holes.parts)) - len(holes.begins_word) + 1
        found: dict[str, Candidate] = {}
        for n_pieces in range(1, min(MOST_PIECES, room) + 1):
            if n_pieces > 1 and not self._letters_on.any():
                break
            for ids, log_prob in self._beam(holes, number, n_pieces, k):
                word = self.tokenizer.decode(ids).strip()
                candidate = Candidate(word, float(np.exp(log_prob)), n_pieces)
                if word and (word not in found or found[word].probability < candidate.probability):
                    found[word] = candidate
        return tuple(sorted(found.values(), key=lambda c: -c.probability)[:k])

    def _beam(self, holes: HoledText, number: int, n_pieces: int, k: int) -> list[tuple[list[int], float]]:
        """The k likeliest pieces for a blank of n_pieces, from left to right."""
        beams: list[tuple[list[int], float]] = [([], 0.0)]
        for place in range(n_pieces):
            hidden = [self._mask] * (n_pieces - place)
            rows = [self._row(holes, {number: [*ids, *hidden]}) for ids, _ in beams]
            at = sum(map(len, holes.parts[: number + 1])) + number + place
            groups = (rows[i : i + _ROWS_AT_ONCE] for i in range(0, len(rows), _ROWS_AT_ONCE))
            log_probs_NV = torch.cat([self._log_probs(group, [at]) for group in groups])
            allowed = self._letters_on if place else self._first(holes, number)
            if n_pieces > 1:
                allowed = allowed & self._letters
            scores_NV = log_probs_NV.masked_fill(~allowed, -torch.inf) + torch.tensor([[s] for _, s in beams])
            best = scores_NV.flatten().topk(min(2 * k, scores_NV.numel()))
            width = scores_NV.shape[1]
            beams = [
                ([*beams[place_in // width][0], place_in % width], score)
                for place_in, score in zip(best.indices.tolist(), best.values.tolist(), strict=True)
                if score > -np.inf
            ]
        return beams

    def _first(self, holes: HoledText, number: int) -> Tensor:
        """What a blank's first piece may be, bool (V,): after a letter only what goes on with its word."""
        if holes.begins_word[number]:
            return self._starting
        before = holes.parts[number][-1:]
        within = bool(before) and bool(self.tokenizer.word_marks.letter_last[before[0]])
        return self._letters_on if within and self._letters_on.any() else self._going_on

    def _together(self, holes: HoledText) -> list[str]:
        """A piece for every blank: the most certain is filled first, the others then given it."""
        filled: dict[int, list[int]] = {}
        n_blanks = len(holes.begins_word)
        while len(filled) < n_blanks:
            open_blanks = [number for number in range(n_blanks) if number not in filled]
            row = self._row(holes, filled)
            places = [sum(map(len, holes.parts[: n + 1])) + n for n in open_blanks]
            log_probs_NV = self._log_probs([row], places)
            allowed_NV = torch.stack([self._first(holes, n) for n in open_blanks])
            best, ids = log_probs_NV.masked_fill(~allowed_NV, -torch.inf).max(-1)
            sure = int(best.argmax())
            filled[open_blanks[sure]] = [int(ids[sure])]
        return [self.tokenizer.decode(filled[number]).strip() for number in range(n_blanks)]

    @property
    def _mask(self) -> int:
        assert self.model.vocabulary.mask_id is not None
        return self.model.vocabulary.mask_id

    def _row(self, holes: HoledText, filled: dict[int, list[int]]) -> list[int]:
        """The ids of the text, blanks filled or hidden."""
        row = list(holes.parts[0])
        for number, part in enumerate(holes.parts[1:]):
            row += filled.get(number, [self._mask]) + list(part)
        return row

    @torch.inference_mode()
    def _log_probs(self, rows: list[list[int]], places: list[int]) -> Tensor:
        """log p of every piece at some places (after the begin token) of rows of one length, (rows * places, V)."""
        ids_BT, _ = framed(rows, self.model.vocabulary)
        h_BTD = self.model.features(ids_BT.to(self.model.tokens.weight.device))
        h_ND = h_BTD[:, [at + 1 for at in places]].flatten(0, 1)
        return self.model.logits(h_ND).float().log_softmax(-1).cpu()


def _can_be_said(tokenizer: Tokenizer) -> np.ndarray:
    """Which pieces read as something by themselves: no special token, bare space or part of a character; bool [V]."""
    special, said = tokenizer.special_ids, np.zeros(tokenizer.vocab_size, bool)
    for number in range(tokenizer.vocab_size):
        text = "" if number in special else tokenizer.decode([number])
        said[number] = bool(text.strip()) and "\ufffd" not in text
    return said
