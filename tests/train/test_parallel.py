"""Two gloo processes on the CPU make the same updates as one. They are started once, and do everything in turn."""

import os
import signal
import socket
import time

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from training_bench import Corpus, MemoryStore, make_loader, make_trainer, same, small_model, weights

from tripel.data.augment import AugmentConfig
from tripel.data.image_loader import ImageLoader
from tripel.errors import DeviceError
from tripel.models.build import build
from tripel.models.config import ImageVocabulary, ResNetConfig
from tripel.training import parallel
from tripel.training.optim import OptimConfig

GENTLE = OptimConfig(lr=1e-2, warmup_steps=0, eps=1e-3)
MUON = GENTLE.model_copy(update={"kind": "muon", "weight_decay": 0.1})
STEPS = 4
CPU = torch.device("cpu")


def plain(store=None, *, optim=GENTLE, **settings):
    """Four updates without dropout: what is compared between one process and two."""
    corpus = Corpus(60)
    loader = make_loader(lambda epoch: corpus, rank=parallel.rank(), world_size=parallel.world_size())
    trainer = make_trainer(small_model(), loader, optim=optim, steps=STEPS, store=store, **settings)
    trainer.fit()
    return trainer


def dropping(store, restore_from=None):
    """Six updates with dropout, each process with random numbers of its own."""
    corpus = Corpus(60)
    loader = make_loader(lambda epoch: corpus, rank=parallel.rank(), world_size=parallel.world_size())
    torch.manual_seed(parallel.rank() if restore_from is None else 99)
    model = small_model(dropout=0.3)
    torch.manual_seed(parallel.rank() if restore_from is None else 98)
    trainer = make_trainer(model, loader, optim=GENTLE, steps=6, store=store, ema=0.9)
    if restore_from is not None:
        trainer.restore(*restore_from)
    return trainer


class Noise:
    """Twenty pictures."""

    def __len__(self):
        return 20

    def pixels(self, rows):
        return np.stack([np.random.default_rng(row).integers(0, 256, (1, 8, 8), dtype=np.uint8) for row in rows])


def pictures(norm):
    """Three updates of a residual network on mixed pictures. group: what one picture makes does not depend on others."""
    torch.manual_seed(0)
    config = ResNetConfig(
        image_size=8, channels=1, stem="small", stem_width=4, depths=(1,), widths=(8,), norm=norm, n_groups=2
    )
    model = build(config, ImageVocabulary(labels=("a", "b"), mean=(0.5,), std=(0.3,)))
    loader = ImageLoader(
        Noise(), np.arange(20) % 2, AugmentConfig(flip=True, mixup=0.5), size=8, statistics=((0.5,), (0.3,)),
        rows_per_step=10, micro_rows=10, seed=1, rank=parallel.rank(), world_size=parallel.world_size(),
    )  # fmt: skip
    trainer = make_trainer(model, loader, optim=GENTLE, steps=3)
    trainer.fit()
    return trainer


def share(value):
    """What the main process has, on every process."""
    box = [value]
    torch.distributed.broadcast_object_list(box)
    return box[0]


def resumed_by_two():
    whole = dropping(MemoryStore())
    whole.fit()
    store = MemoryStore()
    first = dropping(store)
    if parallel.rank() == 1:  # the signal reaches one process only
        first.log.advance = lambda step: os.kill(os.getpid(), signal.SIGTERM) if step == 3 else None
    reason = first.fit().reason
    second = dropping(MemoryStore(), share(store.steps.get(3)))
    second.fit()
    return {
        "reason": reason,
        "stopped_at": first.progress.step,
        "saved": list(store.steps),
        "equal": same(weights(whole.model), weights(second.model)),
        "ema_equal": same(whole.average.tensors, second.average.tensors),
    }


def one_of_two(rank, port, folder):
    os.environ.update(
        WORLD_SIZE="2", RANK=str(rank), LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    torch.set_num_threads(1)
    parallel.begin(CPU)
    store = MemoryStore()
    trainer = plain(store, valid_every=2, average_last=2, patience=9, validate=lambda model: {"bleu": 1.0})
    x = torch.arange(3) + 10 * rank
    result = {
        "weights": weights(trainer.model),
        "tokens": trainer.progress.tokens,
        "stale": trainer.progress.stale,
        "saved": (list(store.steps), len(store.best), list(store.snapshots)),
        "rank": (parallel.rank(), parallel.world_size(), parallel.is_main()),
        "total": parallel.total(1.5 + rank, CPU),
        "any": (parallel.any_true(rank == 1, CPU), parallel.any_true(False, CPU)),
        "gather": [part.tolist() for part in parallel.gather(x)],
        "bfloat16": weights(plain(precision="bfloat16").model),
        "idle": weights(idle_process().model),
        "muon": weights(plain(optim=MUON).model),
        "pictures": weights(pictures("group").model),
        "batches": dict(pictures("batch").model.state_dict()),
        "order": in_order(rank, folder),
        "refused": refused(rank),
        "resumed": resumed_by_two(),
    }
    parallel.end()
    torch.save(result, os.path.join(folder, f"{rank}.pt"))


def in_order(rank, folder):
    """What a process finds that the main one wrote first, though it took its time."""
    path = os.path.join(folder, "made-once")
    with parallel.main_first(CPU):
        if rank == 0:
            time.sleep(0.2)
            with open(path, "w") as file:
                file.write("whole")
        with open(path) as file:
            return file.read()


def refused(rank):
    """How each process leaves a block in which the main one meets an error."""
    try:
        with parallel.main_first(CPU):
            if rank == 0:
                raise ValueError("only the main process knows")
            return "went on"
    except (ValueError, SystemExit) as error:
        return type(error).__name__, str(error)


def idle_process():
    """Each update has one micro-batch, so that one of two processes has nothing to do."""
    corpus = Corpus(20)
    loader = make_loader(
        lambda epoch: corpus, tokens_per_step=1000, micro_tokens=1000,
        rank=parallel.rank(), world_size=parallel.world_size(),
    )  # fmt: skip
    trainer = make_trainer(small_model(), loader, optim=GENTLE, steps=2)
    trainer.fit()
    return trainer


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(one_of_two, (port, str(folder)), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


def test_two_processes_make_the_same_updates_as_one(two):
    alone = plain()
    for name, tensor in weights(alone.model).items():
        torch.testing.assert_close(two[0]["weights"][name], tensor, rtol=0, atol=1e-6)
    assert two[0]["tokens"] == alone.progress.tokens


def test_two_processes_in_bfloat16_make_nearly_the_same_updates_as_one(two):
    alone = weights(plain(precision="bfloat16").model)
    start = weights(small_model())
    moved = torch.cat([(alone[name] - start[name]).flatten() for name in alone]).norm()
    apart = torch.cat([(alone[name] - two[0]["bfloat16"][name]).flatten() for name in alone]).norm()
    assert apart < 0.05 * moved


def test_two_processes_that_share_the_orthogonalising_make_the_same_updates_as_one(two):
    for name, tensor in weights(plain(optim=MUON).model).items():
        torch.testing.assert_close(two[0]["muon"][name], tensor, rtol=0, atol=1e-5)


def test_two_processes_make_the_same_updates_of_pictures_as_one(two):
    for name, tensor in weights(pictures("group").model).items():
        torch.testing.assert_close(two[0]["pictures"][name], tensor, rtol=0, atol=1e-6)


@pytest.mark.parametrize("key", ["weights", "bfloat16", "idle", "muon", "pictures", "batches"])
def test_all_processes_hold_the_same_weights(two, key):
    assert same(two[0][key], two[1][key])


def test_a_process_without_work_changes_nothing(two):
    for name, tensor in weights(idle_process().model).items():
        torch.testing.assert_close(two[0]["idle"][name], tensor, rtol=0, atol=1e-6)


def test_what_the_main_process_makes_first_the_others_find(two):
    assert [result["order"] for result in two] == ["whole", "whole"]


def test_an_error_of_the_main_process_is_its_own_and_ends_the_others_quietly(two):
    assert two[0]["refused"] == ("ValueError", "only the main process knows")
    assert two[1]["refused"] == ("SystemExit", "2")


def test_the_main_process_alone_writes(two):
    assert two[0]["saved"] == ([2, 4], 1, [2, 4])
    assert two[1]["saved"] == ([], 0, [])


def test_all_processes_count_the_same_validations_without_progress(two):
    assert [result["stale"] for result in two] == [1, 1]


def test_a_signal_to_one_process_saves_and_stops_all_of_them(two):
    for result in two:
        assert (result["resumed"]["reason"], result["resumed"]["stopped_at"]) == ("interrupted", 3)
    assert [result["resumed"]["saved"] for result in two] == [[3], []]


def test_two_processes_resume_bit_for_bit_each_with_its_own_random_numbers(two):
    for result in two:
        assert result["resumed"]["equal"] and result["resumed"]["ema_equal"]


def test_sums_and_gathers_go_over_all_processes(two):
    for rank, result in enumerate(two):
        assert result["rank"] == (rank, 2, rank == 0)
        assert result["total"] == 4.0
        assert result["any"] == (True, False)
        assert result["gather"] == [[0, 1, 2], [10, 11, 12]]


def test_one_process_is_the_identity():
    x = torch.ones(2)
    assert (parallel.rank(), parallel.world_size(), parallel.is_main()) == (0, 1, True)
    assert parallel.total(2.5, CPU) == 2.5
    assert parallel.gather(x)[0] is x
    parallel.begin(CPU)
    parallel.barrier()
    parallel.end()


def test_a_process_group_that_cannot_be_joined_is_explained(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(DeviceError, match="could not find each other"):
        parallel.begin(CPU)


def test_an_unusable_device_is_refused_with_what_can_be_used():
    with pytest.raises(DeviceError, match="'warp' is not usable here"):
        parallel.pick_device("warp")
    assert parallel.pick_device("cpu") == CPU
