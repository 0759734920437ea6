"""Completing with language models: batches, windows, samples, beams, and what ends a text."""

import itertools
import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from language_models import EOS_ID, MODELS, make, prompts_of
from tables import EOS, PAD, START

from tripel.decode import complete as completing
from tripel.decode.complete import CompletionConfig, complete, context_of, n_dropped, stream
from tripel.decode.native import library
from tripel.decode.prepare import prepare_decoder
from tripel.errors import InputError
from tripel.models.config import Vocabulary

CONFIGS = {
    "greedy": CompletionConfig(sample=False, max_new_tokens=12),
    "samples": CompletionConfig(n=3, top_k=30, top_p=0.97, min_p=0.01, temperature=1.3, max_new_tokens=12),
    "beam": CompletionConfig(sample=False, beam=4, n=2, max_new_tokens=12),
    "guarded": CompletionConfig(repetition_penalty=1.4, no_repeat_ngram=2, loop_guard=4, max_new_tokens=12),
}


def told(answers):
    """Ids and reasons, which must be equal, apart from numbers, which may be rounded."""
    return [[(a.ids, a.finish_reason, a.number) for a in group] for group in answers]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("way", CONFIGS)
def test_prompts_of_different_lengths_get_in_one_batch_what_each_gets_alone(name, way):
    model, prompts = make(name), [[], *prompts_of(7), [5] * 60]
    together = complete(model, prompts, CONFIGS[way])
    alone = [complete(model, [prompt], CONFIGS[way])[0] for prompt in prompts]
    backwards = complete(model, prompts[::-1], CONFIGS[way], workers=2)[::-1]
    for others in (alone, backwards):
        assert told(together) == told(others)
        for ours, theirs in zip(itertools.chain(*together), itertools.chain(*others), strict=True):
            assert ours.log_probs == pytest.approx(theirs.log_probs, abs=1e-5)
    assert len({tuple(group[0].ids[len(p) :]) for p, group in zip(prompts, together, strict=True)}) > 4


@pytest.mark.parametrize("name", MODELS)
def test_many_rows_are_shared_out_without_a_change(name, monkeypatch):
    model, prompts = make(name), prompts_of(9)
    whole = complete(model, prompts, CONFIGS["samples"], workers=1)
    monkeypatch.setattr(completing, "SHARE_ROWS", 4)
    monkeypatch.setattr(completing, "BATCH_POSITIONS", 150)
    assert told(complete(model, prompts, CONFIGS["samples"], workers=2)) == told(whole)


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_greedy_completion_is_the_argmax_of_whole_forward_passes(name):
    model = make(name)
    for prompt, (answer,) in zip(prompts_of(5), complete(model, prompts_of(5), CONFIGS["greedy"]), strict=True):
        ids, log_probs = list(prompt), []
        while len(log_probs) < 12 and ids[-1:] != [EOS_ID]:
            logits = model(torch.tensor([ids or [EOS_ID]]))[0, -1]
            logits[0] = -torch.inf
            ids.append(int(logits.argmax()))
            log_probs.append(float(logits.log_softmax(-1)[ids[-1]]))
        stopped = len(log_probs) > 0 and ids[-1] == EOS_ID
        assert answer.ids == (ids[:-1] if stopped else ids)
        assert answer.finish_reason == ("stop" if stopped else "length")
        assert answer.log_probs == pytest.approx(log_probs, abs=1e-5)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("way", CONFIGS)
def test_a_stream_gives_the_ids_of_the_first_answer(name, way):
    model, config = make(name), CONFIGS[way].model_copy(update={"n": 1})
    for prompt in [[], *prompts_of(3, seed=4), [6] * 62]:
        ((first, *_),) = complete(model, [prompt], config)
        assert list(stream(model, prompt, config)) == first.ids[len(prompt) :]


def test_the_temperature_0_is_greedy_search():
    model, prompts = make("attention"), prompts_of(6)
    cold = CompletionConfig(temperature=0.0, max_new_tokens=12)
    assert complete(model, prompts, cold) == complete(model, prompts, CONFIGS["greedy"])


def test_a_sample_is_the_same_however_many_are_drawn_and_another_seed_gives_others():
    model, prompts = make("rnn"), prompts_of(4)
    config = CompletionConfig(max_new_tokens=300, n=5, temperature=1.5)
    five = complete(model, prompts, config)
    two = complete(model, prompts, config.model_copy(update={"n": 2}))
    assert [group[:2] for group in told(five)] == told(two)
    assert all(len({tuple(a.ids) for a in group}) == 5 for group in five)
    assert told(complete(model, prompts, config.model_copy(update={"seed": 2}))) != told(five)


class Fixed:
    """The same scores after every text, and what was read of each row."""

    unbounded = True
    vocabulary = Vocabulary(source_size=8, target_size=8, pad_id=PAD, eos_id=EOS, start_id=START)

    def __init__(self, logits):
        self.logits_V = torch.tensor(logits, dtype=torch.float64)

    def init_state(self, batch, max_len):
        return Texts([[] for _ in range(batch)])

    def step(self, ids_NT, state):
        state.rows = [[*row, *ids] for row, ids in zip(state.rows, ids_NT.tolist(), strict=True)]
        return torch.stack([self.logits(row) for row in state.rows])

    def logits(self, read):
        return self.logits_V


class Texts:
    def __init__(self, rows):
        self.rows = rows

    def select(self, rows_N):
        self.rows = [self.rows[i] for i in rows_N.tolist()]

    @classmethod
    def join(cls, states):
        return cls([row for state in states for row in state.rows])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_softmax(temperature):
    logits = [9.0, -1.0, 0.0, 0.5, 1.0, -2.0, 1.5, 0.2]  # the first is padding, which is never drawn
    n, counts = 3000, torch.zeros(8)
    for seed in range(3):
        config = CompletionConfig(n=1000, temperature=temperature, max_new_tokens=1, seed=seed)
        for answer in complete(Fixed(logits), [[4]], config)[0]:
            counts[EOS if len(answer.ids) == 1 else answer.ids[1]] += 1
    expected = n * (torch.tensor([-math.inf, *logits[1:]]) / temperature).softmax(-1)
    chi_square = float(((counts - expected)[1:] ** 2 / expected[1:]).sum())
    assert counts[PAD] == 0
    assert chi_square < 22.5  # 99.9 % of what 6 degrees of freedom give


def test_padding_that_is_the_end_token_too_can_be_said():
    vocabulary = Vocabulary(source_size=8, target_size=8, pad_id=EOS, eos_id=EOS, start_id=EOS)
    model = Fixed([0.0, 9.0, 0, 0, 0, 0, 0, 0])
    model.vocabulary = vocabulary
    ((answer,),) = complete(model, [[4]], CompletionConfig(sample=False))
    assert answer.ids == [4] and answer.finish_reason == "stop"


class Table(Fixed):
    """Scores drawn once and for all for every text."""

    def __init__(self, seed):
        self.seed = seed

    def logits(self, read):
        generator = random.Random(f"{self.seed}/{read}")
        return torch.tensor([generator.gauss(0, 2) for _ in range(8)], dtype=torch.float64)

    def log_p(self, read):
        logits = self.logits(read)
        logits[PAD] = -math.inf
        return logits.log_softmax(-1).tolist()


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), penalty=st.sampled_from([0.0, 1.0]), n=st.integers(1, 4))
def test_a_beam_as_wide_as_everything_finds_the_best_of_all_continuations(seed, penalty, n):
    model, prompt, limit = Table(seed), [5, 4], 3
    config = CompletionConfig(sample=False, beam=300, n=n, length_penalty=penalty, patience=None, max_new_tokens=limit)
    (answers,) = complete(model, [prompt], config)
    every = []
    for length in range(limit + 1):
        for ids in itertools.product(range(2, 8), repeat=length):
            chosen = [*ids, *([EOS] if length < limit else [])]
            total = sum(model.log_p([*prompt, *chosen[:i]])[token] for i, token in enumerate(chosen))
            every.append((total / len(chosen) ** penalty, [*prompt, *ids], chosen))
    best = sorted(every, key=lambda answer: -answer[0])[:n]
    assert [answer.ids for answer in answers] == [ids for _, ids, _ in best]
    for answer, (score, _, chosen) in zip(answers, best, strict=True):
        assert answer.score == pytest.approx(score, abs=1e-5)
        steps = [model.log_p([*prompt, *chosen[:i]])[token] for i, token in enumerate(chosen)]
        assert answer.log_probs == pytest.approx(steps, abs=1e-5)


@pytest.mark.parametrize("name", ["attention", "lstm"])
@torch.no_grad()
def test_repetition_penalty_and_ngrams_count_the_prompt_as_transformers_does(name):
    transformers = pytest.importorskip("transformers", reason="the peer these rules are compared with")
    rules = transformers.LogitsProcessorList(
        [transformers.RepetitionPenaltyLogitsProcessor(1.5), transformers.NoRepeatNGramLogitsProcessor(2)]
    )
    model = make(name)
    config = CompletionConfig(sample=False, repetition_penalty=1.5, no_repeat_ngram=2, max_new_tokens=20)
    prompts = [p for p in prompts_of(6, seed=3) if p]
    for prompt, (answer,) in zip(prompts, complete(model, prompts, config), strict=True):
        ids = torch.tensor([prompt])
        while ids.shape[1] < len(prompt) + 20 and int(ids[0, -1]) != EOS_ID:
            logits = model(ids)[:, -1]
            logits[:, 0] = -torch.inf
            ids = torch.cat([ids, rules(ids, logits).argmax(-1, keepdim=True)], dim=1)
        assert answer.ids == [token for token in ids[0].tolist() if token != EOS_ID]


@torch.no_grad()
def test_samples_stay_within_what_transformers_filters_leave():
    transformers = pytest.importorskip("transformers", reason="the peer these filters are compared with")
    chain = transformers.LogitsProcessorList(
        [
            transformers.TemperatureLogitsWarper(1.2),
            transformers.TopKLogitsWarper(9),
            transformers.TopPLogitsWarper(0.9),
            transformers.MinPLogitsWarper(0.05),
        ]
    )
    model, prompt = make("attention", max_len=64), [7, 8, 9]
    config = CompletionConfig(n=400, temperature=1.2, top_k=9, top_p=0.9, min_p=0.05, max_new_tokens=1)
    logits = model(torch.tensor([prompt]))[:, -1]
    logits[:, 0] = -torch.inf
    left = set((chain(None, logits)[0] > -torch.inf).nonzero()[:, 0].tolist())
    drawn = {EOS_ID if len(a.ids) == 3 else a.ids[3] for a in complete(model, [prompt], config)[0]}
    assert drawn <= left and len(drawn) > 1


@torch.no_grad()
def by_hand(model, prompt, n, context):
    """Greedy completion through a window that forgets its oldest half when it is full."""
    window, ids, lost = list(prompt)[-context:], list(prompt), max(0, len(prompt) - context)
    for _ in range(n):
        if len(window) > context:
            kept = max(1, context // 2)
            lost += len(window) - kept
            window = window[-kept:]
        logits = model(torch.tensor([window]))[0, -1]
        logits[[0, EOS_ID]] = -torch.inf
        window.append(int(logits.argmax()))
        ids.append(window[-1])
    return ids, lost


@pytest.mark.parametrize("context", [2, 7, 16])
@pytest.mark.parametrize("n_prompt", [1, 6, 7, 8, 16, 17, 40])
def test_a_text_that_outgrows_the_context_is_read_through_a_sliding_window(context, n_prompt):
    model = make("attention", max_len=context, head_bias=True)
    with torch.no_grad():
        model.head.bias[EOS_ID] = -1e3
    prompt = prompts_of(1, seed=n_prompt, longest=1)[0] + [4 + i % 40 for i in range(n_prompt)]
    ids, lost = by_hand(model, prompt, 30, context)
    config = CompletionConfig(sample=False, max_new_tokens=30)
    ((alone,),) = complete(model, [prompt], config)
    assert alone.ids == ids
    assert n_dropped(n_prompt, 30, context) == lost
    assert [a.ids for (a,) in complete(model, [prompt, [5], prompt], config)][::2] == [ids, ids]
    assert list(stream(model, prompt, config)) == ids[n_prompt:]


@pytest.mark.parametrize("way", CONFIGS)
def test_samples_and_beams_slide_as_they_would_alone_however_many(way):
    model, config = make("modern", max_len=10), CONFIGS[way].model_copy(update={"max_new_tokens": 40})
    prompts = [[5, 6], [7] * 9, [8] * 30]
    together = complete(model, prompts, config)
    assert told(together) == told([complete(model, [prompt], config)[0] for prompt in prompts])
    assert max(len(a.ids) for group in together for a in group) > 20


def test_what_does_not_fit_can_be_refused_instead():
    model = make("attention", max_len=10)
    config = CompletionConfig(max_new_tokens=6, on_overflow="error")
    complete(model, [[5] * 5], config)
    with pytest.raises(InputError, match="prompt 2 and what may follow") as caught:
        complete(model, [[5], [5] * 6], config)
    assert "together at most 11 tokens" in str(caught.value)
    with pytest.raises(InputError, match="prompt 1"):
        next(stream(model, [5] * 6, config))


@pytest.mark.parametrize("name", ["rnn", "lstm", "conv"])
@torch.no_grad()
def test_models_without_a_context_read_texts_of_any_length(name, monkeypatch):
    model = make(name, max_len=8)
    assert context_of(model) is None
    prompt, config = prompts_of(1, seed=2)[0] * 20, CompletionConfig(sample=False, max_new_tokens=20)
    ((answer,),) = complete(model, [prompt], config)
    logits = model(torch.tensor([answer.ids]))[0, len(prompt) - 1 : -1]
    logits[:, 0] = -torch.inf
    assert logits.argmax(-1).tolist() == answer.ids[len(prompt) :]
    monkeypatch.setattr("tripel.decode.session.READ_AT_ONCE", 7)
    assert complete(model, [prompt], config)[0][0].ids == answer.ids


@settings(max_examples=200, deadline=None)
@given(n_prompt=st.integers(1, 60), n=st.integers(1, 90), context=st.integers(2, 20))
def test_the_tokens_dropped_are_those_that_a_window_loses_one_by_one(n_prompt, n, context):
    window, lost = min(n_prompt, context), max(0, n_prompt - context)
    for _ in range(n - 1):
        window += 1
        if window > context:
            lost += window - max(1, context // 2)
            window = max(1, context // 2)
    assert n_dropped(n_prompt, n, context) == lost
    assert n_dropped(n_prompt, n, None) == 0


@pytest.mark.parametrize("way", CONFIGS)
def test_an_answer_ends_with_the_token_that_its_prompt_watches_for(way):
    model, prompts = make("conv"), prompts_of(6, seed=1)
    config = CONFIGS[way].model_copy(update={"max_new_tokens": 30})
    ends = [(lambda ids, prompt=p: len(ids) > len(prompt) and ids[-1] % 3 == 0) for p in prompts]
    for prompt, answers in zip(prompts, complete(model, prompts, config, ends=ends), strict=True):
        for answer in answers:
            said = answer.ids[len(prompt) :]
            assert all(token % 3 for token in said[:-1])
            if said and said[-1] % 3 == 0:
                assert answer.finish_reason == "stop" and len(answer.log_probs) == len(said)


@torch.no_grad()
def test_the_alternatives_are_the_likeliest_tokens_of_every_step():
    model = make("attention")
    for sample in (False, True):
        config = CompletionConfig(sample=sample, top=5, n=2 if sample else 1, max_new_tokens=8)
        for answer in complete(model, [[5, 6, 7], [9]], config)[0]:
            assert len(answer.alternatives) == len(answer.log_probs)
            for i, alternatives in enumerate(answer.alternatives):
                logits = model(torch.tensor([answer.ids[: 3 + i]]))[0, -1]
                logits[0] = -torch.inf
                expected = logits.log_softmax(-1).topk(5)
                assert [token for token, _ in alternatives] == expected.indices.tolist()
                assert [log_p for _, log_p in alternatives] == pytest.approx(expected.values.tolist(), abs=1e-5)


def test_a_loop_in_the_prompt_is_no_reason_to_end_but_one_in_the_answer_is():
    model = Fixed([0, 0, 0, 0, 9.0, 0, 0, 0])
    config = CompletionConfig(sample=False, loop_guard=6, max_new_tokens=50)
    ((free,), (watched,)) = complete(model, [[4] * 10, [5, 6]], config)
    assert len(free.ids) == 60 and free.finish_reason == "length"
    assert len(watched.ids) < 20 and watched.finish_reason == "stop"


def test_a_training_model_is_completed_without_dropout():
    model = make("lstm").train()
    assert complete(model, [[5]], CONFIGS["greedy"]) == complete(model, [[5]], CONFIGS["greedy"])
    assert not model.training


def test_no_prompts_give_no_answers():
    assert complete(make("rnn"), [], CONFIGS["samples"]) == []


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"temperature": -0.1}, "greater than or equal to 0"),
        ({"temperature": math.nan}, "finite"),
        ({"top_p": 0.0}, "greater than 0"),
        ({"top_p": 1.1}, "less than or equal to 1"),
        ({"min_p": -0.1}, "greater than or equal to 0"),
        ({"min_p": 1.5}, "less than or equal to 1"),
        ({"top_k": -1}, "greater than or equal to 0"),
        ({"n": 0}, "greater than or equal to 1"),
        ({"max_new_tokens": 0}, "greater than or equal to 1"),
        ({"stop": ("a", "")}, "empty stop string"),
        ({"stop": ""}, "empty stop string"),
        ({"beam": 3}, "beam 3 searches, sample draws"),
        ({"n": 2, "sample": False}, "n 2 is more than beam 1"),
        ({"n": 2, "temperature": 0}, "n 2 is more than beam 1"),
        ({"beam": 3, "sample": False, "top": 2}, "top is told of"),
        ({"repetition_penalty": 0.0}, "greater than 0"),
        ({"on_overflow": "cut"}, "slide"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        CompletionConfig(**wrong)


def test_one_stop_string_need_not_be_a_list():
    assert CompletionConfig(stop="\n").stop == ("\n",)


@pytest.mark.parametrize("engine", ["native", "torch"])
@pytest.mark.parametrize("name", MODELS)
def test_every_engine_goes_on_as_the_model_does(name, engine):
    if engine == "native" and (name not in ("attention", "modern") or library("decoder") is None):
        pytest.skip("no C++ compiler here, or not a mixer that the native decoder has")
    model, prompts = make(name, max_len=24).float(), [[], *prompts_of(6), [5] * 30]
    fast = prepare_decoder(model, engine)
    for config in CONFIGS.values():
        longer = config.model_copy(update={"max_new_tokens": 20})
        ours, plain = complete(fast, prompts, longer), complete(model, prompts, longer)
        assert told(ours) == told(plain)
        for a, b in zip(itertools.chain(*ours), itertools.chain(*plain), strict=True):
            assert a.log_probs == pytest.approx(b.log_probs, abs=1e-3)
