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

from engine.task import DetectionTask
from engine.validation.tally import BatchTally, Judged, Tally, merged
from engine.validator import result_of
from tests.engine.validation.process import CASES, DRAWN

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
    outputs = [process.communicate(timeout=300)[0] for process in processes]
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
    together, alone = (found[0] / "".join(map(str, DRAWN)) / way for way in ("together", "alone"))
    written = {path.name for path in together.iterdir()}
    assert {"val_batch0_pred.jpg", "val_batch2_labels.jpg", "confusion_matrix.png", "MaskPR_curve.png"} <= written
    assert (together / "confusion_matrix.csv").read_text() == (alone / "confusion_matrix.csv").read_text()


def test_the_order_of_the_batches_decides_between_equals() -> None:
    """Of four detections of one confidence two are right: which come first is worth a quarter of the precision."""

    def batch(right: bool) -> BatchTally:
        image = Judged((np.full((2, 10), right),), np.full(2, 0.5), np.zeros(2), np.zeros(2))
        return BatchTally(np.full(3, 0.1 + right, np.float32), [image])

    first, second = Tally([batch(True), batch(False)]), Tally([batch(False)])
    alone = Tally([batch(True), batch(False), batch(False)])
    task = DetectionTask()
    together, expected = (result_of(tally, 1, task) for tally in (merged([first, second]), alone))
    assert together.means == expected.means
    assert together.losses == expected.losses
    assert result_of(merged([second, first]), 1, task).means != expected.means
