"""What two processes compute together is what one computes alone (scenes of `process.py`)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

SCRIPT = Path(__file__).with_name("process.py")
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with what the processes of all scenes found; all of them have come to a clean end."""
    folder = tmp_path_factory.mktemp("scenes")
    kept = {key: value for key, value in os.environ.items() if key not in ("RANK", "LOCAL_RANK", "WORLD_SIZE")}
    environment = {**kept, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(SCRIPT), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    assert (done.returncode, done.stdout) == (0, ""), f"{done.stdout}\n{done.stderr}"
    return folder


def found(folder: Path, scene: str, processes: int = 2) -> list[Any]:
    return [torch.load(folder / f"{scene}-{processes}-{number}.pt") for number in range(processes)]


@pytest.mark.parametrize("scene", ["detect", "segment", "accumulated"])
def test_gradients_are_those_of_the_joint_batch(scenes: Path, scene: str) -> None:
    (alone,), (first, second) = found(scenes, scene, 1), found(scenes, scene)
    assert sum(float(value.abs().sum()) > 0 for value in alone["gradients"].values()) > 40
    for key, value in alone["gradients"].items():
        torch.testing.assert_close(first["gradients"][key], value, rtol=1e-4, atol=1e-5)
        assert torch.equal(first["gradients"][key], second["gradients"][key]), "both processes step alike"


@pytest.mark.parametrize("scene", ["detect", "accumulated"])
def test_gradients_are_exchanged_once_a_step(scenes: Path, scene: str) -> None:
    for process in found(scenes, scene):
        assert len(process["exchanges"]) == 1


def test_a_batch_that_one_refuses_all_skip(scenes: Path) -> None:
    assert found(scenes, "refusal") == [2, 2]


def test_each_process_has_its_own_generators(scenes: Path) -> None:
    first, second = found(scenes, "generators")
    assert first["first"] != second["first"]
    for process in (first, second):
        assert process["again"] == process["first"], "saved and restored"
        assert process["anew"] == process["seeded"], "those of another number of processes are of no use"
    assert first["anew"] != second["anew"]


def test_objects_travel(scenes: Path) -> None:
    first, second = found(scenes, "exchange")
    assert first["gather"] is not None
    assert second["gather"] is None
    for process in (first, second):
        assert process["broadcast"]["rank"] == 0
        for values in (process["all_gather"], first["gather"]):
            assert [value["rank"] for value in values] == [0, 1]
            assert [value["tensor"].tolist() for value in values] == [[0] * 3, [1] * 3]


def test_the_main_process_goes_first(scenes: Path) -> None:
    assert [process["found"] for process in found(scenes, "exchange")] == [False, True]
