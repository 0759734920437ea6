"""An ensemble is one model whose probabilities are the mean of its members'."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tables import EOS, TableModel, exhaustive

from tripel.decode import DecodeConfig, generate, prepare, stream
from tripel.decode.ensemble import Ensemble
from tripel.errors import InputError
from tripel.models.build import build
from tripel.models.config import EncoderDecoderConfig, StackConfig, Vocabulary
from tripel.nn import AttentionConfig, LSTMConfig

SOURCE = [4, 3, EOS]
V = 103


class MeanTable(TableModel):
    """What an ensemble of tables should be, from their probabilities one by one."""

    def __init__(self, members):
        super().__init__(members[0].vocab_size, 0)
        self.tables = members

    def log_p(self, source, read):
        columns = zip(*(table.log_p(source, read) for table in self.tables), strict=True)
        means = [sum(map(math.exp, column)) / len(self.tables) for column in columns]
        return [math.log(mean) if mean else -math.inf for mean in means]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(2, 4), penalty=st.sampled_from([-1.0, 0.0, 1.0]))
def test_the_best_answers_are_those_of_exhaustive_search_over_mean_probabilities(seed, n, penalty):
    members = [TableModel(5, seed + i) for i in range(n)]
    config = DecodeConfig(
        max_length_ratio=0.0,
        max_length_extra=4,
        loop_guard=0,
        beam=200,
        n_best=3,
        length_penalty=penalty,
        patience=None,
    )
    (answers,) = generate(Ensemble(members), [SOURCE], config)
    best = exhaustive(MeanTable(members), SOURCE, config)[:3]
    assert [answer.ids for answer in answers] == [ids for _, ids, _ in best]
    assert [answer.score for answer in answers] == pytest.approx([score for score, _, _ in best], abs=1e-5)


def make(seed, mixer=None, max_len=64, vocabulary=V):
    torch.manual_seed(seed)
    stack = StackConfig(n_layers=2, mixer=mixer or AttentionConfig(n_heads=2))
    wiring = "post" if mixer is None else "pre"
    config = EncoderDecoderConfig(
        d_model=32, d_ff=32, encoder=stack.model_copy(update={"mixer": AttentionConfig(n_heads=2)}), decoder=stack,
        max_len=max_len, wiring=wiring,
    )  # fmt: skip
    model = build(
        config, Vocabulary(source_size=vocabulary, target_size=vocabulary, pad_id=0, eos_id=3, start_id=2)
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


SENTENCES = [[5, 9, 40, 3], [7, 3], [90, 12, 61, 33, 8, 3], [11, 12, 3]]
CONFIG = DecodeConfig(beam=4, n_best=2)


@pytest.mark.parametrize("engine", ["auto", "torch", "plain"])
@pytest.mark.parametrize("mixer", [None, LSTMConfig()], ids=["attention", "attention beside lstm"])
def test_every_engine_gives_the_answers_of_the_models_themselves(engine, mixer):
    models = [make(1), make(2, mixer), make(3)]
    expected = generate(Ensemble(models), SENTENCES, CONFIG)
    given = generate(Ensemble([prepare(model, engine) for model in models]), SENTENCES, CONFIG)
    for answers, others in zip(expected, given, strict=True):
        assert [answer.ids for answer in answers] == [other.ids for other in others]
        assert [answer.score for answer in answers] == pytest.approx([other.score for other in others], abs=1e-4)


@pytest.mark.parametrize("settings", [{"beam": 4}, {"beam": 1}, {"sample": True, "beam": 1}])
def test_a_model_beside_itself_answers_as_it_does_alone(settings):
    model = prepare(make(1))
    config = DecodeConfig(**settings)
    alone, beside = generate(model, SENTENCES, config), generate(Ensemble([model, model]), SENTENCES, config)
    assert [answers[0].ids for answers in alone] == [answers[0].ids for answers in beside]
    assert [answers[0].score for answers in alone] == pytest.approx([answers[0].score for answers in beside], abs=1e-5)


def test_an_answer_does_not_depend_on_its_batch_and_is_the_one_that_is_streamed():
    ensemble = Ensemble([prepare(make(1)), prepare(make(2))])
    together = generate(ensemble, SENTENCES, CONFIG, workers=2)
    for source, answers in zip(SENTENCES, together, strict=True):
        (alone,) = generate(ensemble, [source], CONFIG)
        assert [answer.ids for answer in alone] == [answer.ids for answer in answers]
        assert list(stream(ensemble, source, CONFIG)) == answers[0].ids
    assert generate(ensemble, SENTENCES, CONFIG) != generate(prepare(make(1)), SENTENCES, CONFIG)


def test_an_ensemble_reads_what_all_its_members_can():
    ensemble = Ensemble([make(1, max_len=64), make(2, max_len=16)])
    assert ensemble.config.max_len == 16
    with pytest.raises(InputError, match="sentence 1 cannot be read"):
        generate(ensemble, [[*range(4, 24), 3]], CONFIG)


def test_models_of_different_vocabularies_are_refused():
    with pytest.raises(InputError, match="model 3 of the ensemble has another vocabulary"):
        Ensemble([make(1), make(2), make(3, vocabulary=V + 1)])
