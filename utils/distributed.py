"""Several processes: who am I, how many are we, and what all must wait for. `torchrun` sets the environment."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from utils.errors import UserError


def local_rank() -> int:
    """Index of this process on its machine, -1 without `torchrun`."""
    return int(os.environ.get("LOCAL_RANK", -1))


def rank() -> int:
    """Index of this process among all, -1 without `torchrun`."""
    return int(os.environ.get("RANK", -1))


def world_size() -> int:
    """Number of processes that train together."""
    return int(os.environ.get("WORLD_SIZE", 1))


def is_main_process() -> bool:
    """True for the process that validates, logs and saves."""
    return rank() in (-1, 0)


def init_process_group(device: torch.device, timeout_minutes: float = 30.0) -> None:
    """Join the other processes. A peer that dies makes the rest fail after the timeout instead of hanging for ever."""
    if not dist.is_available():
        raise UserError("this build of torch has no torch.distributed; train with one process")
    if not dist.is_initialized():
        backend = "nccl" if device.type == "cuda" and dist.is_nccl_available() else "gloo"
        dist.init_process_group(backend, timeout=timedelta(minutes=timeout_minutes))


def destroy_process_group() -> None:
    """Leave the group, if there is one."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


@contextlib.contextmanager
def main_process_first() -> Iterator[None]:
    """The main process runs the block before the others do (it writes caches that they read)."""
    together = dist.is_available() and dist.is_initialized()
    if together and not is_main_process():
        dist.barrier()
    yield
    if together and is_main_process():
        dist.barrier()


def broadcast(value: Any) -> Any:
    """The main process's `value`, in every process."""
    if not (dist.is_available() and dist.is_initialized()):
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]
