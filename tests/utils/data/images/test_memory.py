from __future__ import annotations

import multiprocessing
import os
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


def _exchange(shared: SharedBytes, ready) -> None:
    shared.array[1] = shared.array[0] + 1
    ready.set()


def test_a_process_started_anew_reads_and_writes_the_same_bytes(monkeypatch):
    """As on Python 3.14 and on other systems, where processes are not forked."""
    spawn = multiprocessing.get_context("spawn")
    with monkeypatch.context() as patch:
        patch.setattr(multiprocessing, "get_context", lambda: spawn)
        shared = SharedBytes(100_000_000, written_by_workers=True)
    shared.array[0] = 7
    ready = spawn.Event()
    process = spawn.Process(target=_exchange, args=(shared, ready))
    process.start()
    assert ready.wait(60)
    process.join()
    assert shared.array[:3].tolist() == [7, 8, 0]


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system does not fork")
@pytest.mark.parametrize("written", [False, True])
def test_a_forked_process_sees_the_bytes(monkeypatch, written):
    fork = multiprocessing.get_context("fork")
    with monkeypatch.context() as patch:
        patch.setattr(multiprocessing, "get_context", lambda: fork)
        shared = SharedBytes(100, written_by_workers=written)
    shared.array[0] = 7
    child = os.fork()
    if not child:
        shared.array[1] = shared.array[0] + 1
        os._exit(int(shared.array[1]))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 8
    if written:
        assert shared.array[1] == 8
