"""Several processes: who am I, how many are we, and what all do together. `torchrun` sets the environment.

Two groups connect the processes. The default one carries what every step needs, gradients above all; a peer that is
silent in a step for `STEP_TIMEOUT` is dead. The other, always over gloo, carries all else: waiting, broadcasts and
gathered objects. There a process may rightly be late by hours, as when the first one indexes a large data set.
"""

from __future__ import annotations

import contextlib
import gc
import os
import platform
import time
import uuid
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from utils.commands.launcher import local_rank
from utils.errors import Aftermath, UserError

STEP_TIMEOUT = timedelta(minutes=10)
CONTROL_TIMEOUT = timedelta(hours=3)

T = TypeVar("T")
_control: Any = None  # the group for everything but steps; None while this process trains alone


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
    meeting = _meeting_place()
    if device.type == "cuda" and dist.is_nccl_available():
        torch.cuda.set_device(device)  # before anything is exchanged: NCCL would take GPU 0 in every process
        dist.init_process_group("nccl", timeout=STEP_TIMEOUT, device_id=device, **meeting)
    else:
        dist.init_process_group("gloo", timeout=STEP_TIMEOUT, **meeting)
    _control = dist.new_group(backend="gloo", timeout=CONTROL_TIMEOUT)


def _meeting_place() -> dict[str, Any]:
    """Where the processes find each other, as arguments of torch's `init_process_group`; none: as it does by itself.

    By itself it takes the store that `torchrun` keeps for its whole life. When that starts its processes again, they
    find the addresses of dead ones there, and may try those. So the main process opens a store that lives as long as it
    does, and `torchrun`'s only tells where. An older entry leads to a dead process, or to a store with another secret.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return {}
    host = os.environ["MASTER_ADDR"]
    board = dist.TCPStore(host, int(os.environ["MASTER_PORT"]), is_master=False, timeout=STEP_TIMEOUT)
    if is_main_process():
        secret = uuid.uuid4().hex
        store = dist.TCPStore(host, 0, is_master=True, wait_for_workers=False, timeout=STEP_TIMEOUT)
        store.set("secret", secret)
        board.set("meeting place", f"{store.port} {secret}")
    else:
        store = _find_store(host, board)
    return {"store": store, "rank": rank(), "world_size": world_size()}


def _find_store(host: str, board: Any) -> Any:
    deadline = time.monotonic() + STEP_TIMEOUT.total_seconds()
    while time.monotonic() < deadline:
        port, secret = board.get("meeting place").decode().split()
        with contextlib.suppress(dist.DistError):
            store = dist.TCPStore(host, int(port), is_master=False, timeout=timedelta(seconds=2))
            if store.check(["secret"]) and store.get("secret").decode() == secret:
                store.set_timeout(STEP_TIMEOUT)
                return store
        time.sleep(0.2)
    raise Aftermath(f"the main process was not found at {host} within {STEP_TIMEOUT}")


def destroy_process_group() -> None:
    """Leave the others, after all have come as far as this. Only for a clean end: it waits for every process.

    What still holds on to the group, as `DistributedDataParallel` does, should be gone before: the threads of a group
    end with its last holder. Under load, about one in five runs was seen to abort at its end while a group was left
    otherwise ("terminate called without an active exception": what C++ says of a thread that is dropped while it
    runs). Which thread that was is not known; that it was one of the group's is a guess.
    """
    global _control
    if _control is not None:
        barrier()
        gc.collect()
        dist.destroy_process_group()
        _control = None


@contextlib.contextmanager
def process_group(device: torch.device | None) -> Iterator[None]:
    """The block runs together with the other processes, on `device`; None: alone.

    The group is left on a clean end only. A process that fails keeps it, so that whatever ends the process ends the
    others' waiting for it. Raises `Aftermath` where another process has ended.
    """
    if device is None:
        yield
        return
    init_process_group(device)
    try:
        yield
        destroy_process_group()
    except RuntimeError as error:
        if not is_lost_peer(error):
            raise
        raise Aftermath(f"another process ended ({str(error).splitlines()[0]})") from error


def is_lost_peer(error: RuntimeError) -> bool:
    """True for what torch raises where another process is gone, or silent for too long."""
    return isinstance(error, dist.DistError) or any(word in str(error).lower() for word in ("gloo", "closed by peer"))


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
    """Marks that are equal for processes that see each other: those of the host, its boot and its process numbers."""
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


def de_parallel(model: torch.nn.Module) -> torch.nn.Module:
    """The network inside a data-parallel wrapper, distributed or not, or `model` itself where there is no wrapper."""
    wrappers = (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)
    return model.module if isinstance(model, wrappers) else model
