"""What attention promises beyond the mixer contract: its tapped weights are those the kernel used, and its memory is
kept once per sentence whatever becomes of the rows."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tripel.inspection.taps import Recorder
from tripel.nn.attention import EXPLICIT_KEYS, WHOLE_QUERIES, Attention, AttentionConfig, CrossAttention, Memory

D, HEADS = 8, 2
EXACT = {"rtol": 1e-9, "atol": 1e-10}
# Both sides of each border between kernels.
LENGTHS = [3, WHOLE_QUERIES - 1, WHOLE_QUERIES, 16, EXPLICIT_KEYS, EXPLICIT_KEYS + 1, EXPLICIT_KEYS + 40]
KEYS = pytest.mark.parametrize("n_keys", LENGTHS)
QUICK = settings(max_examples=30, deadline=None, derandomize=True)


def numbers(*shape, seed=1):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def self_attention(causal):
    torch.manual_seed(0)
    return Attention(AttentionConfig(n_heads=HEADS), D, causal=causal)


def cross_attention():
    torch.manual_seed(0)
    return CrossAttention(AttentionConfig(n_heads=HEADS), D, D).double().eval()


def by_heads(x_BTD):
    return x_BTD.unflatten(-1, (HEADS, -1)).transpose(1, 2)


def of_heads(y_BHTE):
    return y_BHTE.transpose(1, 2).flatten(2)


def allowed_BHTS(causal, valid_BS, n_queries, n_keys):
    allowed_TS = torch.ones(n_queries, n_keys, dtype=torch.bool)
    allowed_TS = allowed_TS.tril() if causal else allowed_TS
    return allowed_TS if valid_BS is None else allowed_TS & valid_BS[:, None, None]


@KEYS
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_tapped_weights_times_values_are_the_output_of_the_kernel(causal, padded, n_keys):
    mixer, x_BTD, taps = self_attention(causal), numbers(2, n_keys, D).float(), Recorder()
    valid_BT = torch.arange(n_keys) < torch.tensor([[n_keys], [n_keys // 2]]) if padded else None
    y_BTD = mixer(x_BTD, valid_BT=valid_BT, taps=taps)
    v_BHSE = by_heads(mixer.query_key_value(x_BTD).chunk(3, -1)[2])
    again_BTD = mixer.output(of_heads(taps["weights"] @ v_BHSE))
    real_BT = torch.ones(2, n_keys, dtype=torch.bool) if valid_BT is None else valid_BT
    torch.testing.assert_close(again_BTD[real_BT], y_BTD[real_BT], rtol=1e-5, atol=1e-5)


@KEYS
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_tapped_weights_are_the_softmax_of_tapped_scores_over_what_a_query_may_see(causal, padded, n_keys):
    mixer, x_BTD, taps = self_attention(causal), numbers(2, n_keys, D).float(), Recorder()
    valid_BT = torch.arange(n_keys) < torch.tensor([[n_keys], [n_keys // 2]]) if padded else None
    mixer(x_BTD, valid_BT=valid_BT, taps=taps)
    weights, scores = taps["weights"], taps["scores"]
    assert weights.shape == scores.shape == (2, HEADS, n_keys, n_keys)
    real = slice(None) if valid_BT is None or not causal else slice(0, n_keys // 2)  # a causal mixer ignores padding
    seen = allowed_BHTS(causal, valid_BT, n_keys, n_keys)
    expected = scores.masked_fill(~seen, -torch.inf).softmax(-1)
    torch.testing.assert_close(weights[:, :, real], expected[:, :, real], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, HEADS, n_keys), rtol=0, atol=1e-5)


@KEYS
@pytest.mark.parametrize("causal", [False, True])
def test_both_kernels_compute_the_formula_of_the_paper(causal, n_keys):
    """softmax(q k^T / sqrt(E)) v (Vaswani et al. 2017, equation 1), written out here once more."""
    mixer, x_BTD = self_attention(causal).double(), numbers(2, n_keys, D)
    q, k, v = (by_heads(x_BTD @ part.T) for part in mixer.query_key_value.parts())
    scores = (q @ k.mT / (D // HEADS) ** 0.5).masked_fill(~allowed_BHTS(causal, None, n_keys, n_keys), -torch.inf)
    torch.nn.init.zeros_(mixer.query_key_value.bias)
    expected_BTD = mixer.output(of_heads(scores.softmax(-1) @ v))
    torch.testing.assert_close(mixer(x_BTD), expected_BTD, **EXACT)


def test_dropout_acts_while_training_only():
    torch.manual_seed(0)
    mixer, x_BTD = Attention(AttentionConfig(n_heads=HEADS, dropout=0.5), D, causal=True), numbers(2, 7, D).float()
    assert not torch.equal(mixer(x_BTD), mixer(x_BTD))
    mixer.eval()
    assert torch.equal(mixer(x_BTD), mixer(x_BTD))


@KEYS
@pytest.mark.parametrize("n_queries", [1, 3, WHOLE_QUERIES])
def test_cross_attention_ignores_the_padding_of_the_memory(n_queries, n_keys):
    cross, x_NTD, memory_BSD = cross_attention(), numbers(2, n_queries, D), numbers(2, n_keys, D, seed=2)
    lengths = [n_keys, n_keys // 2]
    valid_BS = torch.arange(n_keys) < torch.tensor(lengths)[:, None]
    y_NTD = cross(x_NTD, cross.read(memory_BSD.masked_fill(~valid_BS[..., None], 9.0)), valid_BS=valid_BS)
    for row, n in enumerate(lengths):
        alone_NTD = cross(x_NTD[row : row + 1], cross.read(memory_BSD[row : row + 1, :n]))
        torch.testing.assert_close(y_NTD[row : row + 1], alone_NTD, **EXACT)


@KEYS
def test_tapped_weights_of_cross_attention_times_values_are_the_output_of_the_kernel(n_keys):
    cross, taps = cross_attention().float(), Recorder()
    x_NTD, memory_BSD = numbers(2, 3, D).float(), numbers(2, n_keys, D, seed=2).float()
    valid_BS = torch.arange(n_keys) < torch.tensor([[n_keys], [n_keys - 2]])
    k_BHSE, v_BHSE = cross.read(memory_BSD)
    y_NTD = cross(x_NTD, (k_BHSE, v_BHSE), valid_BS=valid_BS, taps=taps)
    assert torch.equal(y_NTD, cross(x_NTD, (k_BHSE, v_BHSE), valid_BS=valid_BS))
    again_NTD = cross.output(of_heads(taps["weights"] @ v_BHSE))
    torch.testing.assert_close(again_NTD, y_NTD, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(taps["weights"].sum(-1), torch.ones(2, HEADS, 3), rtol=0, atol=1e-5)
    assert (taps["weights"][1, :, :, -2:] == 0).all()


# Memory: every row must attend to its own sentence, however rows are dropped, repeated, reordered and joined.


class Sentences:
    """A Memory beside the plain list of which sentence each row belongs to."""

    def __init__(self, cross, lengths, seed=0):
        self.cross, self.texts = cross, [numbers(n, D, seed=seed * 100 + i) for i, n in enumerate(lengths)]
        longest = max(lengths)
        padded_BSD = torch.stack([torch.cat([t, t.new_full((longest - len(t), D), 5.0)]) for t in self.texts])
        valid_BS = torch.arange(longest) < torch.tensor(lengths)[:, None]
        self.memory = Memory([cross.read(padded_BSD)] * 2, None if valid_BS.all() else valid_BS)

    def select(self, rows):
        self.memory.select(torch.tensor(rows, dtype=torch.int64))
        self.texts = [self.texts[row] for row in rows]

    def check(self):
        x_NTD = numbers(len(self.texts), 2, D, seed=77)
        for keys_values in self.memory.layers:
            y_NTD = self.cross(x_NTD, keys_values, valid_BS=self.memory.valid_BS)
            for row, text_SD in enumerate(self.texts):
                alone_NTD = self.cross(x_NTD[row : row + 1], self.cross.read(text_SD[None]))
                torch.testing.assert_close(y_NTD[row : row + 1], alone_NTD, **EXACT)


@pytest.mark.parametrize(
    "selections",
    [
        [[0, 0, 0, 1, 1, 1, 2, 2, 2]],  # from sentences to beams
        [[0, 0, 1, 1, 2, 2], [1, 1, 2, 3, 5, 4]],  # beams reordered within their sentences
        [[0, 0, 1, 1, 2, 2], [0, 1, 4, 5]],  # a finished sentence leaves
        [[0, 0, 1, 1, 2, 2], [1, 3, 5]],  # one row of each is left
        [[0, 0, 1, 1, 2, 2], [0, 1, 2, 4, 5]],  # a single beam leaves: rows differ in number
        [[2, 0, 1], [1, 1, 0, 2, 2]],  # sentences reordered, then repeated unequally
        [[0, 1, 0, 1, 0, 1]],  # repeats that are not grouped
    ],
    ids=str,
)
def test_every_row_keeps_its_own_memory(selections):
    sentences = Sentences(cross_attention(), [4, 2, 5])
    for rows in selections:
        sentences.select(rows)
        sentences.check()


@QUICK
@given(data=st.data(), lengths=st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_every_row_keeps_its_own_memory_through_any_selections(data, lengths):
    sentences = Sentences(cross_attention(), lengths)
    for _ in range(data.draw(st.integers(1, 4))):
        n_rows = len(sentences.texts)
        sentences.select(data.draw(st.lists(st.integers(0, n_rows - 1), min_size=1, max_size=8)))
        sentences.check()


@QUICK
@given(data=st.data(), groups=st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=3), min_size=1, max_size=3))
def test_joined_memories_keep_every_row_at_its_own_sentence(data, groups):
    cross = cross_attention()
    parts = [Sentences(cross, lengths, seed) for seed, lengths in enumerate(groups)]
    for part in parts:
        n_rows = len(part.texts)
        part.select(data.draw(st.lists(st.integers(0, n_rows - 1), min_size=1, max_size=5)))
    joined = parts[0]
    joined.memory = Memory.join([part.memory for part in parts])
    joined.texts = [text for part in parts for text in part.texts]
    joined.check()
    joined.select(data.draw(st.lists(st.integers(0, len(joined.texts) - 1), min_size=1, max_size=6)))
    joined.check()


def test_beams_of_one_sentence_share_its_keys_and_values():
    sentences = Sentences(cross_attention(), [4, 2, 5])
    keys, values = sentences.memory.layers[0]
    sentences.select([0] * 4 + [1] * 4 + [2] * 4)
    sentences.select([3, 2, 1, 0, 4, 4, 5, 7, 11, 8, 8, 8])
    assert sentences.memory.layers[0][0] is keys
    assert sentences.memory.layers[0][1] is values
    sentences.select([0, 1, 2, 3, 8, 9, 10, 11])
    assert len(sentences.memory.layers[0][0]) == 2
