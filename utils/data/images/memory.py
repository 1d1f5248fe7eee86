"""Tells how much memory is free, and makes blocks of memory that processes share."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import multiprocessing
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from utils.commands.values import input_bytes, memory_text
from utils.errors import UserError


def available_memory() -> int | None:
    """The bytes that are available for a new cache, within the limit of the container. None if that is unknown."""
    limits = []
    with contextlib.suppress(OSError, StopIteration, IndexError, ValueError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        limits.append(next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")))
    with contextlib.suppress(OSError, ValueError):  # "max" is no number: no limit
        group = Path("/sys/fs/cgroup")
        limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
        statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        limits.append(limit - used + int(statistics.get("inactive_file", 0)))
    with contextlib.suppress(ImportError, OSError, ValueError, IndexError):  # `ulimit -v`; no such thing on Windows
        import resource

        if (allowed := resource.getrlimit(resource.RLIMIT_AS)[0]) != resource.RLIM_INFINITY:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            limits.append(max(0, allowed - pages * os.sysconf("SC_PAGE_SIZE")))
    if not limits:
        with contextlib.suppress(AttributeError, OSError, ValueError):
            limits.append(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(limits, default=None)


def check_memory(images: int, size: Sequence[int]) -> None:
    """Raise `UserError` if even the float input of a network, `images` of `size` (height, width), does not fit."""
    needed, available = input_bytes(images, size[0], size[1]), available_memory()
    if available is not None and needed > available:
        raise UserError(
            f"--imgsz {size[0]} {size[1]} in batches of {images} takes {memory_text(needed)} for the images alone, "
            f"and {memory_text(available)} are free; give a smaller --imgsz or --batch-size"
        )


class SharedBytes:
    """`count` bytes as a numpy array that this process and its workers share.

    Forked workers inherit it: either they only read what was there before they started, or (`written_by_workers`) both
    sides write to it. Neither kind counts against the size of /dev/shm, which is small in containers. Where processes
    are not forked, the standard library's shared arrays are used; these can be pickled only while a worker starts.
    """

    def __init__(self, count: int, written_by_workers: bool = False) -> None:
        self._shared: Any = None
        self.array: np.ndarray
        if multiprocessing.get_context().get_start_method() != "fork":
            self._shared = multiprocessing.RawArray(ctypes.c_uint8, max(count, 1))
            self.array = np.frombuffer(self._shared, np.uint8, count)
        elif written_by_workers:
            self.array = np.frombuffer(mmap.mmap(-1, max(count, 1)), np.uint8, count)
        else:
            self.array = np.empty(count, np.uint8)

    def __getstate__(self) -> tuple[Any, np.ndarray | None, int]:
        return self._shared, None if self._shared is not None else self.array, len(self.array)

    def __setstate__(self, state: tuple[Any, np.ndarray | None, int]) -> None:
        self._shared, array, count = state
        self.array = np.frombuffer(self._shared, np.uint8, count) if array is None else array


class MachineBytes:
    """`count` bytes as a numpy array that all processes of this machine and their workers share.

    It is a file in memory without a name. The system removes it when the last process ends, however it ends, and the
    size of /dev/shm does not matter.
    """

    def __init__(self, path: str, count: int) -> None:
        self._file = os.open(path, os.O_RDWR)
        if os.fstat(self._file).st_size != count:
            raise OSError(f"{path} is another file")
        self.array = np.frombuffer(mmap.mmap(self._file, count), np.uint8)

    def __getstate__(self) -> tuple[str, int]:
        return f"/proc/{os.getpid()}/fd/{self._file}", len(self.array)

    def __setstate__(self, state: tuple[str, int]) -> None:
        self.__init__(*state)  # type: ignore[misc]


def machine_bytes(count: int) -> MachineBytes | None:
    """`count` new bytes that all processes of this machine share. All that train together call this; 0 asks for none.

    Returns None in all processes of a machine if they cannot share memory: on other systems than Linux, or where a
    process must not open the files of another one.
    """
    from utils.distributed import machine_gather, rank

    file = None
    if machine_gather(rank())[0] == rank() and count and hasattr(os, "memfd_create"):
        file = os.memfd_create("images")
        os.ftruncate(file, count)
    path = machine_gather(None if file is None else f"/proc/{os.getpid()}/fd/{file}")[0]
    shared = None
    if path is not None:
        with contextlib.suppress(OSError):
            shared = MachineBytes(path, count)
    everywhere = all(machine_gather(shared is not None))
    if file is not None:
        os.close(file)
    return shared if everywhere else None
