from __future__ import annotations

import multiprocessing
import pickle
import sys
from pathlib import Path

import pytest

from utils.data.images.memory import SharedBytes, available_memory


@pytest.mark.skipif(sys.platform != "linux", reason="/proc/meminfo is Linux's")
def test_available_memory_is_below_the_machines():
    total = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    found = available_memory()
    assert found is not None
    assert 0 < found <= total


def test_a_forked_process_sees_the_bytes():
    shared = SharedBytes(100)
    shared.array[:] = 7
    assert shared.array.shape == (100,)
    assert pickle.loads(pickle.dumps(shared)).array.tolist() == [7] * 100


def test_another_start_method_shares_a_file(monkeypatch):
    class Spawning:
        @staticmethod
        def get_start_method():
            return "spawn"

    monkeypatch.setattr(multiprocessing, "get_context", Spawning)
    shared = SharedBytes(10_000_000)
    shared.array[:] = 7
    pickled = pickle.dumps(shared)
    assert len(pickled) < 1000  # a name, not the bytes
    other = pickle.loads(pickled)
    shared.array[5] = 9
    assert (other.array[4], other.array[5]) == (7, 9)
    name = Path(shared._file)
    assert name.exists()
    del shared
    assert not name.exists()
