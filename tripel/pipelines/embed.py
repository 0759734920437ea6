"""Vectors of texts, tokens and words from an encoder, and the words that are near them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from tripel.errors import InputError, nearest
from tripel.models.config import Pooling
from tripel.models.encoder import Encoder
from tripel.nn.heads import pooled
from tripel.pipelines.settings import check_text
from tripel.tasks.framing import framed
from tripel.text.tokenizer import Tokenizer

BATCH_TOKENS = 8192


@dataclass(frozen=True)
class Embeddings:
    """vectors: float32 [texts, D]. n_dropped: of each text, the tokens at its end that the model has no positions for."""

    vectors: np.ndarray
    n_dropped: tuple[int, ...]


@dataclass(frozen=True)
class TokenEmbeddings:
    """pieces: of one text, begin and end tokens included. vectors: float32 [pieces, D]. n_dropped: as of Embeddings."""

    pieces: tuple[str, ...]
    vectors: np.ndarray
    n_dropped: int


@dataclass(frozen=True)
class Neighbour:
    """A word of the vocabulary and the cosine of its vector with the one that was asked about."""

    word: str
    cosine: float


class Embedder:
    """An encoder as a source of vectors. Answers do not depend on what else is asked at the same time."""

    def __init__(self, model: Encoder, tokenizer: Tokenizer) -> None:
        self.model, self.tokenizer = model.eval(), tokenizer

    @property
    def default_pool(self) -> Pooling:
        """How a text's vector is made when nothing is said: as the model was trained to, or the mean."""
        return "mean" if self.model.config.head == "masked-token" else self.model.config.pool

    def embed(self, texts: Sequence[str], *, pool: Pooling | None = None, normalize: bool | None = None) -> Embeddings:
        """A vector for each text. pool: mean, max or cls of the last hidden states, begin and end tokens included.

        normalize: to length 1; None does what the model's config says. A longer text than the model has positions for is
        cut, which n_dropped tells.
        """
        pool = check_pool(pool or self.default_pool, get_args(Pooling))
        rows, n_dropped = self._encode(texts)
        vectors = np.zeros((len(rows), self.model.config.d_model), np.float32)
        for chosen, h_BTD, valid_BT in self._read(rows):
            vectors[chosen] = pooled(h_BTD, valid_BT, pool).float().cpu().numpy()
        if self.model.config.normalize if normalize is None else normalize:
            vectors = unit(vectors)
        return Embeddings(vectors, n_dropped)

    def embed_tokens(self, texts: Sequence[str]) -> list[TokenEmbeddings]:
        """A vector for each token of each text: its last hidden state."""
        rows, n_dropped = self._encode(texts)
        answers: dict[int, TokenEmbeddings] = {}
        vocabulary = self.model.vocabulary
        for chosen, h_BTD, _ in self._read(rows):
            for row, h_TD in zip(chosen, h_BTD.float().cpu().numpy(), strict=True):
                ids = [vocabulary.start_id, *rows[row], vocabulary.eos_id]
                pieces = tuple(self.tokenizer.pieces(ids))
                answers[row] = TokenEmbeddings(pieces, h_TD[: len(ids)].copy(), n_dropped[row])
        return [answers[row] for row in range(len(rows))]

    def words(self, words: Sequence[str], *, contextual: bool = False) -> np.ndarray:
        """A vector for each word, float32 [words, D]: the mean of its pieces' rows of the embedding's matrix or, contextual,
        of what the last layer makes of them when the word is read alone. Raises InputError for an empty word."""
        rows = [self._pieces_of(word) for word in words]
        if not contextual:
            matrix_VD = self.model.tokens.weight.detach().float().cpu().numpy()
            return np.stack([matrix_VD[row].mean(axis=0) for row in rows])
        vectors = np.zeros((len(rows), self.model.config.d_model), np.float32)
        for chosen, h_BTD, _ in self._read(rows):
            for row, h_TD in zip(chosen, h_BTD.float().cpu().numpy(), strict=True):
                vectors[row] = h_TD[1 : len(rows[row]) + 1].mean(axis=0)
        return vectors

    def word_in(self, word: str, *sentences: str) -> np.ndarray:
        """The contextual vector of a word in a sentence, float32 [D]: the mean of its first occurrence's pieces; in several
        sentences the mean of their vectors. Capitals are no difference.

        Raises InputError when the word is not in a sentence, or beyond what the model reads of it."""
        rows, _ = self._encode(sentences)
        places = [self._place(word, sentence, len(row)) for sentence, row in zip(sentences, rows, strict=True)]
        vectors = np.zeros((len(rows), self.model.config.d_model), np.float32)
        for chosen, h_BTD, _ in self._read(rows):
            for row, h_TD in zip(chosen, h_BTD.float().cpu().numpy(), strict=True):
                vectors[row] = h_TD[[place + 1 for place in places[row]]].mean(axis=0)
        return vectors.mean(axis=0)  # type: ignore[no-any-return]

    def neighbours(
        self,
        word: str,
        k: int = 10,
        *,
        plus: Sequence[str] = (),
        minus: Sequence[str] = (),
        contextual: bool = False,
        sentences: Sequence[str] = (),
    ) -> list[Neighbour]:
        """The k words of the vocabulary whose vectors have the largest cosine with the word's, itself left out.

        plus, minus: words to add and take away, as in king - man + woman (Mikolov et al. 2013). contextual: by the last
        layer's vectors; sentences: the word as it stands in them. Vectors have their mean over the vocabulary's words taken
        away, which they would otherwise all share (Mu & Viswanath 2018).
        """
        contextual = contextual or bool(sentences)
        space = self.space(contextual)
        first = self.word_in(word, *sentences) if sentences else self.words([word], contextual=contextual)[0]
        others = [*plus, *minus]
        given = np.stack([first, *self.words(others, contextual=contextual)]) if others else first[None]
        signs = np.array([1.0] * (1 + len(plus)) + [-1.0] * len(minus), np.float32)
        cosines = space.vectors @ unit(signs @ space.centred(given))
        asked = {self.tokenizer.normalize(w).strip() for w in (word, *others)}
        best = [i for i in np.argsort(-cosines, kind="stable")[: k + len(asked)] if space.words[i] not in asked]
        return [Neighbour(space.words[i], float(cosines[i])) for i in best[:k]]

    def space(self, contextual: bool = False) -> WordSpace:
        """The vocabulary's words with their vectors."""
        return self._contextual_space if contextual else self._static_space

    @cached_property
    def vocabulary_words(self) -> dict[str, int]:
        """Words of letters that are one piece, with their ids. Raises InputError when there are none."""
        marks = self.tokenizer.word_marks
        special = self.tokenizer.special_ids
        found: dict[str, int] = {}
        for number in np.flatnonzero(marks.spaced).tolist():
            word = "" if number in special else self.tokenizer.decode([number]).strip()
            if word.isalpha():
                found.setdefault(word, number)
        if not found:
            raise InputError(
                "this model's vocabulary has no whole words",
                given=f"a tokenizer of kind {self.tokenizer.kind}",
                expected="one whose pieces can be words: wordpiece, bpe, unigram, word or byte_bpe",
                mend="compare texts with `tripel embed` instead",
            )
        return found

    @cached_property
    def _static_space(self) -> WordSpace:
        ids = list(self.vocabulary_words.values())
        return WordSpace.of(list(self.vocabulary_words), self.model.tokens.weight.detach().float().cpu().numpy()[ids])

    @cached_property
    def _contextual_space(self) -> WordSpace:
        words = list(self.vocabulary_words)
        return WordSpace.of(words, self.words(words, contextual=True))

    @cached_property
    def _before_words(self) -> str:
        """What makes byte-level BPE see a word as it is within a text: nothing else puts a space in front by itself."""
        return " " if self.tokenizer.kind == "byte_bpe" else ""

    def _pieces_of(self, word: str) -> list[int]:
        check_text(word, "word", 1, mend="give single words")
        ids = self.tokenizer.encode(self._before_words + word.strip())[: self._room] if word.strip() else []
        if not ids:
            raise InputError("a word is empty", given=repr(word), expected="at least one letter", mend="leave it out")
        return ids

    def _place(self, word: str, sentence: str, n_read: int) -> list[int]:
        """Which of a sentence's first n_read pieces make the word."""
        ends = ("(?<!\\w)" if word[:1].isalnum() else "", "(?!\\w)" if word[-1:].isalnum() else "")
        found = re.search(re.escape(word).join(ends), sentence, re.IGNORECASE) if word.strip() else None
        if found is None:
            raise InputError(
                "the word does not stand in the sentence",
                given=f"{word!r} in {sentence!r}",
                expected="a sentence with the word in it",
                mend="write it in the form that it has there",
            )
        offsets = self.tokenizer.explain(sentence).offsets
        first = found.start() - sentence[: found.start()].endswith(" ")  # the word's own space may be a piece
        place = [i for i, (start, end) in enumerate(offsets) if start < found.end() and end > first]
        if not place or place[-1] >= n_read:
            raise InputError(
                "the word stands where the model does not read any more",
                given=f"{word!r} at token {place[-1] + 1 if place else 0} of {len(offsets)}",
                expected=f"the first {n_read} tokens",
                mend="shorten the sentence",
            )
        return place

    @property
    def _room(self) -> int:
        """Tokens of a text that fit between the begin and end tokens; all where positions are not counted."""
        config = self.model.config
        return (1 << 20 if config.positions == "none" else config.max_len) - 2

    def _encode(self, texts: Sequence[str]) -> tuple[list[list[int]], tuple[int, ...]]:
        if isinstance(texts, str):
            raise InputError("one text was given for many", given=repr(texts[:60]), expected="a list", mend="[text]")
        for number, text in enumerate(texts, start=1):
            check_text(text, "text", number, mend="give it in parts")
        rows = self.tokenizer.encode_batch(texts)
        return [row[: self._room] for row in rows], tuple(max(0, len(row) - self._room) for row in rows)

    @torch.inference_mode()
    def _read(self, rows: Sequence[Sequence[int]]) -> Iterator[tuple[list[int], Tensor, Tensor | None]]:
        """Batches of like length: which rows, their hidden states (B, T, D), and which positions are theirs."""
        device, order = self.model.tokens.weight.device, np.argsort([len(row) for row in rows], kind="stable")
        start = 0
        while start < len(order):
            end = start + 1
            while end < len(order) and (len(rows[order[end]]) + 2) * (end + 1 - start) <= BATCH_TOKENS:
                end += 1
            chosen = order[start:end].tolist()
            ids_BT, valid_BT = framed([rows[i] for i in chosen], self.model.vocabulary)
            valid_BT = None if valid_BT is None else valid_BT.to(device)
            yield chosen, self.model.features(ids_BT.to(device), valid_BT), valid_BT
            start = end


@dataclass(frozen=True)
class WordSpace:
    """Words with their vectors, float32 [words, D], centred and of length 1. mean: what was taken away, [D]."""

    words: list[str]
    vectors: np.ndarray
    mean: np.ndarray

    @classmethod
    def of(cls, words: list[str], vectors: np.ndarray) -> WordSpace:
        """Centre and normalise vectors [words, D]."""
        mean = vectors.mean(axis=0)
        return cls(words, unit(vectors - mean), mean)

    def centred(self, vectors: np.ndarray) -> np.ndarray:
        """Other words' vectors [n, D] in this space."""
        return unit(vectors - self.mean)


def check_pool(pool: str, choices: Sequence[str]) -> Pooling:
    """The pool, if it is one of the choices. Raises InputError."""
    if pool in choices:
        return pool  # type: ignore[return-value]
    close = nearest(pool, choices)
    raise InputError(
        f"there is no pool {pool!r}",
        given=pool,
        expected=", ".join(choices),
        mend=f"did you mean {close}?" if close else None,
    )


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors [..., D] of length 1; those of length 0 stay."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1.0)  # type: ignore[no-any-return]
