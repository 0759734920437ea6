"""Ids in one at a time, text out as soon as it is certain."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

_UNFINISHED = "\ufffd"


class TextStream:
    """An incremental detokenizer: the strings from push and the last one from finish join to decode of all the ids.

    Text is held back while a character's bytes are incomplete. The work per id does not grow with the text: only the
    ids since the last certain point are decoded again, after the one before them, which keeps the spacing right.
    context: ids of whole characters that come before, whose text is not given again.
    """

    def __init__(
        self, decode: Callable[[Sequence[int]], str], silent_ids: Collection[int], context: Sequence[int] = ()
    ) -> None:
        self._decode = decode
        self._silent_ids = silent_ids
        self._ids = [token_id for token_id in context if token_id not in silent_ids]
        self._n_context = len(self._ids)
        self._context_text = decode(self._ids)

    def push(self, token_id: int) -> str:
        """Take the next id; return the text that became certain with it, often a whole piece, sometimes nothing."""
        if token_id in self._silent_ids:
            return ""
        self._ids.append(token_id)
        text = self._decode(self._ids)
        if text.endswith(_UNFINISHED) or not text.startswith(self._context_text):
            return ""
        fresh = text[len(self._context_text) :]
        del self._ids[: self._n_context]
        self._n_context = len(self._ids)
        self._context_text = self._decode(self._ids)
        return fresh

    def finish(self) -> str:
        """What was held back, with U+FFFD for bytes that never became a character. The stream is then empty."""
        text = self._decode(self._ids)[len(self._context_text) :]
        self._ids, self._n_context, self._context_text = [], 0, ""
        return text
