"""Tokenizers: trained here with the `tokenizers` library, saved in its format, read from its files.

Spacing is kept the way SentencePiece (Kudo and Richardson 2018) keeps it: a text gets one space in front, every space
becomes U+2581 (shown as a low bar) and stays with the word after it, so that decoding needs no rules. A low bar in the
text itself becomes "_". Decoding is thus the exact inverse of encoding up to Tokenizer.normalize, for every text with
bpe, unigram, byte and byte_bpe, and for every text whose words (characters) are in the vocabulary with word and
wordpiece (char). The kinds char, byte and byte_bpe put nothing in front of a text: language models are made with them.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import tokenizers
from pydantic import Field, model_validator

from tripel.config import Config
from tripel.errors import TokenizerError
from tripel.files import write_atomically
from tripel.text import backends
from tripel.text.clean import Normalization
from tripel.text.explanation import Explanation
from tripel.text.holes import HoledText, encode_around
from tripel.text.stream import TextStream

UNKNOWN_TEXT = "\u2047"
"""What an unknown token reads as: a double question mark, as SentencePiece writes it."""

_PAD_NAMES = ("<pad>", "[PAD]", "<|pad|>")
_UNK_NAMES = ("<unk>", "[UNK]")
_BOS_NAMES = ("<s>", "[CLS]", "<|begin_of_text|>", "<|endoftext|>")
_EOS_NAMES = ("</s>", "[SEP]", "<|end_of_text|>", "<|endoftext|>")
_MASK_NAMES = (backends.MASK, "[MASK]")


class WordMarks(NamedTuple):
    """Of every id, bool arrays [vocab_size]: whether its piece begins a word by its own mark (a space before it; in
    BERT's vocabularies no ## before it), and whether its first and last characters are letters or digits."""

    spaced: np.ndarray
    letter_first: np.ndarray
    letter_last: np.ndarray


class TokenizerConfig(Config):
    """How a tokenizer is trained.

    vocab_size: the most entries, special tokens (and bytes) included; char and byte take what they need of it.
    shared: one vocabulary for source and target. min_frequency: how often a piece must occur to enter the vocabulary.
    dropout: BPE dropout (Provilkov et al. 2020), the chance that a merge is skipped, in training examples only.
    byte_fallback: bpe and unigram spell a character they do not know in UTF-8 bytes (256 entries) instead of giving
    the unknown token, so that any text can be written and read back. byte_bpe needs no fallback: it is GPT-2's BPE,
    whose pieces are made of bytes (Radford et al. 2019).
    """

    kind: Literal["word", "char", "byte", "bpe", "byte_bpe", "unigram", "wordpiece"] = "bpe"
    vocab_size: int = Field(8000, ge=8, le=1_000_000)
    shared: bool = True
    min_frequency: int = Field(1, ge=1)
    normalization: Normalization = "nfc"
    lowercase: bool = False
    dropout: float = Field(0.0, ge=0.0, lt=1.0)
    byte_fallback: bool = True

    @model_validator(mode="after")
    def _dropout_needs_merges(self) -> TokenizerConfig:
        if self.dropout and self.kind != "bpe":
            raise ValueError(f"dropout skips the merges of kind bpe, kind {self.kind} has none: set dropout to 0")
        return self


class Tokenizer:
    """Text to ids and back. Made by train or load; never changed afterwards.

    pad_id, unk_id, bos_id, eos_id are read from the file: 0, 1, 2, 3 in those trained here; mask_id, of the token that
    hides another, is None where there is none. A file without a padding token pads with eos; one without a begin token
    (Marian) begins with pad; one that cannot meet an unknown piece (GPT-2) has eos as its unk_id, and never gives it.
    """

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        # Otherwise the text "</s>" would end the sentence. Not stored in tokenizer.json, hence set here.
        backend.encode_special_tokens = True
        # Sentence models' files have both: our callers cut and pad, and say when they cut.
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        self._ids = backend.get_vocab(with_added_tokens=True)
        self.vocab_size: int = max(self._ids.values()) + 1
        self._pieces = [""] * self.vocab_size
        for piece, number in self._ids.items():
            self._pieces[number] = piece
        self._special_ids = frozenset(i for i, token in backend.get_added_tokens_decoder().items() if token.special)
        self.eos_id: int = self._named(_EOS_NAMES)
        self.pad_id: int = self._named(_PAD_NAMES, self.eos_id)
        self.bos_id: int = self._named(_BOS_NAMES, self.pad_id)
        self.unk_id: int = self._named(_UNK_NAMES, self.eos_id)
        self.mask_id: int | None = next((self._ids[name] for name in _MASK_NAMES if name in self._ids), None)
        marks = {self.pad_id, self.bos_id, self.eos_id}
        self._silent_ids = marks | self._special_ids - {self.unk_id}
        self._byte_values = backends.byte_values(self._ids)
        self._table = backends.character_table(backend)
        decoder, kinds = backend.decoder, tokenizers.decoders
        # BERT's, whose pieces tell where words go on instead of where they begin.
        joins_words = isinstance(decoder, kinds.WordPiece)
        # Byte-level BPE goes over to bytes when words are parted, kind byte when a text is normalized.
        self._decodes_words = joins_words or isinstance(decoder, kinds.ByteLevel) and bool(backend.pre_tokenizer)
        # A word that is unknown was almost always preceded by a space, which went with it.
        whole_words = isinstance(backend.model, tokenizers.models.WordLevel | tokenizers.models.WordPiece)
        whole_words = whole_words and not joins_words
        self._unknown_piece = (backends.SPACE if whole_words else "") + UNKNOWN_TEXT

    @classmethod
    def train(
        cls, config: TokenizerConfig, texts: Iterable[str], *, ends_texts: bool = True, mask: bool = False
    ) -> Tokenizer:
        """Learn a vocabulary from texts (a stream will do, it is read once).

        ends_texts: whether other libraries that open the file shall put </s> behind a text: right for a source that is
        translated, wrong for a prompt. Ours never do. mask: for an encoder: the last id is <mask>, and other libraries shall
        put a text between <s> and </s>.
        The same texts in the same order give the same tokenizer, but for kind unigram, whose training in the library is
        not reproducible (what was trained is: save it). Raises TokenizerError when there is no text, or when
        vocab_size is too small to hold the characters that occur.
        """
        texts = iter(texts)
        first = next((text for text in texts if text), None)
        if first is None and config.kind != "byte":
            raise TokenizerError(
                "a tokenizer cannot be trained without text",
                given="no text, or only empty lines",
                expected="at least one line with characters in it",
                mend="look at the training files named in the recipe's data section",
            )
        return cls(backends.train(config, itertools.chain([first or ""], texts), ends_texts=ends_texts, mask=mask))

    @classmethod
    def load(cls, path: str | Path) -> Tokenizer:
        """Read a tokenizer.json, ours or another's. Raises TokenizerError when it is missing or damaged."""
        path = Path(path)
        expected = "a tokenizer.json as Tripel and Hugging Face's tokenizers write it"
        try:
            content = path.read_text(encoding="utf-8")
            kind = json.loads(content)["model"].get("type", "a model without a type")
        except FileNotFoundError:
            raise TokenizerError(
                "the tokenizer file is missing",
                given=path,
                expected=expected,
                mend="copy it from where the model was trained, or train again",
            ) from None
        except OSError as error:
            raise TokenizerError(
                f"the tokenizer file cannot be read: {error.strerror}",
                given=path,
                expected="a file that this user may read",
                mend="check the path and its permissions",
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise _damaged(path, expected, error) from None
        try:
            return cls(tokenizers.Tokenizer.from_str(content))
        except TokenizerError:
            raise
        except Exception as error:  # the library raises plain Exception for everything
            raise _damaged(f"{path} ({kind})", expected, error) from None

    def save(self, path: str | Path) -> None:
        """Write tokenizer.json, whole or not at all. transformers opens it (PreTrainedTokenizerFast)."""
        write_atomically(Path(path), self.to_json().encode("utf-8"))

    def to_json(self) -> str:
        """The content of tokenizer.json: equal for equal tokenizers, hence also their identity."""
        return self._backend.to_str(pretty=True)

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without special tokens. The empty text gives no ids."""
        return self._backend.encode(text, add_special_tokens=False).ids

    @cached_property
    def opening_ids(self) -> tuple[int, ...]:
        """The special tokens that the file puts in front of a text: none in those trained here, <s> in Llama's. A
        language model that was trained with them expects them before every prompt."""
        encoding = self._backend.encode("a", add_special_tokens=True)
        marked = zip(encoding.ids, encoding.special_tokens_mask, strict=True)
        return tuple(number for number, _ in itertools.takewhile(lambda pair: pair[1] == 1, marked))

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """encode for many texts, faster than one by one."""
        return [encoding.ids for encoding in self._backend.encode_batch_fast(list(texts), add_special_tokens=False)]

    def encode_arrays(self, texts: Sequence[str]) -> list[np.ndarray]:
        """encode for many texts as int32 arrays; many times as fast for kinds char and byte, where a table does."""
        if self._table is not None:
            return [self._table.encode(text) for text in texts]
        return [np.array(ids, np.int32) for ids in self.encode_batch(texts)]

    def encode_around(self, segments: Sequence[str]) -> HoledText:
        """The ids of a text with holes, given as the segments around them: at least one hole, so at least two segments."""
        return encode_around(self._backend, list(segments))

    def encode_words(self, texts: Sequence[str]) -> list[tuple[list[int], list[int | None]]]:
        """For each text its ids and, for each id, the number of the word (pre-token) it belongs to."""
        encodings = self._backend.encode_batch(list(texts), add_special_tokens=False)
        return [(encoding.ids, encoding.word_ids) for encoding in encodings]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of some ids. Special tokens are left out; an unknown token reads as U+2047."""
        pieces = [self._piece(i) for i in ids if i not in self._silent_ids]
        if self._byte_values and not self._byte_values.keys().isdisjoint(pieces):
            pieces = self._spell_bytes(pieces)
        return self._backend.decoder.decode(pieces) if self._backend.decoder else " ".join(pieces)

    def decode_batch(self, batch: Iterable[Iterable[int]]) -> list[str]:
        """decode for many."""
        return [self.decode(ids) for ids in batch]

    def stream(self, context: Sequence[int] = ()) -> TextStream:
        """An incremental detokenizer for ids that arrive one at a time, after those of context."""
        return TextStream(self.decode, self._silent_ids, context)

    def normalize(self, text: str) -> str:
        """What decode(encode(text)) gives: the text after Unicode normalisation (and lower-casing)."""
        normalizer, decoder = self._backend.normalizer, self._backend.decoder
        text = normalizer.normalize_str(text) if normalizer else text
        if self._decodes_words and decoder:
            return decoder.decode([piece for piece, _ in self._backend.pre_tokenizer.pre_tokenize_str(text)])
        return decoder.decode(list(text)) if decoder else text

    def explain(self, text: str) -> Explanation:
        """The pieces and ids of a text, and the characters each stands for."""
        encoding = self._backend.encode(text, add_special_tokens=False)
        return Explanation(text, tuple(encoding.tokens), tuple(encoding.ids), tuple(encoding.offsets))

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """The vocabulary's own spelling of each id."""
        return [self._pieces[i] for i in ids]

    def token_to_id(self, piece: str) -> int | None:
        """The id of a piece in the vocabulary's own spelling, or None."""
        return self._ids.get(piece)

    def is_byte(self, token_id: int) -> bool:
        """Whether the id stands for one byte of a character that is not in the vocabulary."""
        return bool(self._byte_values) and self._pieces[token_id] in self._byte_values

    @property
    def keeps_text_divisible(self) -> bool:
        """Whether the encodings of pieces of a text, cut before spaces, join to the text's: what a language model's
        stream of tokens needs. True of the kinds char, byte and byte_bpe, and of GPT-2's own file."""
        return backends.keeps_text_divisible(self._backend)

    @cached_property
    def word_marks(self) -> WordMarks:
        """Where words begin, as far as single pieces tell."""
        continued = getattr(self._backend.model, "continuing_subword_prefix", None) == "##"
        spaced, first, last = [], [], []
        for number, piece in enumerate(self._pieces):
            bare = piece.removeprefix("##").lstrip("".join(backends.SPACE_MARKS))
            text = number not in self._special_ids
            spaced.append(not piece.startswith("##") if continued else piece.startswith(backends.SPACE_MARKS))
            first.append(text and bare[:1].isalnum())
            last.append(text and (bare[-1:].isalnum() or not bare))  # a space by itself: its word follows
        return WordMarks(*(np.array(marks, bool) for marks in (spaced, first, last)))

    @property
    def kind(self) -> str:
        """The kind of TokenizerConfig that it is of, or is nearest to."""
        return backends.kind(self._backend)

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids that stand for no text: padding, begin, end, unknown and what else the file declares special."""
        return self._special_ids

    @property
    def merges(self) -> list[tuple[int, int, int]] | None:
        """BPE's merges, first is most wanted, as ids (left, right, merged); None for a tokenizer that is not BPE."""
        model = json.loads(self._backend.to_str())["model"]
        if model["type"] != "BPE":
            return None
        return [(self._ids[left], self._ids[right], self._ids[left + right]) for left, right in model["merges"]]

    def _named(self, names: Sequence[str], default: int | None = None) -> int:
        for name in names:
            if name in self._ids:
                return self._ids[name]
        if default is None:
            raise TokenizerError(
                "the tokenizer has no token that ends a text",
                given=f"{self.vocab_size} tokens",
                expected=" or ".join(names),
                mend="add one of these to the tokenizer file as a special token",
            )
        return default

    def _piece(self, token_id: int) -> str:
        if not 0 <= token_id < self.vocab_size:
            raise TokenizerError(
                "an id that is not in the vocabulary",
                given=token_id,
                expected=f"0 to {self.vocab_size - 1}",
                mend="use the tokenizer that the model was trained with",
            )
        return self._unknown_piece if token_id == self.unk_id else self._pieces[token_id]

    def _spell_bytes(self, pieces: list[str]) -> list[str]:
        """Turn runs of byte pieces into characters. The library's own decoder gives up a whole run for one bad byte,
        so that what it says of the first bytes depends on later ones: no stream could agree with it."""
        spelled: list[str] = []
        for is_bytes, run in itertools.groupby(pieces, key=self._byte_values.__contains__):
            if is_bytes:
                spelled.append(bytes(self._byte_values[piece] for piece in run).decode("utf-8", errors="replace"))
            else:
                spelled.extend(run)
        return spelled


def _damaged(path: object, expected: str, error: Exception) -> TokenizerError:
    return TokenizerError(
        f"the tokenizer file is damaged or of another kind: {error}",
        given=path,
        expected=expected,
        mend="copy the file again from where the model was trained",
    )
