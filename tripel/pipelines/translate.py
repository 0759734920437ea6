"""Translation: raw text in, natural text out."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

from tripel.decode.engine import generate, stream
from tripel.decode.ensemble import Ensemble
from tripel.decode.prepare import Engine, Precision, prepare
from tripel.decode.search import DecodeConfig, FinishReason, Hypothesis
from tripel.decode.session import Translating
from tripel.errors import InputError
from tripel.models.encoder_decoder import EncoderDecoder
from tripel.pipelines.records import LineFormat, PlainLines
from tripel.pipelines.settings import changed, check_text
from tripel.pipelines.split import Piece, lines, sentences
from tripel.text.clean import clean
from tripel.text.pair import TokenizerPair
from tripel.text.tokenizer import Tokenizer

LOOKAHEAD = 512
"""Lines read before the first is translated: enough to fill batches of like length."""


@dataclass(frozen=True)
class Alternative:
    """One answer of an n-best list. score: see Hypothesis; for a text that was split, the mean over its parts."""

    text: str
    score: float


@dataclass(frozen=True)
class Translation:
    """A translated text; str() gives the text alone.

    parts: what was translated separately: the text itself, or its lines, or the sentences of lines that the model cannot
    read at once; none for a blank text. alternatives: the n_best answers, best first. finish_reason: `length` if any
    part reached its limit. n_cleaned: control and invisible characters that were replaced or removed.
    """

    source: str
    text: str
    parts: tuple[str, ...]
    alternatives: tuple[Alternative, ...]
    finish_reason: FinishReason
    n_cleaned: int

    @property
    def split(self) -> bool:
        """Whether the text was translated in several parts."""
        return len(self.parts) > 1

    @property
    def score(self) -> float | None:
        """The best answer's score; None for a blank text."""
        return self.alternatives[0].score if self.alternatives else None

    def __str__(self) -> str:
        return self.text


@dataclass
class _Job:
    """A text on its way: its pieces, and for each the ids of its source (None: nothing to translate)."""

    source: str
    n_cleaned: int
    pieces: list[Piece] = field(default_factory=list)
    ids: list[list[int] | None] = field(default_factory=list)


class Translator:
    """A trained encoder-decoder with its tokenizers. decode: how answers are chosen unless a call says otherwise.

    engine, precision: how the model is computed, see tripel.decode.prepare. All engines but `plain` work on a copy of the
    weights made here. ensemble: more models of the same tokenizers, which choose every token together with the first: by the
    mean of their probabilities. Raises InputError when their vocabularies differ.
    """

    def __init__(
        self,
        model: EncoderDecoder,
        tokenizers: TokenizerPair,
        decode: DecodeConfig | None = None,
        *,
        engine: Engine = "auto",
        precision: Precision = "float32",
        ensemble: Sequence[EncoderDecoder] = (),
    ) -> None:
        self.model, self.tokenizers = model, tokenizers
        self.decode = decode or DecodeConfig()
        members = [prepare(member, engine, precision) for member in (model, *ensemble)]
        self._decoder = Ensemble(members) if ensemble else members[0]

    @overload
    def translate(self, texts: str, *, prefix: str = "", **settings: Any) -> Translation: ...

    @overload
    def translate(
        self, texts: Sequence[str], *, prefix: str | Sequence[str] = "", **settings: Any
    ) -> list[Translation]: ...

    def translate(
        self, texts: str | Sequence[str], *, prefix: str | Sequence[str] = "", **settings: Any
    ) -> Translation | list[Translation]:
        """Translate one text, or many in one go: faster, and with the same answers.

        A blank text gives a blank translation. A text of several lines is translated line by line; a line longer than
        the model can read is split into sentences, which `parts` of the answer shows. prefix: words that each
        translation must begin with, one for all or one per text. settings: fields of DecodeConfig (beam, n_best,
        length_penalty, sample, temperature, seed ...) that differ from self.decode in this call.
        Raises InputError for what is not text, for a single sentence too long for the model, and for wrong settings.
        """
        if isinstance(texts, str):
            return self._translate([texts], [prefix] if isinstance(prefix, str) else prefix, settings, "text")[0]
        return self._translate(texts, [prefix] * len(texts) if isinstance(prefix, str) else prefix, settings, "text")

    def stream(self, text: str, *, prefix: str = "", **settings: Any) -> Iterator[str]:
        """The translation of a text word by word, as soon as each word is certain; joined, they are the translation.

        Greedy search and sampling are certain of a word at once, beam search when its hypotheses agree. Arguments and
        errors as for translate.
        """
        config = self._config({**settings, "n_best": 1})
        (job,) = self._plan([text], "text")
        forced = self._encode_prefix(prefix)
        return _words(self._fragments(job, config, forced))

    def translate_lines(
        self,
        lines: Iterable[str],
        *,
        line_format: LineFormat | None = None,
        lookahead: int = LOOKAHEAD,
        on_error: Callable[[InputError], None] | None = None,
        on_answer: Callable[[int, Translation], None] | None = None,
        **settings: Any,
    ) -> Iterator[str]:
        """One output line for each input line, in order and without line ends, reading `lookahead` lines at a time.

        line_format: PlainLines (default), TsvLines or JsonLines. on_error: called with what is wrong with a line, which
        then becomes an empty one; without it the first such line raises InputError. on_answer: called with a line's number,
        from 1, and all that there is to know of its translation. Settings as for translate.
        """
        line_format, config = line_format or PlainLines(), self._config(settings)
        numbered = enumerate((line.rstrip("\r\n") for line in lines), start=1)
        while chunk := list(itertools.islice(numbered, max(1, lookahead))):
            jobs = [self._read_line(line, number, line_format, on_error) for number, line in chunk]
            good = [job for job in jobs if job is not None]
            translated = iter(self._run(good, [()] * len(good), config))
            for (number, line), job in zip(chunk, jobs, strict=True):
                if job is None:
                    yield ""
                    continue
                answer = next(translated)
                if on_answer is not None:
                    on_answer(number, answer)
                yield line_format.write(line, answer.text.replace("\n", " "))

    def _read_line(
        self, line: str, number: int, line_format: LineFormat, on_error: Callable[[InputError], None] | None
    ) -> _Job | None:
        try:
            return self._plan([line_format.read(line, number)], "line", number)[0]
        except InputError as error:
            if on_error is None:
                raise
            on_error(error)
            return None

    def _translate(
        self, texts: Sequence[str], prefixes: Sequence[str], settings: dict[str, Any], kind: str
    ) -> list[Translation]:
        if len(prefixes) != len(texts):
            raise InputError(
                "the number of prefixes is not that of the texts",
                given=f"{len(prefixes)} prefixes, {len(texts)} texts",
                expected="one prefix for all, or one for each text",
            )
        jobs = self._plan(texts, kind)
        return self._run(jobs, [self._encode_prefix(prefix) for prefix in prefixes], self._config(settings))

    def _run(self, jobs: list[_Job], prefixes: Sequence[Sequence[int]], config: DecodeConfig) -> list[Translation]:
        sources, forced = [], []
        for job, prefix in zip(jobs, prefixes, strict=True):
            given = [ids for ids in job.ids if ids is not None]
            sources += given
            forced += [prefix if i == 0 else () for i in range(len(given))]
        answers = iter(generate(self._decoder, sources, config, prefixes=forced))
        return [self._assemble(job, answers) for job in jobs]

    def _assemble(self, job: _Job, answers: Iterator[list[Hypothesis]]) -> Translation:
        parts = [None if ids is None else next(answers) for ids in job.ids]
        found = [hypotheses for hypotheses in parts if hypotheses]
        alternatives = []
        for rank in range(min(map(len, found), default=0)):
            texts = [self._text(hypotheses[rank]) if hypotheses else "" for hypotheses in parts]
            text = "".join(text + piece.gap for text, piece in zip(texts, job.pieces, strict=True))
            alternatives.append(Alternative(text, sum(h[rank].score for h in found) / len(found)))
        text = alternatives[0].text if alternatives else "".join(piece.gap for piece in job.pieces)
        finished: FinishReason = "length" if any(h[0].finish_reason == "length" for h in found) else "stop"
        translated = tuple(piece.text for piece, ids in zip(job.pieces, job.ids, strict=True) if ids is not None)
        return Translation(job.source, text, translated, tuple(alternatives), finished, job.n_cleaned)

    def _text(self, hypothesis: Hypothesis) -> str:
        return self.tokenizers.target.decode(hypothesis.ids)

    def _plan(self, texts: Sequence[str], kind: str, first: int = 1) -> list[_Job]:
        """Clean every text, cut it into what the model can read, and encode that."""
        jobs, encode = [], _Encoder(self.tokenizers.source, self._decoder)
        for number, text in enumerate(texts, start=first):
            _check_text(text, kind, number)
            cleaned = clean(text, normalization="none")
            job = _Job(text, cleaned.n_controls + cleaned.n_invisible, lines(cleaned.text))
            jobs.append(job)
        encoded = iter(encode([piece.text for job in jobs for piece in job.pieces]))
        for number, job in enumerate(jobs, start=first):
            pieces, job.pieces = job.pieces, []
            for piece, ids in zip(pieces, itertools.islice(encoded, len(pieces)), strict=True):
                smaller = [piece] if encode.fits(ids) else sentences(piece)
                smaller_ids = [ids] if len(smaller) == 1 else encode([part.text for part in smaller])
                for part, part_ids in zip(smaller, smaller_ids, strict=True):
                    encode.check(part.text, part_ids, kind, number)
                job.pieces += smaller
                job.ids += smaller_ids
        return jobs

    def _encode_prefix(self, prefix: str) -> list[int]:
        _check_text(prefix, "prefix", 1)
        return self.tokenizers.target.encode(prefix.strip()) if prefix.strip() else []

    def _fragments(self, job: _Job, config: DecodeConfig, prefix: Sequence[int]) -> Iterator[str]:
        for piece, ids in zip(job.pieces, job.ids, strict=True):
            if ids is not None:
                detokenizer = self.tokenizers.target.stream()
                for token in stream(self._decoder, ids, config, prefix=prefix):
                    yield detokenizer.push(token)
                yield detokenizer.finish()
                prefix = ()
            yield piece.gap

    def _config(self, settings: dict[str, Any]) -> DecodeConfig:
        return changed(self.decode, settings)


class _Encoder:
    """Source text to ids with the end token; None for blank text."""

    def __init__(self, tokenizer: Tokenizer, model: Translating) -> None:
        self.tokenizer, self.longest, self.eos_id = tokenizer, model.config.max_len, model.vocabulary.eos_id

    def __call__(self, texts: Sequence[str]) -> list[list[int] | None]:
        return [[*ids, self.eos_id] if ids else None for ids in self.tokenizer.encode_batch(texts)]

    def fits(self, ids: list[int] | None) -> bool:
        """Whether the model can read ids at once."""
        return ids is None or len(ids) <= self.longest

    def check(self, text: str, ids: list[int] | None, kind: str, number: int) -> None:
        """Raises InputError for a sentence that is still too long."""
        if not self.fits(ids):
            raise InputError(
                f"{kind} {number} has a sentence that is longer than this model can read",
                given=f"{len(ids or ())} tokens: {text[:60]}...",
                expected=f"at most {self.longest} tokens between two sentence ends (. ! ? …), end token included",
                mend="put sentence punctuation or line ends where the text may be cut",
            )


def _check_text(text: object, kind: str, number: int) -> None:
    check_text(text, kind, number, mend="give it as lines: translate_lines, or `tripel translate RUN < FILE`")


def _words(fragments: Iterable[str]) -> Iterator[str]:
    """Fragments joined into words: what is held back is given out when the next word begins."""
    word = ""
    for fragment in fragments:
        if word and fragment[:1].isspace():
            yield word
            word = ""
        word += fragment
    if word:
        yield word
