"""Language models compared: by their loss on the same text, and by what it costs to train them and to write with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np

from tripel.compare.comparison import Curve, Views
from tripel.compare.contest import Contest, LiveMetric, Measures, curve_of, naming, training_numbers
from tripel.compare.generation import context_lengths, seconds_per_token, state_bytes, tokens_per_second
from tripel.compare.text_views import VIEWS
from tripel.compare.words import listed
from tripel.data.text import TextDataConfig
from tripel.data.windows import plan_windows
from tripel.decode.prepare import prepare_decoder
from tripel.errors import DataError
from tripel.jobs.next_token import NextTokenJob, context_of, stream_loss
from tripel.models.build import count_parameters
from tripel.models.config import Vocabulary
from tripel.pipelines.complete import Completer
from tripel.pipelines.load import load_completer
from tripel.recipe import Recipe
from tripel.text.pair import TokenizerPair
from tripel.training import parallel

VALID_SHARE = 0.1
"""Of a text that is compared on, the last share is kept for validation where nothing else is named."""

_BINS = 32
_PROMPT_CHARACTERS = 64
_SAMPLE_CHARACTERS = 240


class TextContest(Contest):
    """See Contest."""

    metric: ClassVar[str] = NextTokenJob.metric
    live: ClassVar[tuple[LiveMetric, ...]] = (
        LiveMetric("valid loss", "valid_loss", ".3f"),
        LiveMetric("bits/byte", "bits_per_byte", ".3f"),
    )
    views: ClassVar[Views] = VIEWS

    def on_data(self, recipe: Recipe, train: str, valid: str | None) -> Recipe:
        share = 0.0 if valid else VALID_SHARE
        # The recipe's own test set is of another text: nothing is held against it.
        data = {"train": train, "valid": valid, "valid_share": share, "test": None}
        return recipe.model_copy(update={"data": recipe.data.model_copy(update=data)})

    def with_validation(self, recipe: Recipe) -> Recipe:
        data = cast(TextDataConfig, recipe.data)
        if data.valid is not None or data.valid_share:
            return recipe
        return recipe.model_copy(update={"data": data.model_copy(update={"valid_share": VALID_SHARE})})

    def own_data_settings(self) -> frozenset[str]:
        return frozenset({"context", "carry_state"})

    def prepare(self, recipes: Mapping[str, Recipe], tokenizers: TokenizerPair | None) -> None:
        first, *others = recipes.items()
        self._job = job = NextTokenJob(first[1])
        job.read()
        self.report = job.report
        assert job.texts.valid is not None
        self.fingerprint = f"{job.texts.train.fingerprint} {job.texts.valid.fingerprint}"
        self.tokenizers = pair = tokenizers if tokenizers is not None else job.train_tokenizers()
        self._tokenizer = pair.target
        with naming(first[0]):
            job.encode(pair)
        for name, recipe in others:
            with naming(name):
                _require_windows(job, recipe)
        assert job.valid_stream is not None
        if job.valid_stream.n_tokens < 2:
            raise DataError(
                "the validation text is too short",
                given=f"{job.valid_stream.n_tokens} tokens",
                expected="at least 2",
                mend="name a longer one with --valid FILE, or compare on more text",
            )
        self.prompt = self._beginning(job.valid_stream.ids[:_PROMPT_CHARACTERS].tolist())

    def names_of_data(self) -> tuple[str, str]:
        valid = self._job.texts.valid
        assert valid is not None
        return self._job.texts.train.name, valid.name

    def remarks(self, recipes: Mapping[str, Recipe]) -> list[str]:
        contexts = {name: context_of(recipe) for name, recipe in recipes.items()}
        notes = []
        if len(set(contexts.values())) > 1:
            said = ", ".join(f"{name} {context:,}" for name, context in contexts.items())
            notes.append(f"windows of different length, as the recipes say: {said} tokens")
        carrying = [name for name, recipe in recipes.items() if cast(TextDataConfig, recipe.data).carry_state]
        if carrying:
            notes.append(f"{listed(carrying)}: goes on from window to window with its state, and so knows earlier text")
        return notes

    def vocabulary_of(self, recipe: Recipe) -> Vocabulary:
        return self._job.vocabulary

    def measure(self, folder: Path, recipe: Recipe, validations: Sequence[Mapping[str, Any]]) -> Measures:
        completer = load_completer(folder, device=str(parallel.pick_device(recipe.train.device)))
        model = completer.model
        assert self._job.valid_stream is not None
        loss = stream_loss(model, self._job.valid_stream, completer.tokenizer, recipe)
        decoder = prepare_decoder(model)
        lengths = context_lengths(decoder)
        held = {n: state_bytes(model, n) for n in lengths}
        seconds = seconds_per_token(decoder, lengths)
        numbers = {
            **training_numbers(validations[-1], self.unit),
            "parameters": count_parameters(model),
            "context": context_of(recipe),
            **loss.metrics(),
            "generation_tokens_per_second": tokens_per_second(decoder),
            "state_bytes": held[lengths[-1]],
            "state_tokens": lengths[-1],
        }
        curves = {
            "loss_seconds": curve_of(validations, "seconds", self.metric),
            "loss_tokens": curve_of(validations, "tokens", self.metric),
            "position": binned(loss.nats_per_position),
            "memory": Curve(x=tuple(held), y=tuple(held.values())),
            "token_time": Curve(x=tuple(seconds), y=tuple(seconds.values())),
        }
        return Measures(numbers, curves, self._sample(completer))

    def _beginning(self, ids: list[int]) -> str:
        """The first words of a text, as far as the tokenizer knows them."""
        tokenizer = self._tokenizer
        if tokenizer.unk_id in ids:
            ids = ids[: ids.index(tokenizer.unk_id)]
        text = tokenizer.decode(ids)[:_PROMPT_CHARACTERS]
        cut = max(text.rfind(" "), text.rfind("\n"))
        return text[:cut] if cut > _PROMPT_CHARACTERS // 3 else text

    def _sample(self, completer: Completer) -> str:
        answer = completer.complete(
            self.prompt, max_new_tokens=_SAMPLE_CHARACTERS, sample=True, temperature=0.8, top_k=0, top_p=1.0, min_p=0.0,
            beam=1, n=1, seed=1, stop=(), repetition_penalty=1.0, no_repeat_ngram=0, on_overflow="slide",
        )  # fmt: skip
        return answer.text[:_SAMPLE_CHARACTERS]


def binned(values: np.ndarray, n_bins: int = _BINS) -> Curve:
    """The means of values in bins that grow by one factor, so that the many last positions are as smooth as the few
    first are plain. x: the mean place in each bin, from 1."""
    edges = np.unique(np.rint(np.geomspace(1, len(values) + 1, n_bins + 1)).astype(int))
    parts = [(first, last) for first, last in zip(edges[:-1], edges[1:], strict=True)]
    x = tuple(float((first + last - 1) / 2) for first, last in parts)
    return Curve(x=x, y=tuple(float(values[first - 1 : last - 1].mean()) for first, last in parts))


def _require_windows(job: NextTokenJob, recipe: Recipe) -> None:
    """Raise DataError unless the text has a window of this recipe's context."""
    plan_windows(
        job.train_stream.n_tokens,
        context=context_of(recipe),
        tokens_per_step=recipe.train.tokens_per_step,
        seed=recipe.train.seed,
        epoch=0,
    )
