"""Checkpoints and run folders: what is saved comes back, and no fault of the disk costs what was there before."""

from __future__ import annotations

import errno
import io
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from torch import Tensor

from tripel import storage
from tripel.checkpoint import (
    RUN_FILES,
    list_steps,
    load_model,
    load_run,
    load_training,
    newest_valid,
    save_run,
    save_training,
)
from tripel.errors import CheckpointError, TokenizerError
from tripel.models.build import build
from tripel.models.config import EncoderDecoderConfig, StackConfig, Vocabulary
from tripel.models.encoder_decoder import EncoderDecoder
from tripel.nn import AttentionConfig
from tripel.text.pair import TokenizerPair
from tripel.text.tokenizer import TokenizerConfig

GROUPS = {
    "model": {"weight": torch.randn(3, 4), "half": torch.randn(2).bfloat16()},
    "optimizer": {"step": torch.tensor(7), "moment": torch.randn(3, 4, dtype=torch.float64)},
    "random": {"cpu": torch.get_rng_state()},
    "empty": {},
}
SENTENCES = ["two dogs play in the snow .", "a man rides a horse .", "zwei hunde spielen im schnee ."]
IDS = torch.tensor([[5, 6, 7, 3], [8, 9, 3, 0]]), torch.tensor([[2, 7, 8], [2, 9, 8]])


@pytest.fixture(scope="module")
def tokenizers() -> TokenizerPair:
    return TokenizerPair.train(TokenizerConfig(kind="word"), SENTENCES, SENTENCES)


@pytest.fixture(scope="module")
def two_tokenizers() -> TokenizerPair:
    return TokenizerPair.train(TokenizerConfig(kind="word", shared=False), SENTENCES[:2], SENTENCES[2:])


def make_model(tokenizers: TokenizerPair, *, seed: int = 0, **options: Any) -> EncoderDecoder:
    torch.manual_seed(seed)
    stack = StackConfig(n_layers=1, mixer=AttentionConfig(n_heads=2))
    config = EncoderDecoderConfig.model_validate(
        {"d_model": 8, "d_ff": 12, "encoder": stack, "decoder": stack, "max_len": 16, **options}
    )
    source, target = tokenizers.source, tokenizers.target
    vocabulary = Vocabulary(
        source_size=source.vocab_size, target_size=target.vocab_size, pad_id=0, eos_id=3, start_id=2
    )
    model = build(config, vocabulary).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter.data)
    return model


def logits(model: EncoderDecoder) -> Tensor:
    source_BS, target_BT = IDS
    with torch.inference_mode():
        return model(source_BS, target_BT, source_BS != 0)


def save(run: Path, model: EncoderDecoder, tokenizers: TokenizerPair | None) -> None:
    save_run(run, model, tokenizers, recipe_yaml="task: {}\n", card="# A model\n")


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda handle: None)


class FaultyDisk:
    """Lets the first n calls to the file system through, then fails: the next one only, or all from there on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, for_good: bool) -> None:
        self.calls, self.fail_at, self.for_good = 0, 0, for_good
        for module, name in ((os, "replace"), (os, "fsync"), (os, "mkdir"), (os, "open"), (os, "link")):
            monkeypatch.setattr(module, name, self._wrapped(getattr(module, name)))
        monkeypatch.setattr(io, "open", self._wrapped(io.open))
        monkeypatch.setattr(safetensors.torch, "save_file", self._wrapped(safetensors.torch.save_file, half_written))

    def fails_now(self) -> bool:
        self.calls += 1
        return self.fail_at > 0 and (self.calls >= self.fail_at if self.for_good else self.calls == self.fail_at)

    def _wrapped(self, function: Callable[..., Any], failure: Callable[..., Any] | None = None) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if not self.fails_now():
                return function(*args, **kwargs)
            if failure is not None:
                failure(*args)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        return call


def half_written(tensors: dict[str, Tensor], path: Path) -> None:
    data = safetensors.torch.save(tensors)
    with open(path, "wb") as file:
        file.write(data[: len(data) // 2])
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


def test_a_checkpoint_gives_back_every_tensor_and_every_value(tmp_path: Path) -> None:
    folder = save_training(tmp_path, 500, GROUPS, {"best": 1.5, "perplexity": float("inf"), "place": [3, {"a": None}]})
    state = load_training(folder)
    assert state.meta == {"best": 1.5, "perplexity": float("inf"), "place": [3, {"a": None}]}
    assert state.groups.keys() == GROUPS.keys()
    for name, tensors in GROUPS.items():
        assert state.groups[name].keys() == tensors.keys()
        for key, tensor in tensors.items():
            assert state.groups[name][key].dtype == tensor.dtype
            assert torch.equal(state.groups[name][key], tensor)


def test_only_the_groups_asked_for_are_read(tmp_path: Path) -> None:
    folder = save_training(tmp_path, 1, GROUPS, {})
    assert load_training(folder, groups=["model"]).groups.keys() == {"model"}


def test_old_steps_go_but_the_newest_and_the_protected_stay(tmp_path: Path) -> None:
    for step in range(1, 7):
        save_training(tmp_path, step, GROUPS, {}, keep=2, protect=[3])
    assert list_steps(tmp_path) == [3, 5, 6]
    assert newest_valid(tmp_path).step == 6


def test_the_step_just_written_stays_although_damaged_later_ones_are_newer(tmp_path: Path) -> None:
    folder = save_training(tmp_path, 900, GROUPS, {})
    (folder / "state.json").unlink()
    save_training(tmp_path, 400, GROUPS, {}, keep=1)
    newest = newest_valid(tmp_path)
    assert newest.step == 400
    assert "step-900: state.json is missing" in newest.skipped[0]


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-1]), "bytes instead"),
        (lambda f: flip_bit(f / "optimizer.safetensors"), "has changed since it was written"),
        (lambda f: (f / "state.json").unlink(), "state.json is missing"),
        (lambda f: (f / "manifest.json").unlink(), "manifest.json cannot be read"),
        (lambda f: (f / "manifest.json").write_text("{"), "manifest.json is damaged"),
        (lambda f: (f / "manifest.json").write_text('{"files": {"state.json": 3}}'), "manifest.json is damaged"),
        (lambda f: (f / "manifest.json").write_text('{"files": {}}'), "lists no files"),
    ],
)
def test_a_damaged_checkpoint_is_passed_over_and_the_reason_given(
    tmp_path: Path, harm: Callable[[Path], Any], reason: str
) -> None:
    save_training(tmp_path, 1, GROUPS, {"step": 1})
    harm(save_training(tmp_path, 2, GROUPS, {"step": 2}))
    newest = newest_valid(tmp_path)
    assert newest.step == 1
    assert len(newest.skipped) == 1
    assert reason in newest.skipped[0]


def test_a_run_without_a_whole_checkpoint_says_what_is_wrong_with_each(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint to go on from"):
        newest_valid(tmp_path)
    (save_training(tmp_path, 5, GROUPS, {}) / "model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="step-5: model.safetensors has 0 bytes"):
        newest_valid(tmp_path)


def test_a_step_caught_by_a_crash_while_being_replaced_counts_by_its_former_self(tmp_path: Path) -> None:
    folder = save_training(tmp_path, 5, GROUPS, {"former": True})
    folder.rename(folder.with_name(".step-5.0123abcd.replaced"))
    newest = newest_valid(tmp_path)
    assert newest.step == 5
    assert load_training(newest.folder).meta == {"former": True}


def test_what_killed_saves_left_behind_goes_with_the_next_save(tmp_path: Path) -> None:
    parent = tmp_path / "checkpoints"
    for name in (".step-5.0123abcd.draft", ".step-7.0123abcd.replaced", ".step-1.0123abcd.removed"):
        (parent / name).mkdir(parents=True)
    save_training(tmp_path, 8, GROUPS, {}, keep=1)
    assert [entry.name for entry in parent.iterdir()] == ["step-8"]


@pytest.mark.parametrize("for_good", [False, True])
@pytest.mark.parametrize("step", [2, 3])
def test_whatever_file_operation_of_a_checkpoint_fails_a_whole_one_remains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, for_good: bool
) -> None:
    """step 2 is replaced, step 3 is new; the disk fails at the first, second, ... operation until none is left."""
    n_failures = 0
    for fail_at in range(1, 200):
        run = tmp_path / str(fail_at)
        for old in (1, 2):
            save_training(run, old, GROUPS, {"state": f"old {old}"})
        with monkeypatch.context() as patch:
            disk = FaultyDisk(patch, for_good=for_good)
            disk.fail_at = fail_at
            try:
                save_training(run, step, GROUPS, {"state": "new"})
                failed = False
            except CheckpointError as error:
                failed = True
                assert "what was saved before is intact" in str(error)
        newest = newest_valid(run)
        assert newest.skipped == ()
        state = load_training(newest.folder).meta["state"]
        assert state in ({"old 2", "new"} if failed else {"new"})
        save_training(run, 4, GROUPS, {}, keep=1)
        assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["step-4"]
        n_failures += failed
        if disk.calls < fail_at:
            break
    else:
        pytest.fail("the save never came to its end")
    assert n_failures >= 12


def test_every_file_is_on_the_disk_before_its_folder_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    replace = os.replace

    def record_replace(source: Path, target: Path) -> None:
        events.append(f"rename to {target.name}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", lambda handle: events.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name))
    monkeypatch.setattr(os, "replace", record_replace)
    save_training(tmp_path, 5, GROUPS, {})
    renamed = events.index("rename to step-5")
    files = {f"{name}.safetensors" for name in GROUPS} | {"state.json", "manifest.json"}
    assert files <= set(events[:renamed])
    assert events[renamed - 1].endswith(".draft")
    assert events[renamed + 1 :] == ["checkpoints"]


def test_a_full_disk_is_reported_with_the_room_needed_and_the_room_there_is(tmp_path: Path) -> None:
    """A real refusal of the operating system, from inside the library that writes the tensors."""
    save_training(tmp_path, 1, GROUPS, {})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(CheckpointError, match=r"step-2 needs about 400 kB; .* are free there") as caught:
            save_training(tmp_path, 2, {"model": {"a": torch.randn(100_000)}}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "free some space" in str(caught.value)
    assert newest_valid(tmp_path).step == 1
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1


OPTIONS: list[dict[str, Any]] = [
    {},
    {"sinusoid_order": "interleaved", "activation": "silu"},
    {"tie": "target", "head_bias": True},
    {"tie": "none", "embed_scale": False},
    {"wiring": "pre"},
    {"positions": "learned", "norm_eps": 1e-6},
    {"decoder": StackConfig(n_layers=2, mixer=AttentionConfig(n_heads=4), d_ff=20)},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_a_saved_run_has_the_same_logits_to_the_bit(
    tmp_path: Path, tokenizers: TokenizerPair, options: dict[str, Any]
) -> None:
    model = make_model(tokenizers, **options)
    save(tmp_path, model, tokenizers)
    run = load_run(tmp_path)
    assert (run.config, run.vocabulary, run.recipe_yaml) == (model.config, model.vocabulary, "task: {}\n")
    assert run.tokenizers.source.to_json() == tokenizers.source.to_json()
    assert run.tokenizers.shared
    assert torch.equal(logits(run.model), logits(model))
    pairs = zip(run.model.parameters(), model.parameters(), strict=True)
    assert all(p.requires_grad and torch.equal(p, q) for p, q in pairs)


def test_opening_a_run_does_not_wait_for_the_import_of_a_compiler(tmp_path: Path, tokenizers: TokenizerPair) -> None:
    """Some operations on the meta device import torch._dynamo or sympy, which takes seconds."""
    save(tmp_path, make_model(tokenizers), tokenizers)
    script = (
        "import sys; from tripel.checkpoint import load_run; load_run(sys.argv[1]); "
        "print({'torch._dynamo', 'sympy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_run_of_two_vocabularies_comes_back_with_both(tmp_path: Path, two_tokenizers: TokenizerPair) -> None:
    save(tmp_path, make_model(two_tokenizers, tie="target"), two_tokenizers)
    run = load_run(tmp_path)
    assert not run.tokenizers.shared
    assert run.tokenizers.target.to_json() == two_tokenizers.target.to_json()


def test_a_new_model_replaces_every_file_of_the_former_and_no_other(
    tmp_path: Path, tokenizers: TokenizerPair, two_tokenizers: TokenizerPair
) -> None:
    save(tmp_path, make_model(two_tokenizers, tie="target"), two_tokenizers)
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    model = make_model(tokenizers, wiring="pre")
    save(tmp_path, model, tokenizers)
    names = {entry.name for entry in tmp_path.iterdir()}
    assert names == {"config.json", "model.safetensors", "tokenizer.json", "README.md", "recipe.yaml", "metrics.jsonl"}
    assert torch.equal(logits(load_run(tmp_path).model), logits(model))


def test_whatever_file_operation_of_a_run_fails_one_whole_model_remains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizers: TokenizerPair, two_tokenizers: TokenizerPair
) -> None:
    old, new = make_model(two_tokenizers, tie="target"), make_model(tokenizers, seed=1, wiring="pre")
    n_failures = 0
    for fail_at in range(1, 300):
        run = tmp_path / str(fail_at)
        save(run, old, two_tokenizers)
        with monkeypatch.context() as patch:
            disk = FaultyDisk(patch, for_good=False)
            disk.fail_at = fail_at
            try:
                save(run, new, tokenizers)
                failed = False
            except CheckpointError:
                failed = True
        found = load_run(run)
        expected = [old, new] if failed else [new]
        assert any(
            found.config == model.config and torch.equal(logits(found.model), logits(model)) for model in expected
        )
        save(run, new, tokenizers)  # also removes what could not be removed then
        assert {entry.name for entry in run.iterdir()} <= set(RUN_FILES)
        n_failures += failed
        if disk.calls < fail_at:
            break
    else:
        pytest.fail("the save never came to its end")
    assert n_failures >= 20


def flip_bit(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def edit_config(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change our entry in config.json and forget the checksums, so that only what is said of the model can be wrong."""
    content = json.loads((folder / "config.json").read_text())
    content["tripel"]["sha256"] = {}
    change(content["tripel"])
    (folder / "config.json").write_text(json.dumps(content))


def edit_weights(folder: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    edit_config(folder, lambda entry: None)
    tensors = storage.read_tensors(folder / "model.safetensors")
    change(tensors)
    safetensors.torch.save_file(tensors, folder / "model.safetensors")


HARMS: list[tuple[str, Callable[[Path], Any], str]] = [
    ("no config", lambda f: (f / "config.json").unlink(), "not a run folder"),
    ("config cut off", lambda f: (f / "config.json").write_text('{"tripel": {'), "config.json is damaged"),
    ("config of bytes", lambda f: (f / "config.json").write_bytes(b"\xff\xfe\x00"), "config.json is damaged"),
    ("config a list", lambda f: (f / "config.json").write_text("[1]"), "config.json is damaged"),
    ("config deep", lambda f: (f / "config.json").write_text("[" * 100_000), "config.json is damaged"),
    ("stranger's config", lambda f: (f / "config.json").write_text('{"model_type": "marian"}'), "tripel import"),
    ("unknown option", lambda f: edit_config(f, lambda e: e["model"].update(new=1)), "tripel.model.new"),
    ("unknown names", lambda f: edit_config(f, lambda e: e.update(weights="onnx")), "weights: onnx"),
    ("wrong width", lambda f: edit_config(f, lambda e: e["model"].update(d_model=16)), "of another shape"),
    ("more layers", lambda f: edit_config(f, lambda e: e["model"]["encoder"].update(n_layers=2)), "missing: model."),
    ("fewer heads", lambda f: edit_config(f, lambda e: e["model"]["encoder"]["mixer"].update(n_heads=3)), "divisible"),
    ("absurd width", lambda f: edit_config(f, lambda e: e["model"].update(d_model=65536)), "of another shape"),
    ("absurd length", lambda f: edit_config(f, lambda e: e["model"].update(max_len=1 << 40)), "tripel.model.max_len"),
    (
        "absurd positions",
        lambda f: edit_config(f, lambda e: e["model"].update(max_len=1 << 20, d_model=65536)),
        "makes no sense",
    ),
    (
        "absurd vocabulary",
        lambda f: edit_config(f, lambda e: e["vocabulary"].update(source_size=1 << 24, target_size=1 << 24)),
        "of another shape",
    ),
    ("two sizes", lambda f: edit_config(f, lambda e: e["vocabulary"].update(source_size=99)), "one vocabulary"),
    ("wild id", lambda f: edit_config(f, lambda e: e["vocabulary"].update(start_id=10_000)), "token id 10000"),
    ("no weights", lambda f: (f / "model.safetensors").unlink(), "model.safetensors cannot be read"),
    ("weights flipped", lambda f: flip_bit(f / "model.safetensors"), "damaged"),
    ("weights cut off", lambda f: os.truncate(f / "model.safetensors", 500), "damaged"),
    ("tensor missing", lambda f: edit_weights(f, lambda t: t.pop("model.shared.weight")), "missing: model.shared"),
    ("tensor more", lambda f: edit_weights(f, lambda t: t.update(x=torch.ones(1))), "not expected: x"),
    (
        "integers",
        lambda f: edit_weights(f, lambda t: t.update({n: x.int() for n, x in t.items()})),
        "not floating-point numbers",
    ),
    ("no tokenizer", lambda f: (f / "tokenizer.json").unlink(), "has no tokenizer"),
    ("other tokenizer", lambda f: (f / "tokenizer.json").write_text("{}"), "tokenizer.json is damaged, or is not the"),
    ("recipe of bytes", lambda f: (f / "recipe.yaml").write_bytes(b"\xff\xfe"), "recipe.yaml cannot be read"),
]


@pytest.mark.parametrize(("harm", "message"), [h[1:] for h in HARMS], ids=[h[0] for h in HARMS])
def test_a_damaged_run_folder_is_refused_and_the_file_named(
    tmp_path: Path, tokenizers: TokenizerPair, harm: Callable[[Path], Any], message: str
) -> None:
    save(tmp_path, make_model(tokenizers), tokenizers)
    harm(tmp_path)
    with pytest.raises(CheckpointError) as caught:
        load_run(tmp_path)
    assert message in str(caught.value)
    assert str(tmp_path) in str(caught.value) or "tripel." in str(caught.value) or "vocabulary" in str(caught.value)
    assert caught.value.mend


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no such folder"):
        load_run(tmp_path / "nowhere")


def test_a_tokenizer_of_another_size_is_refused_when_saving_and_when_loading(
    tmp_path: Path, tokenizers: TokenizerPair, two_tokenizers: TokenizerPair
) -> None:
    small = TokenizerPair(two_tokenizers.source, two_tokenizers.source)
    with pytest.raises(CheckpointError, match="source tokenizer does not fit"):
        save(tmp_path, make_model(small), tokenizers)
    save(tmp_path, make_model(small), small)
    tokenizers.save(tmp_path)
    edit_config(tmp_path, lambda entry: None)
    with pytest.raises(CheckpointError, match="source tokenizer does not fit"):
        load_run(tmp_path)


def test_a_damaged_tokenizer_without_checksum_is_a_tokenizer_error(tmp_path: Path, tokenizers: TokenizerPair) -> None:
    save(tmp_path, make_model(tokenizers), tokenizers)
    edit_config(tmp_path, lambda entry: None)
    os.truncate(tmp_path / "tokenizer.json", 100)
    with pytest.raises(TokenizerError, match="damaged"):
        load_run(tmp_path)


def test_a_model_without_tokenizers_can_be_saved_and_its_weights_read(
    tmp_path: Path, tokenizers: TokenizerPair
) -> None:
    model = make_model(tokenizers)
    save(tmp_path, model, None)
    assert torch.equal(logits(load_model(tmp_path)), logits(model))
    with pytest.raises(CheckpointError, match="this model has no tokenizer"):
        load_run(tmp_path)


def test_a_json_file_that_is_too_long_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "JSON_LIMIT", 1000)
    (tmp_path / "a.json").write_text(json.dumps({"a": "b" * 1000}))
    with pytest.raises(CheckpointError, match="longer than 1 kB"):
        storage.read_json(tmp_path / "a.json")


@pytest.mark.parametrize(
    "header",
    [
        b"\xff" * 8,
        (1 << 40).to_bytes(8, "little"),
        (200).to_bytes(8, "little") + b'{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}',
        (91).to_bytes(8, "little")
        + b'{"a":{"dtype":"F32","shape":[4294967296,4294967296,4294967296],"data_offsets":[0,4]}}'.ljust(91),
        (60).to_bytes(8, "little") + b'{"a":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}}'.ljust(60) + b"1234",
        b"",
    ],
)
def test_a_header_with_absurd_sizes_is_refused_before_memory_is_asked_for(tmp_path: Path, header: bytes) -> None:
    (tmp_path / "x.safetensors").write_bytes(header)
    with pytest.raises(CheckpointError, match="damaged or cut off"):
        storage.read_tensors(tmp_path / "x.safetensors")


_WHOLE = safetensors.torch.save({"a": torch.arange(6.0).view(2, 3), "b": torch.ones(2, dtype=torch.bfloat16)})


@settings(max_examples=300, deadline=None)
@given(
    changes=st.dictionaries(st.integers(0, len(_WHOLE) - 1), st.integers(0, 255), max_size=4),
    length=st.one_of(st.just(len(_WHOLE)), st.integers(0, len(_WHOLE))),
)
def test_any_damage_to_a_file_of_tensors_is_an_error_a_stranger_understands_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, changes: dict[int, int], length: int
) -> None:
    data = bytearray(_WHOLE)
    for place, value in changes.items():
        data[place] = value
    file = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    file.write_bytes(data[:length])
    try:
        storage.read_tensors(file)
    except CheckpointError as error:
        assert error.mend
