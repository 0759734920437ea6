"""Translation: pairs of sentences in batches of like length, validated by the BLEU of real search output."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch

from tripel.data.batch import Batch
from tripel.data.checks import DataConfig
from tripel.data.corpus import Corpus, encode_corpus, report_unknown, sampled_corpus
from tripel.data.loader import Loader
from tripel.data.parallel import ParallelText, load_splits
from tripel.data.steps import StepLoader
from tripel.decode.search import DecodeConfig
from tripel.errors import DataError
from tripel.jobs.job import Job
from tripel.models.build import Model
from tripel.models.config import Vocabulary
from tripel.models.encoder_decoder import EncoderDecoder
from tripel.pipelines.translate import Translator
from tripel.tasks.baseline import Baseline, frequency_baseline
from tripel.tasks.scores import score_translations
from tripel.tasks.translation import TranslationTask, collate, mean_loss, vocabulary_of
from tripel.text.pair import TokenizerPair
from tripel.training import parallel
from tripel.training.log import RunLog
from tripel.training.loss import batch_loss_sum


class TranslationJob(Job):
    """See Job."""

    vocabulary: Vocabulary
    metric = "bleu"

    @property
    def validates(self) -> bool:
        return self.splits.valid is not None

    @property
    def generation(self) -> dict[str, object]:
        decode = cast(DecodeConfig, self.recipe.decode)
        return {"num_beams": decode.beam, "length_penalty": decode.length_penalty}

    def read(self) -> None:
        data, task = cast(DataConfig, self.recipe.data), cast(TranslationTask, self.recipe.task)
        self.task = task
        self.splits = load_splits(data, task.source, task.target)
        self.report = self.splits.report

    def train_tokenizers(self) -> TokenizerPair:
        train = self.splits.train
        return TokenizerPair.train(self.recipe.tokenizer, train.sources, train.targets)

    def encode(self, tokenizers: TokenizerPair | None) -> None:
        """Reports the share of unknown tokens; refuses what is too long for the model."""
        assert tokenizers is not None
        self.tokenizers, self.vocabulary = tokenizers, vocabulary_of(tokenizers)
        recipe, train, max_len = self.recipe, self.splits.train, self.recipe.text_model.max_len
        plain = encode_corpus(train, tokenizers)
        report_unknown(self.report, train, plain, tokenizers, cast(DataConfig, recipe.data))
        _require_fit(plain, train, max_len)
        if self.splits.valid is not None:
            self.valid_corpus = encode_corpus(self.splits.valid, tokenizers)
            _require_fit(self.valid_corpus, self.splits.valid, max_len)
        draw = sampled_corpus(train, tokenizers, dropout=recipe.tokenizer.dropout, seed=recipe.train.seed)
        # BPE dropout makes sequences longer, each epoch anew.
        self.make_corpus = lambda epoch: draw(epoch).fitted(plain, max_len - 1)

    def loader(self) -> Loader[Corpus, Batch]:
        config = self.recipe.train
        return Loader(
            self.make_corpus,
            lambda corpus, rows: collate(corpus, rows, self.vocabulary),
            tokens_per_step=config.tokens_per_step,
            micro_tokens=config.micro_tokens,
            seed=config.seed,
            rank=parallel.rank(),
            world_size=parallel.world_size(),
        )

    def summary(self, loader: StepLoader[Batch]) -> str:
        plan = cast("Loader[Corpus, Batch]", loader).plan(0)[1]
        vocabulary = f"{self.vocabulary.source_size:,}"
        if not self.tokenizers.shared:
            vocabulary += f" + {self.vocabulary.target_size:,}"
        return (
            f"{len(self.splits.train):,} training pairs, vocabulary {vocabulary}, "
            f"{len(plan.steps):,} updates an epoch, padding {plan.padding_share:.1%}"
        )

    def baseline(self) -> Baseline | None:
        if self.splits.valid is None:
            return None
        train, valid = (self._target_ids(corpus) for corpus in (self.make_corpus(0), self.valid_corpus))
        counts = np.bincount(train, minlength=self.vocabulary.target_size)
        return frequency_baseline("word frequency", counts, valid)

    def _target_ids(self, corpus: Corpus) -> np.ndarray:
        """All that is predicted: every target, and its end."""
        rows = [corpus.target(index) for index in range(len(corpus))]
        return np.concatenate([*rows, np.full(len(rows), self.vocabulary.eos_id)]).astype(np.int64)

    def validate(self, model: Model, log: RunLog) -> dict[str, float]:
        """Loss on the references, BLEU and chrF of real search output."""
        valid, translating = self.splits.valid, cast(EncoderDecoder, model)
        assert valid is not None
        device = translating.target_tokens.weight.device
        with torch.inference_mode():
            loss = mean_loss(
                lambda batch: batch_loss_sum(model, batch.to(device), label_smoothing=0.0).item(),
                self.valid_corpus,
                self.valid_corpus.target_lengths,
                self.vocabulary,
            )
        translator = Translator(translating, self.tokenizers, cast(DecodeConfig, self.recipe.decode))
        hypotheses = [answer.text for answer in translator.translate(valid.sources)]
        scores = score_translations(hypotheses, valid.targets, language=self.task.target)
        shown = _worth_showing(valid)
        log.sample(valid.sources[shown], hypotheses[shown])
        return {"valid_loss": loss, "bleu": scores.bleu, "chrf": scores.chrf}


def _worth_showing(text: ParallelText) -> int:
    """The example that is shown at every validation: the first of about a line's length."""
    return min(range(len(text)), key=lambda i: abs(len(text.sources[i]) - 50))


def _require_fit(corpus: Corpus, text: ParallelText, max_len: int) -> None:
    """Refuse a corpus with a pair that the model cannot read whole."""
    lengths = np.maximum(corpus.source_lengths, corpus.target_lengths) + 1
    at = int(lengths.argmax())
    if lengths[at] > max_len:
        raise DataError(
            "a pair is longer than the model can read",
            given=f"{lengths[at]} tokens at {text.place(at)}",
            expected=f"at most model.max_len = {max_len}",
            mend=f"raise model.max_len to {lengths[at]} or more, or lower data.max_words",
        )
