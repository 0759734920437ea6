import pytest
import torch

from tripel.inspection.taps import Recorder
from tripel.nn.mixer import scoped


def test_names_are_scoped_and_kept_in_the_order_of_recording():
    recorder = Recorder()
    scoped(recorder, "decoder", 3, "self")("weights", torch.ones(2))
    recorder.scope("encoder")("embed", torch.zeros(1))
    recorder("logits", torch.ones(1))
    assert list(recorder) == ["decoder.3.self.weights", "encoder.embed", "logits"]
    assert recorder["decoder.3.self.weights"].tolist() == [1, 1]
    assert "encoder.scores" not in recorder


def test_a_scope_sees_what_is_below_it():
    recorder = Recorder()
    scope = recorder.scope("decoder")
    scope.scope("0")("resid_pre", torch.ones(1))
    recorder("logits", torch.ones(1))
    assert dict(scope) == {"0.resid_pre": recorder["decoder.0.resid_pre"]}
    assert len(scope) == 1


def test_only_the_names_that_match_a_pattern_are_kept():
    recorder = Recorder(only=["*.weights", "logits"])
    for name in ("scores", "weights"):
        recorder.scope("decoder").scope("0")(name, torch.ones(1))
    recorder("logits", torch.ones(1))
    assert list(recorder) == ["decoder.0.weights", "logits"]


def test_what_is_recorded_neither_changes_afterwards_nor_holds_the_graph():
    x = torch.ones(2, requires_grad=True)
    y = x * 2
    recorder = Recorder()
    recorder("y", y)
    y.detach().add_(5)
    assert recorder["y"].tolist() == [2, 2]
    assert not recorder["y"].requires_grad


def test_recording_a_name_twice_is_refused():
    recorder = Recorder()
    recorder("logits", torch.ones(1))
    with pytest.raises(ValueError, match="logits was recorded before"):
        recorder("logits", torch.ones(1))
    recorder.scope("1")("logits", torch.ones(1))


def test_nobody_listening_stays_nobody():
    assert scoped(None, "decoder", 3) is None
