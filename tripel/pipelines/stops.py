"""Stop strings: where a text that comes token by token ends before its end token."""

from __future__ import annotations

from collections.abc import Sequence

from tripel.text.tokenizer import Tokenizer

_CONTEXT = 8
"""Ids of a prompt that are decoded with what follows it, for the spacing between them; more than a character takes."""


class StopText:
    """The text after a prompt, token by token, up to the first stop string: the one that is complete first.

    What could be the beginning of a stop string is held back. lengths: characters of text before each token pushed,
    those held back included.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int], stops: Sequence[str]) -> None:
        self._stream, self._stops = tokenizer.stream(prompt[-_CONTEXT:]), stops
        self._held = ""
        self._n_given = 0
        self.lengths: list[int] = []
        self.stopped = False

    def push(self, token_id: int) -> str:
        """Take the next id; the text that has become certain with it. Nothing more after a stop string."""
        self.lengths.append(self._n_given + len(self._held))
        return self._take(self._stream.push(token_id))

    def finish(self) -> str:
        """The rest, when no more ids follow."""
        last = self._take(self._stream.finish())
        return last if self.stopped else last + self._held

    def _take(self, fresh: str) -> str:
        if self.stopped:
            return ""
        text = self._held + fresh
        found = first_stop(text, self._stops)
        self.stopped = found is not None
        n_certain = len(text) - self._n_open(text) if found is None else found
        self._held = text[n_certain:]
        self._n_given += n_certain
        return text[:n_certain]

    def _n_open(self, text: str) -> int:
        """Characters at the end of text that begin a stop string."""
        longest = min(len(text), max(map(len, self._stops), default=1) - 1)
        return next((n for n in range(longest, 0, -1) if any(s.startswith(text[-n:]) for s in self._stops)), 0)


class StopCheck:
    """Whether an answer's last token completes a stop string, for tripel.decode: the same for every part of a search.

    It is asked after every token, and decodes no more than the tail that a stop string can take.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int], stops: Sequence[str]) -> None:
        self._tokenizer, self._stops = tokenizer, stops
        self._n_prompt, self._context = len(prompt), list(prompt[-_CONTEXT:])
        self._context_text = tokenizer.decode(self._context)
        self._n_tail = max(len(stop.encode()) for stop in stops) + _CONTEXT  # a token has at least a byte

    def __call__(self, ids: Sequence[int]) -> bool:
        if len(ids) - self._n_prompt > self._n_tail:
            text = self._tokenizer.decode(ids[-self._n_tail :])
        else:
            text = self._tokenizer.decode([*self._context, *ids[self._n_prompt :]])[len(self._context_text) :]
        return first_stop(text, self._stops) is not None


def first_stop(text: str, stops: Sequence[str]) -> int | None:
    """Where the stop string begins that is complete first (the longest of several), or None."""
    places = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    return min(places)[1] if places else None
