"""Several processes: who am I, how many are we, and what all do together. `torchrun` sets the environment.

Two groups connect the processes. The default one carries what every step needs, gradients above all; a peer that is
silent in a step for `STEP_TIMEOUT` is dead. The other, always over gloo, carries all else: waiting, broadcasts and
gathered objects. There a process may rightly be late by hours, as when the first one indexes a large data set.
"""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from utils.errors import UserError

STEP_TIMEOUT = timedelta(minutes=10)
CONTROL_TIMEOUT = timedelta(hours=3)

T = TypeVar("T")
_control: Any = None  # the group for everything but steps; None while this process trains alone


def local_rank() -> int:
    """Index of this process on its machine, -1 without `torchrun`."""
    return int(os.environ.get("LOCAL_RANK", -1))


def rank() -> int:
    """Index of this process among all, -1 without `torchrun`."""
    return int(os.environ.get("RANK", -1))


def world_size() -> int:
    """Number of processes that train together, on all machines."""
    return int(os.environ.get("WORLD_SIZE", 1))


def local_world_size() -> int:
    """Number of processes that train together on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", world_size()))


def is_main_process() -> bool:
    """True for the one process that logs and saves."""
    return rank() in (-1, 0)


def is_first_of_machine() -> bool:
    """True for the one process of each machine that fetches, unpacks and writes caches."""
    return local_rank() in (-1, 0)


def init_process_group(device: torch.device) -> None:
    """Join the other processes; `device` is the one that this process computes on."""
    global _control
    if not dist.is_available():
        raise UserError("this build of torch has no torch.distributed; train with one process")
    if dist.is_initialized():
        return
    if device.type == "cuda" and dist.is_nccl_available():
        torch.cuda.set_device(device)  # before anything is exchanged: NCCL would take GPU 0 in every process
        dist.init_process_group("nccl", timeout=STEP_TIMEOUT, device_id=device)
    else:
        dist.init_process_group("gloo", timeout=STEP_TIMEOUT)
    _control = dist.new_group(backend="gloo", timeout=CONTROL_TIMEOUT)


def destroy_process_group() -> None:
    """Leave the others, after all have come as far as this. Only for a clean end: it waits for every process."""
    global _control
    if _control is not None:
        barrier()
        dist.destroy_process_group()
        _control = None


def barrier() -> None:
    """Wait until every process is here."""
    if _control is not None:
        dist.barrier(group=_control)


def broadcast(value: T) -> T:
    """The main process's `value`, in every process. Plain data and tensors on the CPU."""
    if _control is None:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0, group=_control)
    return box[0]


def gather(value: T) -> list[T] | None:
    """The values of all processes, by rank, in the main process; None in the others. Alone: ``[value]``."""
    if _control is None:
        return [value]
    values: list[Any] | None = [None] * world_size() if is_main_process() else None
    dist.gather_object(value, values, dst=0, group=_control)
    return values


def all_gather(value: T) -> list[T]:
    """The values of all processes, by rank, in every process. Alone: ``[value]``."""
    if _control is None:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value, group=_control)
    return values


def machine_gather(value: T) -> list[T]:
    """The values of all processes on this machine, in the same order in each of them. Alone: ``[value]``."""
    here = _machine()
    return [each for place, each in all_gather((here, value)) if place == here]


def _machine() -> tuple[str, ...]:
    """What processes have in common that see each other: the system that runs, and its numbers of processes."""
    marks = [platform.node()]
    with contextlib.suppress(OSError):  # Linux
        marks.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        marks.append(os.readlink("/proc/self/ns/pid"))
    return tuple(marks)


def broadcast_tensors(tensors: Iterable[torch.Tensor]) -> None:
    """Give `tensors`, of one device, the main process's values, in place; one message for each type of number."""
    if _control is None:
        return
    by_type: dict[torch.dtype, list[torch.Tensor]] = {}
    for tensor in tensors:
        by_type.setdefault(tensor.dtype, []).append(tensor.detach())
    for same in by_type.values():
        packed = torch.cat([tensor.flatten() for tensor in same])
        dist.broadcast(packed, src=0)
        for tensor, values in zip(same, packed.split([t.numel() for t in same]), strict=True):
            tensor.copy_(values.view(tensor.shape))


@contextlib.contextmanager
def main_process_first() -> Iterator[None]:
    """On each machine the first process runs the block before the others do: it writes the caches that they read."""
    if not is_first_of_machine():
        barrier()
    yield
    if is_first_of_machine():
        barrier()
