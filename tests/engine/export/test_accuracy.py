"""How good a file is: what `val.py` says of it, and the words about a file that lost too much."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import val
from engine.export import accuracy as module
from engine.export.accuracy import accuracy, accuracy_table, most_lost, report_loss
from engine.export.network import metadata_of
from engine.segmentation import SegmentationTask
from engine.task import DetectionTask
from engine.validation.report import LabelCounts
from engine.validation.validator import Speeds, ValidationResult
from models.loading import load_model
from segment import val as segment_val
from utils.metrics.detection import DetectionMetrics

Make = Callable[..., Path]
CPU = torch.device("cpu")


def result(*found: int, labels: int = 4) -> ValidationResult:
    """Of one class with `labels` objects: for each metric group, how many of them were found, all of them exactly."""
    groups = []
    for count in found:
        metrics = DetectionMetrics(1)
        metrics.update(
            torch.ones(count, 10, dtype=torch.bool), torch.ones(count), torch.zeros(count), torch.zeros(labels)
        )
        groups.append(metrics)
    return ValidationResult(tuple(groups), (), Speeds(0, 0, 0), LabelCounts.zeros(1))


@pytest.mark.parametrize("head", ["Detect", "Segment"])
def test_figures_are_those_of_the_validation_commands(
    head: str, make_weights: Make, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--task speed has square batches, too; at its confidence of 0.25 and IoU of 0.45."""
    data = request.getfixturevalue("tiny_data" if head == "Detect" else "tiny_polygons")
    weights = make_weights(names=("light", "dark"), head=head)
    command: Any = val if head == "Detect" else segment_val
    summary = command.run(
        weights=str(weights), data=str(data), imgsz=64, task="speed", workers=0, project=str(tmp_path / "runs")
    )
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    found = accuracy(weights, data, (64, 64), CPU, workers=0, conf_thres=0.25, iou_thres=0.45)
    assert found.means == pytest.approx(summary.metrics[: len(found.means)], abs=1e-6)
    assert len(found.means) == 4 if head == "Detect" else 8
    assert max(found.means) > 0
    np.testing.assert_allclose(found.maps, summary.maps, atol=1e-6)
    assert not list(Path().iterdir())  # no run folder


def test_what_is_lost_is_the_worse_of_boxes_and_masks() -> None:
    """Half of the objects found exactly: precision 1 up to recall 0.5, then the curve falls in a line to 0."""
    whole, half = result(4, 4), result(4, 2)
    assert most_lost(whole, whole) == 0
    assert whole.groups[0].map50 == pytest.approx(0.995)
    assert most_lost(whole, half) == pytest.approx(whole.groups[1].map50 - half.groups[1].map50)
    assert most_lost(half, whole) == 0  # better masks, and the same boxes
    table = accuracy_table({"best.pt": whole, "best.onnx": half}, SegmentationTask()).splitlines()
    assert table[0].split() == [f"{m}({g})" for g in "BM" for m in ("P", "R", "mAP50", "mAP50-95")]
    assert table[1].split() == ["best.pt", "1.000", "1.000", "0.995", "0.995", "1.000", "1.000", "0.995", "0.995"]
    assert table[2].split()[6] == "0.500"  # recall of the masks
    assert {len(line) for line in table} == {len(table[0])}
    assert accuracy_table({"x": result(4)}, DetectionTask()).split()[:4] == ["P", "R", "mAP50", "mAP50-95"]


def test_a_file_that_lost_much_gets_advice(
    make_weights: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model: Any = load_model(make_weights())
    metadata = metadata_of(model, imgsz=[64, 96], batch=1, dynamic=False, half=False, int8=True, layout="nms",
                   conf_thres=0.3, iou_thres=0.5, max_det=7)  # fmt: skip
    seen = []

    def scored(path: Path, data: str, size: tuple[int, int], device: torch.device, **more: Any) -> ValidationResult:
        seen.append((data, size, more))
        return result({"best.pt": 100, "good.onnx": 98, "bad.onnx": 90}[path.name], labels=100)

    monkeypatch.setattr(module, "accuracy", scored)
    report_loss(Path("best.pt"), [Path("good.onnx"), Path("bad.onnx")], "x.yaml", metadata, CPU)
    out, err = capsys.readouterr()
    assert "Before and after, on x.yaml at 64×96" in out
    assert [line.split()[0] for line in out.splitlines()[-3:]] == ["best.pt", "good.onnx", "bad.onnx"]
    assert "bad.onnx lost 0.0" in err
    assert "good.onnx" not in err
    limits = {"conf_thres": 0.3, "iou_thres": 0.5, "max_det": 7}
    assert seen == [("x.yaml", (64, 96), {"workers": 0, "trust": False, **limits})] * 3


def test_data_that_cannot_tell_is_no_mistake(
    make_weights: Make, tiny_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = make_weights(names=("a", "b", "c"))
    model: Any = load_model(weights)
    metadata = metadata_of(model, imgsz=[64, 64], batch=1, dynamic=False, half=False, int8=True, layout="decoded")
    report_loss(weights, [], str(tiny_data), metadata, CPU)
    assert "the accuracy in 8 bits was not measured: " in (err := capsys.readouterr().err)
    assert "detects 3 classes" in err
