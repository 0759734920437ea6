"""Several translation models that choose every token together: an ensemble."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from tripel.decode.candidates import Logits, Wish
from tripel.decode.session import Ids, Session, Translating, device_of, open_session
from tripel.errors import InputError


class Ensemble:
    """Models of one vocabulary whose next token has the mean of the probabilities that each of them gives it.

    What generate and stream take in the place of one model. members: as prepare returns them. The ensemble reads what all
    of them can: its max_len is the least of theirs. Raises InputError for models of different vocabularies.
    """

    def __init__(self, members: Sequence[Translating]) -> None:
        first, *others = members
        for place, other in enumerate(others, start=2):
            if other.vocabulary != first.vocabulary:
                raise InputError(
                    f"model {place} of the ensemble has another vocabulary than the first",
                    given=other.vocabulary,
                    expected=first.vocabulary,
                    mend="train the models of an ensemble on the same data with the same `tokenizer` section",
                )
        self.members, self.vocabulary, self.device = list(members), first.vocabulary, device_of(first)
        self.config = first.config.model_copy(update={"max_len": min(member.config.max_len for member in members)})

    def open(self, sources: Ids, *, max_len: int, rows_per_sentence: int) -> EnsembleSession:
        """A session of one row per source in every member."""
        sessions = [
            open_session(member, sources, max_len=max_len, rows_per_sentence=rows_per_sentence)
            for member in self.members
        ]
        return EnsembleSession(sessions, self.vocabulary.target_size)


class EnsembleSession:
    """The same rows in a session of every member. vocabulary_size: of the tokens that can be chosen."""

    def __init__(self, sessions: Sequence[Session], vocabulary_size: int) -> None:
        self.sessions, self.vocabulary_size = sessions, vocabulary_size
        self.drop_share = max(session.drop_share for session in sessions)

    def read(self, ids: Ids, wish: Wish | None) -> Logits:
        """The log of the members' mean probability for every token, whatever is wished for."""
        sum_NV = torch.zeros(())
        for session in self.sessions:
            scores = session.read(ids, None)
            assert isinstance(scores, Logits)
            sum_NV = scores.logits_NV[:, : self.vocabulary_size].float().softmax(-1).add_(sum_NV)
        log_p_NV = sum_NV.div_(len(self.sessions)).log_()
        return Logits(log_p_NV, None, normaliser_N=log_p_NV.new_zeros(len(log_p_NV)))  # members have barred the padding

    def keep(self, rows: Sequence[int]) -> None:
        """Keep these rows, repeats allowed, in this order, in every member."""
        for session in self.sessions:
            session.keep(rows)
