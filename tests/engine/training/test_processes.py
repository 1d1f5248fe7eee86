"""Two processes, each with half of a batch, find the gradients that one finds for the whole."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).with_name("process.py")
ROOT = Path(__file__).resolve().parents[3]


def start(task: str, folder: Path, **variables: int | str) -> subprocess.Popen[str]:
    kept = {key: value for key, value in os.environ.items() if key not in ("RANK", "LOCAL_RANK", "WORLD_SIZE")}
    environment = {
        **kept,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        **{key: str(value) for key, value in variables.items()},
    }
    command = [sys.executable, str(SCRIPT), task, str(folder)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.mark.parametrize("task", ["detect", "segment"])
def test_gradients_are_those_of_the_joint_batch(task: str, tmp_path: Path) -> None:
    together = {"WORLD_SIZE": 2, "MASTER_PORT": free_port()}
    processes = [start(task, tmp_path)]
    for rank in range(2):
        processes.append(start(task, tmp_path, **together, RANK=rank, LOCAL_RANK=rank, MASTER_ADDR="127.0.0.1"))
    for process in processes:
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output
    alone, first, second = (torch.load(tmp_path / f"{name}.pt") for name in ("1-0", "2-0", "2-1"))
    assert sum(float(value.abs().sum()) > 0 for value in alone.values()) > 40
    for key, value in alone.items():
        torch.testing.assert_close(first[key], value, rtol=1e-4, atol=1e-5)
        assert torch.equal(first[key], second[key]), "both processes step alike"
