"""Two processes that validate together find what one finds, to the last digit."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.task import DetectionTask
from engine.validation.statistics import BatchStatistics, ImageStatistics, ValidationStatistics, merge_statistics
from engine.validation.validator import compute_result
from models.checkpoints.checkpoint import load_checkpoint
from tests.engine.validation.process import CASES

ROOT = Path(__file__).resolve().parents[3]


def run_together(script: Path, *words: str) -> None:
    """Run ``python script words`` as two processes of one group, and wait for both."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), *words],
            env={**os.environ, **shared, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "RANK": r, "LOCAL_RANK": r},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for r in "01"
    ]
    try:
        outputs = [process.communicate(timeout=600)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0, output


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """The folder of all cases' pictures, and what the two processes found."""
    folder = tmp_path_factory.mktemp("validations")
    run_together(Path(__file__).with_name("process.py"), str(folder))
    return folder, [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize(("name", "batches"), CASES)
def test_the_figures_are_those_of_one_process(
    found: tuple[Path, list[dict[str, Any]]], name: str, batches: int
) -> None:
    """Boxes and masks, with many detections of equal confidence; a batch more in the first, or none in the second."""
    _, processes = found
    first, second = (process[f"{name}{batches}"] for process in processes)
    assert first["together"] == first["alone"]
    assert second["together"] == first["alone"], "both know the result"
    assert float.fromhex(first["alone"]["means"][3]) > 0
    assert first["alone"]["counts"][0] == 2 * batches


def test_pictures_are_the_main_processs(found: tuple[Path, list[dict[str, Any]]]) -> None:
    """The confusion matrix is that of all images."""
    folder, _ = found
    written = {path.name for path in (folder / "together").iterdir()}
    assert {"val_batch0_pred.jpg", "val_batch2_labels.jpg", "confusion_matrix.png", "PR_curve.png"} <= written
    assert (folder / "together" / "confusion_matrix.csv").read_text() == (folder / "alone.csv").read_text()


def test_the_order_of_the_batches_decides_between_equals() -> None:
    """Of four detections of one confidence two are right: which come first is worth a quarter of the precision."""

    def batch(right: bool) -> BatchStatistics:
        image = ImageStatistics((np.full((2, 10), right),), np.full(2, 0.5), np.zeros(2), np.zeros(2))
        return BatchStatistics(np.full(3, 0.1 + right, np.float32), [image])

    first, second = ValidationStatistics([batch(True), batch(False)]), ValidationStatistics([batch(False)])
    alone = ValidationStatistics([batch(True), batch(False), batch(False)])
    task = DetectionTask()
    together, expected = (
        compute_result(statistics, 1, task) for statistics in (merge_statistics([first, second]), alone)
    )
    assert together.means == expected.means
    assert together.losses == expected.losses
    assert compute_result(merge_statistics([second, first]), 1, task).means != expected.means


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_training_is_the_same_whoever_validates(tiny_data: Path, tmp_path: Path) -> None:
    """With both processes or the first alone: one table, one best.pt, one closing validation. The images are 6, in
    batches of 2, so that the first process has a batch more."""
    script = ROOT / "tests" / "engine" / "training" / "validating_process.py"
    for who in ("all", "one"):
        run_together(script, str(tmp_path), str(tiny_data), who)
    tables = {}
    for who in ("all", "one"):
        names = ("results.csv", "confusion_matrix.csv")
        tables[who] = [(tmp_path / who / name).read_text() for name in names]
    assert tables["all"] == tables["one"]
    assert len(tables["all"][0].splitlines()) == 3
    both = [load_checkpoint(tmp_path / who / "weights" / "best.pt").state_dict for who in ("all", "one")]
    assert all(torch.equal(both[1][key], value) for key, value in both[0].items())
    first, second = (torch.load(tmp_path / f"all-{rank}.pt") for rank in range(2))
    for own, other in zip(first, second, strict=True):
        assert all(torch.equal(other[key], value) for key, value in own.items()), "all validate the same weights"
