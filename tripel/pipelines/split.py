"""Cutting a text into what a translation model reads at once: lines, and sentences where a line is too long."""

from __future__ import annotations

import re
from dataclasses import dataclass

# A sentence ends after its punctuation, closing quotes and brackets included, and before white space; the full stops of
# Chinese and Japanese need no space. A match begins at the first mark of a run only and never backtracks, so that the
# work is linear in the text even for a megabyte of full stops.
_SENTENCE_END = re.compile(r"(?:(?<![.!?…])[.!?…]++[\"'”’»)\]]*+(?=\s)|[。！？]++[」』”’）]*+)\s*+")


@dataclass(frozen=True)
class Piece:
    """A part of a text and the white space that followed it."""

    text: str
    gap: str


def lines(text: str) -> list[Piece]:
    """The lines of a text without their outer white space; the gap is the line end."""
    *whole, last = text.split("\n")
    return [Piece(line.strip(), "\n") for line in whole] + [Piece(last.strip(), "")]


def sentences(line: Piece) -> list[Piece]:
    """The sentences of a line, cut after sentence punctuation; the last also has the line's own gap."""
    pieces, start = [], 0
    for match in _SENTENCE_END.finditer(line.text):
        sentence = line.text[start : match.end()]
        body = sentence.rstrip()
        pieces.append(Piece(body, sentence[len(body) :]))
        start = match.end()
    if start < len(line.text) or not pieces:
        pieces.append(Piece(line.text[start:], ""))
    pieces[-1] = Piece(pieces[-1].text, pieces[-1].gap + line.gap)
    return pieces
