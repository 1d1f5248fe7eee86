"""Freed memory goes back to the system."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import pytest

from utils.devices import return_free_memory

GLIBC = sys.platform == "linux" and hasattr(ctypes.CDLL(None), "malloc_trim")


def resident_mb() -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


@pytest.mark.skipif(not GLIBC, reason="only glibc keeps freed pages and can be told not to")
def test_pages_below_one_that_is_in_use_are_returned() -> None:
    blocks = [bytearray(100_000) for _ in range(2000)]  # too small for mappings of their own
    full = resident_mb()
    pin = blocks[-1]
    blocks.clear()
    return_free_memory()
    assert len(pin) == 100_000
    assert full - resident_mb() > 100


def test_it_does_nothing_where_it_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    return_free_memory()
