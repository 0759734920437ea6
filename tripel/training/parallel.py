"""Several processes under torchrun, from outside the model: who am I, sums over all, and averaged gradients.

Nothing else in Tripel asks whether it is distributed. With one process every function is the identity.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor

from tripel.errors import DeviceError


def begin(device: torch.device) -> None:
    """Join the process group that torchrun describes in the environment; nothing without torchrun."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        try:
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        except Exception as error:
            raise DeviceError(
                "the processes could not find each other",
                given=f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}: {error}",
                expected="all processes started by one torchrun command",
                mend="start with: torchrun --nproc-per-node N -m tripel train ...",
            ) from error


def end() -> None:
    """Leave the process group."""
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    """This process's number, 0 when alone."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """The number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this process writes files and talks."""
    return rank() == 0


def total(value: float, device: torch.device) -> float:
    """The sum of a number over all processes."""
    if world_size() == 1:
        return value
    x = torch.tensor(value, dtype=torch.float64, device=device)
    dist.all_reduce(x)
    return x.item()


def any_true(flag: bool, device: torch.device) -> bool:
    """Whether any process says True: they stop together."""
    return total(float(flag), device) > 0


@contextmanager
def main_first(device: torch.device) -> Iterator[None]:
    """The main process goes through the block before the others do. If it fails there, it alone says why: the others
    end with exit status 2 and without a word. Nothing in the block may wait for other processes."""
    if world_size() == 1:
        yield
    elif is_main():
        try:
            yield
        except BaseException:
            any_true(True, device)
            raise
        any_true(False, device)
    else:
        if any_true(False, device):
            raise SystemExit(2)
        yield


def sum_gradients(parameters: Iterable[Tensor]) -> None:
    """Add up gradients over all processes, in one message."""
    if world_size() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    start = 0
    for g in gradients:
        g.copy_(flat[start : start + g.numel()].view_as(g))
        start += g.numel()


def average(tensors: list[Tensor]) -> None:
    """Make each tensor the mean of all processes', in one message."""
    if world_size() == 1 or not tensors:
        return
    flat = torch.cat([x.flatten() for x in tensors])
    dist.all_reduce(flat)
    flat /= world_size()
    for x, mean in zip(tensors, flat.split([x.numel() for x in tensors]), strict=True):
        x.copy_(mean.view_as(x))


def gather(x: Tensor) -> list[Tensor]:
    """The tensors of all processes (of one shape), in order of rank, on every process."""
    if world_size() == 1:
        return [x]
    parts = [torch.empty_like(x) for _ in range(world_size())]
    dist.all_gather(parts, x)
    return parts


def gather_named(tensors: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """The tensors of all processes by name, on the CPU, in order of rank; each may have others, of other shapes."""
    mine = {name: x.cpu() for name, x in tensors.items()}
    if world_size() == 1:
        return [mine]
    parts: list[dict[str, Tensor]] = [{} for _ in range(world_size())]
    dist.all_gather_object(parts, mine)
    return parts


def barrier() -> None:
    """Wait for all."""
    if world_size() > 1:
        dist.barrier()


def pick_device(name: str) -> torch.device:
    """`auto` is the first GPU if there is one (the local rank's under torchrun), else the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and torch.cuda.is_available():
        local = int(os.environ.get("LOCAL_RANK", "0"))
        torch.cuda.set_device(local)
        return torch.device("cuda", local)
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise DeviceError(
            f"the device {name!r} is not usable here",
            given=str(error).splitlines()[0],
            expected="cpu, or cuda on a machine with a GPU and a CUDA build of PyTorch",
            mend="use --set train.device=cpu, or see `tripel doctor`",
        ) from error
    return device
