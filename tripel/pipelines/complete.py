"""Completion: the beginning of a text in, what may follow out; and how likely a text is."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

from tripel.decode import complete as decoding
from tripel.decode.complete import CompletionConfig
from tripel.decode.prepare import Engine, Precision, prepare_decoder
from tripel.decode.score import score
from tripel.decode.search import Alternatives, FinishReason, Hypothesis
from tripel.errors import InputError
from tripel.models.decoder import Decoder
from tripel.pipelines.score import Score, TokenChoice, choices
from tripel.pipelines.settings import changed, check_text
from tripel.pipelines.stops import StopCheck, StopText
from tripel.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Sample:
    """One continuation of a prompt. text: what follows the prompt, without the stop string that ended it.

    ids, pieces, log_probs: the tokens that text is made of, and how likely each was (nats) by the model itself: before
    temperature and filters, after a repetition penalty, the padding token left out. alternatives: the likeliest tokens
    of every step, if asked for. finish_reason: `stop` the model or a stop string ended it, `length` it has as many
    tokens as it may. n_dropped: tokens of prompt and answer (and of the boundary before an empty prompt) that no longer
    were in the model's window when the last token was chosen.
    """

    text: str
    ids: tuple[int, ...]
    pieces: tuple[str, ...]
    log_probs: tuple[float, ...]
    alternatives: tuple[tuple[TokenChoice, ...], ...]
    finish_reason: FinishReason
    n_dropped: int

    def as_dict(self) -> dict[str, Any]:
        """What to_json of a Completion says of it."""
        tokens: list[dict[str, Any]] = [
            {"id": token_id, "piece": piece, "log_prob": log_prob}
            for token_id, piece, log_prob in zip(self.ids, self.pieces, self.log_probs, strict=True)
        ]
        for token, alternatives in zip(tokens, self.alternatives, strict=False):
            token["top"] = [choice.as_dict() for choice in alternatives]
        return {
            "text": self.text,
            "finish_reason": self.finish_reason,
            "n_dropped": self.n_dropped,
            "tokens": tokens,
        }


@dataclass(frozen=True)
class Completion:
    """What follows a prompt; str() gives the text of the first sample. samples: all n."""

    prompt: str
    samples: tuple[Sample, ...]

    @property
    def text(self) -> str:
        """Of the first sample."""
        return self.samples[0].text

    @property
    def ids(self) -> tuple[int, ...]:
        """Of the first sample."""
        return self.samples[0].ids

    @property
    def log_probs(self) -> tuple[float, ...]:
        """Of the first sample."""
        return self.samples[0].log_probs

    @property
    def finish_reason(self) -> FinishReason:
        """Of the first sample."""
        return self.samples[0].finish_reason

    @property
    def n_dropped(self) -> int:
        """Of the first sample."""
        return self.samples[0].n_dropped

    def __str__(self) -> str:
        return self.text

    def to_json(self) -> str:
        """One line: prompt, and for every sample its text, finish_reason, n_dropped and tokens with id, piece, log_prob
        (nats) and, if asked for, top: the likeliest tokens in their place."""
        value = {"prompt": self.prompt, "samples": [sample.as_dict() for sample in self.samples]}
        return json.dumps(value, ensure_ascii=False)


class Completer:
    """A trained language model with its tokenizer. decode: how text is gone on with unless a call says otherwise.

    engine, precision: how the model is computed while it completes, see tripel.decode.prepare. All engines but `plain`
    work on a copy of the weights made here. Scores always come from the model itself.
    """

    def __init__(
        self,
        model: Decoder,
        tokenizer: Tokenizer,
        decode: CompletionConfig | None = None,
        *,
        engine: Engine = "auto",
        precision: Precision = "float32",
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.decode = decode or CompletionConfig()
        self._decoder = prepare_decoder(model, engine, precision)
        self._context = decoding.context_of(model)

    @overload
    def complete(self, prompts: str, **settings: Any) -> Completion: ...

    @overload
    def complete(self, prompts: Sequence[str], **settings: Any) -> list[Completion]: ...

    def complete(self, prompts: str | Sequence[str], **settings: Any) -> Completion | list[Completion]:
        """Go on with one prompt, or with many in one go: faster, and with the same answers.

        An empty prompt begins a new text: the model reads the token that stands between texts. settings: fields of
        CompletionConfig (max_new_tokens, temperature, n, stop, seed ...) that differ from self.decode in this call.
        Raises InputError for what is not text, for characters that the tokenizer does not know, for a prompt beyond the
        context if on_overflow is `error`, and for wrong settings.
        """
        config = changed(self.decode, settings)
        texts = [prompts] if isinstance(prompts, str) else list(prompts)
        encoded = [self._encode(text, number) for number, text in enumerate(texts, start=1)]
        ends = [StopCheck(self.tokenizer, ids, config.stop) for ids in encoded] if config.stop else None
        answers = decoding.complete(self._decoder, encoded, config, ends=ends)
        completions = [
            Completion(text, tuple(self._sample(ids, hypothesis, config) for hypothesis in hypotheses))
            for text, ids, hypotheses in zip(texts, encoded, answers, strict=True)
        ]
        return completions[0] if isinstance(prompts, str) else completions

    def stream(self, prompt: str, **settings: Any) -> Iterator[str]:
        """The text of complete's first sample piece by piece, each as soon as it is certain.

        Samples and greedy search are certain of a token at once, beam search when its hypotheses agree; what may become
        a stop string is held back. Arguments and errors as for complete, before the first piece.
        """
        config = changed(self.decode, {**settings, "n": 1, "top": 0})
        ids = self._encode(prompt, 1)
        decoding.check_contexts([ids], config, self._context)
        return self._stream(ids, config)

    @overload
    def score(self, texts: str, *, top: int = 0) -> Score: ...  # type: ignore[overload-overlap]

    @overload
    def score(self, texts: Sequence[str], *, top: int = 0) -> list[Score]: ...

    def score(self, texts: str | Sequence[str], *, top: int = 0) -> Score | list[Score]:
        """The log-probability of every token of a text, given those before it; the first is given the boundary token.

        A text longer than the model's context is read in windows that overlap by half: every token is given at least
        half a context of those before it. Recurrent and convolutional models read any text in one go. top: the
        likeliest tokens told for every place. Characters that the tokenizer does not know count as its unknown token,
        which the Score tells. Raises InputError for what is not text, and for an empty text.
        """
        given = [texts] if isinstance(texts, str) else list(texts)
        for number, text in enumerate(given, start=1):
            check_text(text, "text", number, mend="give it in parts")
            if not text:
                raise InputError(f"text {number} is empty: there is nothing to score", mend="leave it out")
        explained = [self.tokenizer.explain(text) for text in given]
        found = score(self.model, [explanation.ids for explanation in explained], top=top)
        scores = [
            Score(
                text=explanation.text,
                ids=explanation.ids,
                pieces=explanation.pieces,
                offsets=explanation.offsets,
                log_probs=tuple(scored.log_probs),
                alternatives=tuple(self._choices(step) for step in scored.alternatives),
                unknown=self._unknown(explanation.text, explanation.ids, explanation.offsets),
            )
            for explanation, scored in zip(explained, found, strict=True)
        ]
        return scores[0] if isinstance(texts, str) else scores

    def _encode(self, prompt: str, number: int) -> list[int]:
        check_text(prompt, "prompt", number, mend="give the end of it: the model reads no further back")
        ids = self.tokenizer.encode(prompt)
        if self.tokenizer.unk_id in ids and self.tokenizer.unk_id != self.tokenizer.eos_id:
            explanation = self.tokenizer.explain(prompt)
            unknown = self._unknown(prompt, explanation.ids, explanation.offsets)
            raise InputError(
                f"prompt {number} has characters that this model does not know",
                given=", ".join(map(repr, unknown[:10])) + (" ..." if len(unknown) > 10 else ""),
                expected="characters of the text that the tokenizer was trained on",
                mend="leave them out, or train with tokenizer.kind byte or byte_bpe, which know every character",
            )
        return [*self.tokenizer.opening_ids, *ids]

    def _unknown(self, text: str, ids: Sequence[int], offsets: Sequence[tuple[int, int]]) -> tuple[str, ...]:
        """What of a text the tokenizer does not know, each once."""
        unk_id = self.tokenizer.unk_id
        if unk_id == self.tokenizer.eos_id:
            return ()
        places = (offset for token_id, offset in zip(ids, offsets, strict=True) if token_id == unk_id)
        return tuple(dict.fromkeys(text[start:stop] for start, stop in places))

    def _sample(self, prompt: Sequence[int], hypothesis: Hypothesis, config: CompletionConfig) -> Sample:
        ids = hypothesis.ids[len(prompt) :]
        reader = StopText(self.tokenizer, prompt, config.stop)
        text = "".join([reader.push(token_id) for token_id in ids]) + reader.finish()
        # Of the tokens that made the stop string, those that also begin in the text before it are part of it.
        n = sum(length < len(text) for length in reader.lengths) if reader.stopped else len(ids)
        return Sample(
            text=text,
            ids=tuple(ids[:n]),
            pieces=tuple(self.tokenizer.pieces(ids[:n])),
            log_probs=tuple(hypothesis.log_probs[:n]),
            alternatives=tuple(self._choices(step) for step in hypothesis.alternatives[:n]),
            finish_reason="stop" if reader.stopped else hypothesis.finish_reason,
            n_dropped=decoding.n_dropped(max(1, len(prompt)), len(hypothesis.log_probs), self._context),
        )

    def _stream(self, prompt: Sequence[int], config: CompletionConfig) -> Iterator[str]:
        reader = StopText(self.tokenizer, prompt, config.stop)
        ends = StopCheck(self.tokenizer, prompt, config.stop) if config.stop else None
        for token_id in decoding.stream(self._decoder, prompt, config, ends=ends):
            if text := reader.push(token_id):
                yield text
            if reader.stopped:
                return
        if text := reader.finish():
            yield text

    def _choices(self, alternatives: Alternatives) -> tuple[TokenChoice, ...]:
        return choices(alternatives, self.tokenizer)
