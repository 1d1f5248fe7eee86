"""How much memory is free, and a block of it that worker processes share."""

from __future__ import annotations

import contextlib
import mmap
import multiprocessing
import os
import tempfile
import weakref
from pathlib import Path

import numpy as np


def available_memory() -> int | None:
    """Bytes that a new cache may take: what the system calls available, within the container's limit. None: unknown."""
    limits = []
    with contextlib.suppress(OSError, IndexError, ValueError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        limits.append(next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")))
    with contextlib.suppress(OSError, ValueError):  # "max" is no number: no limit
        group = Path("/sys/fs/cgroup")
        limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
        statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        limits.append(limit - used + int(statistics.get("inactive_file", 0)))
    if not limits:
        with contextlib.suppress(AttributeError, OSError, ValueError):
            limits.append(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(limits, default=None)


class SharedBytes:
    """`count` bytes as a numpy array that worker processes read without having a copy each.

    Forked workers see the parent's memory as it is. Others are given the name of a temporary file that all map.
    """

    def __init__(self, count: int) -> None:
        self._file: str | None = None
        if multiprocessing.get_context().get_start_method() == "fork":
            self.array = np.empty(count, np.uint8)
            return
        handle, self._file = tempfile.mkstemp(prefix="images-", suffix=".cache")
        os.truncate(handle, max(count, mmap.PAGESIZE))
        os.close(handle)
        self.array = np.memmap(self._file, np.uint8, "r+", shape=(count,))
        weakref.finalize(self, _remove, self._file)

    def __getstate__(self) -> tuple[str | None, int, np.ndarray | None]:
        return self._file, len(self.array), None if self._file else self.array

    def __setstate__(self, state: tuple[str | None, int, np.ndarray | None]) -> None:
        self._file, count, array = state
        self.array = np.memmap(self._file, np.uint8, "r", shape=(count,)) if array is None else array  # type: ignore


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):  # another system may not let go of a mapped file
        os.unlink(path)
