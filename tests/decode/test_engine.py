import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tables import EOS, TableModel

from tripel.decode import DecodeConfig, generate, stream
from tripel.decode.constraints import has_loop, is_looping
from tripel.errors import InputError
from tripel.models.build import build
from tripel.models.config import EncoderDecoderConfig, StackConfig, Vocabulary
from tripel.nn import AttentionConfig

V, START_ID, EOS_ID = 60, 2, 3
CONFIGS = {
    "greedy": DecodeConfig(beam=1),
    "beam": DecodeConfig(beam=4, n_best=3),
    "sample": DecodeConfig(sample=True, n_best=2, top_k=20, top_p=0.95, temperature=0.9),
    "guarded": DecodeConfig(beam=3, no_repeat_ngram=2, repetition_penalty=1.3),
}


@pytest.fixture(scope="module", params=["post", "pre"])
def model(request):
    torch.manual_seed(1)
    stack = StackConfig(n_layers=2, mixer=AttentionConfig(n_heads=4))
    config = EncoderDecoderConfig(
        d_model=32, d_ff=48, encoder=stack, decoder=stack, wiring=request.param, tie="none", max_len=64, dropout=0.1
    )
    model = build(config, Vocabulary(source_size=V, target_size=V, pad_id=0, eos_id=EOS_ID, start_id=START_ID))
    with torch.no_grad():  # far from uniform, so that answers end and differ
        model.head.weight.mul_(3)
        for block in model.decoder.blocks:
            block.cross.key_value.weight.mul_(3)
            block.mixer.query_key_value.weight.mul_(3)
    return model


def sentences(n, seed=0, longest=20):
    generator = random.Random(seed)
    return [[generator.randrange(4, V) for _ in range(generator.randrange(1, longest))] + [EOS_ID] for _ in range(n)]


@pytest.mark.parametrize("name", CONFIGS)
def test_the_answer_for_a_sentence_does_not_depend_on_its_batch(model, name):
    sources = sentences(17)
    together = generate(model, sources, CONFIGS[name])
    small = generate(model, sources, CONFIGS[name], batch_tokens=30)
    alone = [generate(model, [source], CONFIGS[name])[0] for source in sources]
    ids = [[answer.ids for answer in answers] for answers in together]
    assert ids == [[answer.ids for answer in answers] for answers in alone]
    assert ids == [[answer.ids for answer in answers] for answers in small]
    for ours, theirs in zip(together, alone, strict=True):
        assert [a.score for a in ours] == pytest.approx([a.score for a in theirs], abs=1e-4)
        assert [a.finish_reason for a in ours] == [a.finish_reason for a in theirs]


def test_answers_come_in_the_order_of_the_sources(model):
    sources = sentences(9, seed=5)
    forward = generate(model, sources, CONFIGS["beam"])
    backward = generate(model, sources[::-1], CONFIGS["beam"])
    assert [a[0].ids for a in forward] == [a[0].ids for a in backward[::-1]]


@torch.no_grad()
def test_greedy_search_equals_the_argmax_of_full_forward_passes(model):
    model.eval()
    config = DecodeConfig(beam=1, loop_guard=0)
    for source in sentences(6, seed=2):
        (answer,) = generate(model, [source], config)[0]
        ids, total = [START_ID], 0.0
        limit = config.limit(len(source))
        while len(ids) <= limit and ids[-1] != EOS_ID:
            logits = model(torch.tensor([source]), torch.tensor([ids]))[0, -1]
            logits[0] = -torch.inf
            ids.append(int(logits.argmax()))
            total += float(logits.log_softmax(-1)[ids[-1]])
        stopped = ids[-1] == EOS_ID
        assert answer.ids == (ids[1:-1] if stopped else ids[1:])
        assert answer.finish_reason == ("stop" if stopped else "length")
        assert answer.score == pytest.approx(total / (len(ids) - 1), abs=1e-4)


@pytest.mark.parametrize("name", CONFIGS)
def test_an_answer_begins_with_the_forced_prefix(model, name):
    sources = sentences(6, seed=3)
    prefixes = [[], [7], [8, 9], [], [10], [11, 12, 13]]
    forced = generate(model, sources, CONFIGS[name], prefixes=prefixes)
    for prefix, answers in zip(prefixes, forced, strict=True):
        assert all(answer.ids[: len(prefix)] == prefix for answer in answers)


def test_forcing_what_greedy_search_says_anyway_changes_nothing(model):
    for source in sentences(5, seed=4):
        (free,) = generate(model, [source], CONFIGS["greedy"])[0]
        (forced,) = generate(model, [source], CONFIGS["greedy"], prefixes=[free.ids[:2]])[0]
        assert forced.ids[: len(free.ids)] == free.ids


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("prefix", [[], [9, 8]])
def test_a_stream_gives_the_ids_of_the_answer(model, name, prefix):
    for source in sentences(4, seed=6):
        (answers,) = generate(model, [source], CONFIGS[name], prefixes=[prefix])
        if not CONFIGS[name].sample:
            assert list(stream(model, source, CONFIGS[name], prefix=prefix)) == answers[0].ids
        single = CONFIGS[name].model_copy(update={"n_best": 1})
        assert (
            list(stream(model, source, single, prefix=prefix))
            == generate(model, [source], single, prefixes=[prefix])[0][0].ids
        )


def test_a_greedy_stream_gives_every_token_when_it_is_chosen(model):
    reads = []

    class Counting:
        vocabulary, config = model.vocabulary, model.config
        start, parameters = model.start, model.parameters

        def step(self, ids_NT, state):
            reads.append(ids_NT.shape)
            return model.step(ids_NT, state)

    for n_given, _ in enumerate(stream(Counting(), sentences(1, seed=8)[0], CONFIGS["greedy"])):
        assert len(reads) <= n_given + 2
        if n_given == 3:
            break


def test_a_training_model_is_decoded_without_dropout(model):
    model.train()
    first = generate(model, sentences(3), CONFIGS["greedy"])
    assert first == generate(model, sentences(3), CONFIGS["greedy"])
    assert not model.training


def test_the_length_limit_is_relative_to_the_source_and_reported():
    class Endless(TableModel):
        def logits(self, source, read):
            return [-9.0 if token == EOS else value for token, value in enumerate(super().logits(source, read))]

    model = Endless(30, 1)
    config = DecodeConfig(beam=1, max_length_ratio=1.5, max_length_extra=2, loop_guard=0)
    for n in (1, 4, 9):
        (answer,) = generate(model, [[5] * n + [EOS]], config)[0]
        assert answer.finish_reason == "length"
        assert len(answer.ids) == int(1.5 * (n + 1)) + 2


def test_an_answer_never_outgrows_the_positions_of_the_model(model):
    config = DecodeConfig(beam=1, max_length_ratio=50.0, loop_guard=0)
    for name in ("greedy", "beam"):
        config = config.model_copy(update={"beam": CONFIGS[name].beam})
        ban_end = [[5, 6, 7, EOS_ID]]
        for prefix in ([], [4] * 60):
            (answers,) = generate(model, ban_end, config, prefixes=[prefix])
            assert len(answers[0].ids) <= model.config.max_len


@pytest.mark.parametrize("source", [[], [5] * 65])
def test_a_source_that_the_model_cannot_read_is_refused(model, source):
    with pytest.raises(InputError, match="sentence 2 cannot be read"):
        generate(model, [[5, EOS_ID], source], CONFIGS["greedy"])


def test_a_prefix_that_leaves_no_room_is_refused(model):
    with pytest.raises(InputError, match="prefix of sentence 1"):
        generate(model, [[5, EOS_ID]], CONFIGS["greedy"], prefixes=[[5] * 64])


def test_no_sources_give_no_answers(model):
    assert generate(model, [], CONFIGS["beam"]) == []


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("beam", [1, 3])
def test_no_ngram_is_said_twice(n, beam):
    model = TableModel(9, 5)
    config = DecodeConfig(beam=beam, no_repeat_ngram=n, max_length_extra=30, max_length_ratio=0)
    for (answer,) in generate(model, [[4, EOS], [5, 6, EOS], [7, 7, EOS]], config):
        ngrams = [tuple(answer.ids[i : i + n]) for i in range(len(answer.ids) - n + 1)]
        assert len(set(ngrams)) == len(ngrams)


def test_the_repetition_penalty_makes_answers_repeat_less(model):
    sources = sentences(10, seed=9)

    def repeated(penalty):
        answers = generate(model, sources, DecodeConfig(beam=1, repetition_penalty=penalty, loop_guard=0))
        return sum(len(a.ids) - len(set(a.ids)) for (a,) in answers)

    assert repeated(3.0) < repeated(1.0)


class Parrot(TableModel):
    """Says the same three tokens for ever; the end token is the third likeliest."""

    def logits(self, source, read):
        values = [0.0] * self.vocab_size
        values[4 + len(read) % 3] = 9.0
        values[EOS] = 2.0
        return values


@pytest.mark.parametrize("beam", [1, 3])
def test_the_loop_guard_ends_an_answer_that_goes_round_in_circles(beam):
    config = DecodeConfig(beam=beam, max_length_extra=200, length_penalty=1.0)
    ((answer,),) = generate(Parrot(8, 0, max_len=512), [[5, EOS]], config)
    assert len(answer.ids) < 3 * config.loop_guard + 3 + 8
    unguarded = config.model_copy(update={"loop_guard": 0, "beam": 1})
    ((endless,),) = generate(Parrot(8, 0, max_len=512), [[5, EOS]], unguarded)
    assert len(endless.ids) > 150


def test_the_loop_guard_lets_a_source_that_repeats_itself_be_translated():
    config = DecodeConfig(beam=1, max_length_extra=60)
    ((answer,),) = generate(Parrot(8, 0, max_len=512), [[5] * 20 + [EOS]], config)
    assert len(answer.ids) > 90


@settings(max_examples=60, deadline=None)
@given(phrase=st.lists(st.integers(4, 9), min_size=1, max_size=8), times=st.integers(2, 9), before=st.lists(st.just(1)))
def test_a_phrase_said_often_enough_in_a_row_is_a_loop(phrase, times, before):
    ids = before + phrase * times
    assert is_looping(ids, times)
    assert has_loop([*ids, 77], times)
    assert not has_loop(list(range(40)), times)


def test_the_same_seed_draws_the_same_answer_and_another_seed_another(model):
    sources = sentences(8, seed=11)
    draw = {seed: [a.ids for (a,) in generate(model, sources, DecodeConfig(sample=True, seed=seed))] for seed in (1, 2)}
    assert draw[1] == [a.ids for (a,) in generate(model, sources, DecodeConfig(sample=True, seed=1))]
    assert draw[1] != draw[2]


def test_independent_draws_for_one_sentence_differ_and_come_best_first(model):
    (answers,) = generate(model, sentences(1), DecodeConfig(sample=True, n_best=6))
    assert len({tuple(a.ids) for a in answers}) > 1
    assert [a.score for a in answers] == sorted((a.score for a in answers), reverse=True)


def test_the_settings_refuse_more_answers_than_hypotheses():
    with pytest.raises(ValueError, match="n_best 6 is more than beam 5"):
        DecodeConfig(n_best=6)
    DecodeConfig(n_best=6, sample=True)
