"""Language models: windows of one long stream of tokens, validated by how well each next token is predicted."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from tripel.data.batch import Batch
from tripel.data.steps import StepLoader
from tripel.data.text import TextDataConfig, load_texts
from tripel.data.tokens import TokenStream, encode_stream, report_unknown_tokens
from tripel.data.windows import WindowLoader
from tripel.decode.complete import CompletionConfig, complete
from tripel.jobs.job import Job
from tripel.models.build import Model
from tripel.models.config import Vocabulary
from tripel.models.decoder import Decoder, DecoderState
from tripel.recipe import Recipe
from tripel.tasks.baseline import Baseline, frequency_baseline, token_counts
from tripel.tasks.next_token import TextLoss, language_vocabulary, text_loss
from tripel.text.pair import TokenizerPair
from tripel.text.tokenizer import Tokenizer
from tripel.training import parallel
from tripel.training.log import RunLog
from tripel.training.loss import token_losses

_SHOWN_TOKENS = 48
_SHOWN_CHARACTERS = 100


class NextTokenJob(Job):
    """See Job."""

    vocabulary: Vocabulary
    metric = "valid_loss"

    @property
    def data(self) -> TextDataConfig:
        """The recipe's data section."""
        return cast(TextDataConfig, self.recipe.data)

    @property
    def validates(self) -> bool:
        return self.texts.valid is not None

    @property
    def generation(self) -> dict[str, object]:
        decode = cast(CompletionConfig, self.recipe.decode)
        if not decode.draws:
            return {"do_sample": False, "num_beams": decode.beam, "max_new_tokens": decode.max_new_tokens}
        drawn = {"temperature": decode.temperature, "top_k": decode.top_k, "top_p": decode.top_p}
        return {"do_sample": True, **drawn, "max_new_tokens": decode.max_new_tokens}

    def read(self) -> None:
        self.texts = load_texts(self.data)
        self.report = self.texts.report

    def train_tokenizers(self) -> TokenizerPair:
        tokenizer = Tokenizer.train(self.recipe.tokenizer, self.texts.train.texts(), ends_texts=False)
        return TokenizerPair(tokenizer, tokenizer)

    def encode(self, tokenizers: TokenizerPair | None) -> None:
        """Reports the share of unknown tokens; refuses a text shorter than the context."""
        assert tokenizers is not None
        self.tokenizer = tokenizers.target
        self.vocabulary = language_vocabulary(self.tokenizer)
        self.train_stream = self._stream(self.texts.train)
        self.valid_stream = None if self.texts.valid is None else self._stream(self.texts.valid)
        self.loader().plan(0)

    def loader(self) -> WindowLoader:
        config = self.recipe.train
        return WindowLoader(
            self.train_stream.ids,
            context=context_of(self.recipe),
            tokens_per_step=config.tokens_per_step,
            micro_tokens=config.micro_tokens,
            seed=config.seed,
            carry_state=self.data.carry_state,
            rank=parallel.rank(),
            world_size=parallel.world_size(),
        )

    def summary(self, loader: StepLoader[Batch]) -> str:
        plan = cast(WindowLoader, loader).plan(0)
        carried = ", state carried on" if self.data.carry_state else ""
        return (
            f"{self.train_stream.n_tokens:,} training tokens ({self.train_stream.n_bytes:,} bytes), "
            f"vocabulary {self.vocabulary.target_size:,}, {plan.n_steps:,} updates an epoch of {plan.rows} windows of "
            f"{plan.context}{carried}"
        )

    def baseline(self) -> Baseline | None:
        if self.valid_stream is None:
            return None
        counts = token_counts(self.train_stream.ids, self.vocabulary.target_size)
        return frequency_baseline("word frequency", counts, self.valid_stream.ids[1:])

    def validate(self, model: Model, log: RunLog) -> dict[str, float]:
        """Loss, perplexity and bits per byte; the beginning of the validation text is gone on with on log."""
        assert self.valid_stream is not None
        decoder = cast(Decoder, model)
        loss = stream_loss(decoder, self.valid_stream, self.tokenizer, self.recipe)
        prompt = self.valid_stream.ids[:_SHOWN_TOKENS].tolist()
        config = cast(CompletionConfig, self.recipe.decode)
        config = config.model_copy(update={"max_new_tokens": _SHOWN_TOKENS, "n": 1, "top": 0, "on_overflow": "slide"})
        answer = complete(decoder, [prompt], config)[0][0].ids[len(prompt) :]
        log.sample(*(_on_one_line(self.tokenizer.decode(ids)) for ids in (prompt, answer)))
        return loss.metrics()

    def _stream(self, source: object) -> TokenStream:
        stream = encode_stream(source, self.tokenizer)  # type: ignore[arg-type]
        report_unknown_tokens(self.report, stream, self.data)
        return stream


def context_of(recipe: Recipe) -> int:
    """Tokens in a window of training and validation."""
    return cast(TextDataConfig, recipe.data).context or recipe.text_model.max_len


def stream_loss(model: Decoder, stream: TokenStream, tokenizer: Tokenizer, recipe: Recipe) -> TextLoss:
    """How well the model, in evaluation mode, predicts a stream; with carried state if it was trained so."""
    device, state = model.tokens.weight.device, _Carried(model)

    def losses(batch: Batch) -> Tensor:
        with torch.inference_mode():
            batch = batch.to(device)
            h_BTD = model.features(batch.inputs["ids_BT"], state.of(batch))
            return token_losses(h_BTD, model.head_parameters(), batch.targets_BT)

    carry_state = cast(TextDataConfig, recipe.data).carry_state
    return text_loss(losses, stream, tokenizer, context=context_of(recipe), carry_state=carry_state)


class _Carried:
    """The state that validation batches go on with, if they do."""

    def __init__(self, model: Decoder) -> None:
        self.model = model
        self.state: DecoderState | None = None

    def of(self, batch: Batch) -> DecoderState | None:
        if batch.carried is None:
            return None
        if not batch.carried or self.state is None:
            self.state = self.model.init_state(len(batch.targets_BT), 0)
        return self.state


def _on_one_line(text: str) -> str:
    line = text.replace("\n", "\u23ce")
    return line if len(line) <= _SHOWN_CHARACTERS else f"{line[: _SHOWN_CHARACTERS - 1]}\u2026"
