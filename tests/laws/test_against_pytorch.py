"""Mixers, norms and positions against PyTorch's own modules and Hugging Face's formulas."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tripel.inspection.taps import Recorder
from tripel.nn import build_mixer
from tripel.nn.attention import AttentionConfig
from tripel.nn.conv import ConvConfig
from tripel.nn.exact import RMSNorm
from tripel.nn.recurrent import LSTMConfig, RNNConfig
from tripel.nn.rotary import rotate

D = 8


def numbers(*shape, seed=1, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def as_pytorch(mixer, module):
    """PyTorch's module with the weights of the mixer's one direction."""
    direction = mixer.forwards
    with torch.no_grad():
        module.weight_ih_l0.copy_(direction.input.weight)
        module.weight_hh_l0.copy_(direction.hidden.weight)
        module.bias_ih_l0.copy_(direction.input.bias)
        module.bias_hh_l0.zero_()
    return module


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_the_rnn_is_pytorchs(activation):
    torch.manual_seed(0)
    mixer = build_mixer(RNNConfig(activation=activation), D, causal=True).double()
    theirs = as_pytorch(mixer, nn.RNN(D, D, nonlinearity=activation, batch_first=True).double())
    torch.testing.assert_close(mixer(numbers(2, 7, D)), theirs(numbers(2, 7, D))[0])


def test_the_lstm_is_pytorchs():
    torch.manual_seed(0)
    mixer = build_mixer(LSTMConfig(), D, causal=True).double()
    theirs = as_pytorch(mixer, nn.LSTM(D, D, batch_first=True).double())
    torch.testing.assert_close(mixer(numbers(2, 7, D)), theirs(numbers(2, 7, D))[0])


def test_the_lstm_reading_both_ways_is_pytorchs_on_every_row_alone():
    torch.manual_seed(0)
    mixer = build_mixer(LSTMConfig(), D, causal=False).double()
    theirs = nn.LSTM(D, D // 2, batch_first=True, bidirectional=True).double()
    with torch.no_grad():
        for direction, end in ((mixer.forwards, ""), (mixer.backwards, "_reverse")):
            getattr(theirs, f"weight_ih_l0{end}").copy_(direction.input.weight)
            getattr(theirs, f"weight_hh_l0{end}").copy_(direction.hidden.weight)
            getattr(theirs, f"bias_ih_l0{end}").copy_(direction.input.bias)
            getattr(theirs, f"bias_hh_l0{end}").zero_()
    x_BTD, valid_BT = numbers(2, 6, D), torch.arange(6) < torch.tensor([[6], [4]])
    y_BTD = mixer(x_BTD, valid_BT=valid_BT)
    torch.testing.assert_close(y_BTD[0], theirs(x_BTD[:1])[0][0])
    torch.testing.assert_close(y_BTD[1, :4], theirs(x_BTD[1:, :4])[0][0])


def test_the_lstms_taps_are_the_cell_equations_that_give_its_output():
    torch.manual_seed(0)
    mixer, recorder = build_mixer(LSTMConfig(), D, causal=True), Recorder()
    y_BTD = mixer(numbers(2, 5, D, dtype=torch.float32), taps=recorder)
    assert recorder["gates"].shape == (2, 5, 4, D)
    out_BTD = recorder["gates"][:, :, 3] * recorder["cell"].tanh()
    torch.testing.assert_close(out_BTD, y_BTD, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("kernel", "dilation"), [(1, 1), (3, 1), (3, 4), (5, 2)])
def test_the_gated_convolution_is_pytorchs_convolution_and_glu(kernel, dilation, causal):
    torch.manual_seed(0)
    mixer = build_mixer(ConvConfig(kernel=kernel, dilation=dilation), D, causal=causal).double()
    x_BDT = numbers(2, 9, D).mT
    weight = mixer.value_gate.weight.unflatten(1, (kernel, D)).mT
    reach = (kernel - 1) * dilation
    padded = F.pad(x_BDT, (reach, 0) if causal else (reach // 2, reach // 2))
    theirs_BTD = F.glu(F.conv1d(padded, weight, mixer.value_gate.bias, dilation=dilation), dim=1).mT
    torch.testing.assert_close(mixer(x_BDT.mT), theirs_BTD)


def test_dilations_are_taken_in_turn():
    config = ConvConfig(dilation=(1, 2, 4))
    assert [config.at_layer(layer).dilation for layer in range(5)] == [1, 2, 4, 1, 2]


def test_weight_drop_thins_out_hidden_weights_in_training_only():
    torch.manual_seed(0)
    mixer = build_mixer(LSTMConfig(weight_drop=0.5), D, causal=True)
    x_BTD = numbers(1, 4, D, dtype=torch.float32)
    one, other = mixer(x_BTD), mixer(x_BTD)
    assert torch.equal(one[:, 0], other[:, 0])  # nothing hidden has been read yet
    assert not torch.equal(one[:, 1:], other[:, 1:])
    mixer.eval()
    assert torch.equal(mixer(x_BTD), mixer(x_BTD))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_rms_norm_and_its_gradients_are_pytorchs(dtype):
    x, weight, grad = numbers(3, 5, D), numbers(D, seed=2), numbers(3, 5, D, seed=3)
    norm = RMSNorm(D, eps=1e-5)
    norm.weight.data = weight.to(dtype)
    ours = x.to(dtype).requires_grad_()
    y = norm(ours)
    y.backward(grad.to(dtype))
    theirs, their_weight = x.requires_grad_(), weight.requires_grad_()
    expected = F.rms_norm(theirs, (D,), their_weight, 1e-5)
    expected.backward(grad)
    close = {torch.bfloat16: {"atol": 0.06, "rtol": 0.03}, torch.float32: {"atol": 1e-5, "rtol": 1e-5}}.get(dtype, {})
    torch.testing.assert_close(y.double(), expected, **close)
    torch.testing.assert_close(ours.grad.double(), theirs.grad, **close)
    torch.testing.assert_close(norm.weight.grad.double(), their_weight.grad, **close)
    with torch.no_grad():
        torch.testing.assert_close(norm(x.to(dtype)), y.detach(), **close)


@pytest.mark.parametrize("start", [0, 300, torch.tensor([4, 0])], ids=str)
def test_rotary_positions_are_those_of_hugging_faces_llama(start):
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    x_BHTE = numbers(2, 3, 5, 4)
    first_B = start if isinstance(start, torch.Tensor) else torch.tensor([start] * 2)
    angle_BTE = (first_B[:, None] + torch.arange(5))[..., None] / 100.0 ** (torch.arange(0, 4, 2) / 4).double()
    angle_BTE = torch.cat([angle_BTE, angle_BTE], dim=-1)
    theirs, _ = apply_rotary_pos_emb(x_BHTE, x_BHTE, angle_BTE.cos(), angle_BTE.sin())
    torch.testing.assert_close(rotate(x_BHTE, start, 100.0), theirs)


def test_scores_with_rotary_positions_depend_on_distance_alone():
    q, k = numbers(1, 1, 1, 8), numbers(1, 1, 1, 8, seed=2)
    at = [(rotate(q, i, 1e4) * rotate(k, j, 1e4)).sum() for i, j in ((7, 3), (104, 100), (4, 0))]
    torch.testing.assert_close(at[0], at[1])
    torch.testing.assert_close(at[0], at[2])


def test_grouped_heads_are_heads_whose_keys_and_values_are_repeated():
    torch.manual_seed(0)
    grouped = build_mixer(AttentionConfig(n_heads=4, n_kv_heads=2), D, causal=True).double()
    plain = build_mixer(AttentionConfig(n_heads=4), D, causal=True).double()
    with torch.no_grad():
        for name in ("weight", "bias"):
            ours = getattr(grouped.query_key_value, name).split((8, 4, 4))
            repeated = [x.unflatten(0, (2, 2)).repeat_interleave(2, dim=0).flatten(0, 1) for x in ours[1:]]
            getattr(plain.query_key_value, name).copy_(torch.cat([ours[0], *repeated]))
        plain.output.load_state_dict(grouped.output.state_dict())
    x_BTD = numbers(2, 6, D)
    torch.testing.assert_close(grouped(x_BTD), plain(x_BTD))
