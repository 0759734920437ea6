"""What is checked when a text is read: one pass over its pieces, in bounded memory.

    finding                    what is done                          refused above
    bad UTF-8 (lines)          the bytes become U+FFFD               max_bad_share, together with the next
    bad record (JSONL)         dropped                               max_bad_share of lines
    binary file                -                                     always
    no text at all             -                                     always
    repeated document          kept
    also in another set        kept (lines of 80 characters or more, and whole documents as long)
    unknown tokens             kept                                  max_unknown_share

The same is done to training, validation and test texts, so that what is scored is the text as a model can read it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from tripel.data.checks import Action, DataReport, Finding, Tally
from tripel.data.text_reading import Piece
from tripel.errors import DataError

LONG_LINE = 80
"""Characters from which on a line that is found in two sets is no accident."""

_MOST_HASHES = 1 << 19


@dataclass(frozen=True)
class TextFacts:
    """What one pass over a text tells. fingerprint: of the text and where its documents end, whatever its files."""

    fingerprint: str
    n_chars: int
    n_bytes: int
    n_documents: int


class SeenTexts:
    """Which texts were there before, in bounded memory.

    Exact up to half a million different texts; of more, a sample drawn by hash is remembered, and each repeat that is
    found stands for as many as the sample is smaller than the whole.
    """

    def __init__(self) -> None:
        self._hashes: set[int] = set()
        self._mask = 0

    def repeats(self, text: str) -> int:
        """How many repeats it stands for that text was there before: 0 if it was not."""
        key = hash(text)
        return self._mask + 1 if not key & self._mask and key in self._hashes else 0

    def add(self, text: str) -> None:
        """Remember a text."""
        key = hash(text)
        if key & self._mask:
            return
        self._hashes.add(key)
        while len(self._hashes) > _MOST_HASHES:
            self._mask = 2 * self._mask + 1
            self._hashes = {kept for kept in self._hashes if not kept & self._mask}


class TextScan:
    """Checks the pieces of one set as they go by, and counts them.

    others: by name of another set, what was seen in it. seen: is given what to remember of this one, for others.
    look_for_repeats: of documents. n_lines: of the files, counted up by whoever reads them.
    """

    def __init__(
        self, name: str, others: dict[str, SeenTexts], seen: SeenTexts | None, *, look_for_repeats: bool
    ) -> None:
        self.tally = Tally(name)
        self._name, self._others, self._seen = name, others, seen
        self._own = SeenTexts() if look_for_repeats else None
        self.n_lines = 0
        self._digest = hashlib.sha256()
        self._n_chars = self._n_bytes = self._n_documents = self._n_repeated = 0
        self._n_long_lines, self._n_common = 0, dict.fromkeys(others, 0)
        self._inside = self._has_text = False

    def take(self, piece: Piece) -> None:
        """Look at the next piece."""
        content = piece.text.encode("utf-8")
        self._digest.update(content)
        self._n_chars += len(piece.text)
        self._n_bytes += len(content)
        self._has_text = self._has_text or bool(piece.text.strip())
        if self._own is not None and piece.ends_document and not self._inside:
            self._look_for_repeat(self._own, piece)
        if self._others or self._seen is not None:
            for text in self._notable(piece):
                self._compare(text, piece)
        if piece.ends_document:
            self._digest.update(b"\xff")  # which UTF-8 never has
            self._n_documents += 1
        self._inside = not piece.ends_document

    def facts(self) -> TextFacts:
        """What the pieces so far come to. Raises DataError if there was no text in them."""
        if not self._has_text:
            raise DataError(
                f"the data {self._name} has no text in it",
                given=f"{self._n_chars} characters",
                expected="text to learn from",
                mend="look at the files named in the recipe's data section",
            )
        n_documents = self._n_documents + self._inside
        return TextFacts(self._digest.hexdigest(), self._n_chars, self._n_bytes, n_documents)

    def report(self, max_bad_share: float) -> DataReport:
        """The findings of this set, with what was done and what is refused."""
        counts, n_lines = self.tally.counts(), self.n_lines
        n_bad = sum(counts.get(kind, (0, ()))[0] for kind in ("bad UTF-8", "bad record"))
        findings = []
        for kind, (count, examples) in counts.items():
            total, reason = n_lines, None
            action: Action = "kept"
            if kind in ("bad UTF-8", "bad record"):
                action = "replaced" if kind == "bad UTF-8" else "dropped"
                if n_bad > max_bad_share * n_lines:
                    action = "refused"
                    reason = f"{kind} in {count} of {n_lines} lines (max_bad_share {max_bad_share})"
            elif kind == "repeated document":
                count, total = self._n_repeated, self._n_documents
            else:
                count = self._n_common[kind.removeprefix("also in ")]
                total = self._n_long_lines
            findings.append(Finding(self._name, kind, count, total, action, examples, reason))
        n_documents = self._n_documents + self._inside
        return DataReport(findings, {self._name: (n_documents, n_documents)}, unit="documents")

    def _look_for_repeat(self, own: SeenTexts, piece: Piece) -> None:
        stands_for = own.repeats(piece.text)
        if stands_for:
            self.tally("repeated document", piece.place(0))
            self._n_repeated += stands_for
        else:
            own.add(piece.text)

    def _notable(self, piece: Piece) -> Iterator[str]:
        """The long lines of a piece, and the piece if it is a long document of several lines."""
        lines = piece.text.split("\n")
        yield from (line for line in lines if len(line) >= LONG_LINE)
        if self._own is not None and len(lines) > 1 and len(piece.text) >= LONG_LINE:
            yield piece.text

    def _compare(self, text: str, piece: Piece) -> None:
        self._n_long_lines += 1
        for name, other in self._others.items():
            stands_for = other.repeats(text)
            if stands_for:
                self._n_common[name] += stands_for
                self.tally(f"also in {name}", piece.place(piece.text.find(text)))
        if self._seen is not None:
            self._seen.add(text)
