"""segment/val.py: what it writes, what it says, and how far it is from the official evaluator."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from segment import train, val
from utils.data.indexing.index import build_index
from utils.data.indexing.labels import parse_labels
from utils.data.rasterize import rasterize
from utils.ops.masks import mask_iou

SMALL = {
    "nc": 2,
    "depth_multiple": 1.0,
    "width_multiple": 1.0,
    "anchors": [[20, 20, 30, 30], [40, 40, 60, 60]],
    "backbone": [
        [-1, 1, "Conv", [16, 6, 2, 2]],
        [-1, 1, "Conv", [24, 3, 2]],
        [-1, 1, "Conv", [32, 3, 2]],
        [-1, 1, "C3", [32]],
        [-1, 1, "Conv", [48, 3, 2]],
        [-1, 1, "SPPF", [48, 5]],
    ],
    "head": [[[3, 5], 1, "Segment", ["nc", "anchors", 8, 16]]],
}


@pytest.fixture(scope="module")
def weights(tiny_polygons: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A very small network that has learnt to tell the shapes: some seconds' worth."""
    folder = tmp_path_factory.mktemp("trained")
    cfg = folder / "small.yaml"
    cfg.write_text(yaml.safe_dump(SMALL), encoding="utf-8")
    train.run(
        cfg=str(cfg), data=str(tiny_polygons), imgsz=[96], batch_size=4, epochs=80, workers=0,
        device="cpu", project=str(folder), noplots=True, noval=True, optimizer="AdamW",
        hyp={"nbs": 4, "lr0": 0.01, "warmup_epochs": 1.0, "mosaic": 0.0, "scale": 0.1, "translate": 0.05, "hsv_h": 0.0,
             "cls": 2.0, "obj": 2.0},
    )  # fmt: skip
    return folder / "exp" / "weights" / "best.pt"


@pytest.fixture
def quick(tmp_path: Path, weights: Path, tiny_polygons: Path) -> dict[str, Any]:
    return {
        "weights": str(weights), "data": str(tiny_polygons), "imgsz": 96, "batch_size": 4, "workers": 0,
        "device": "cpu", "project": str(tmp_path / "runs"),
    }  # fmt: skip


def test_eight_figures_and_four_losses(quick: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    metrics, maps, speeds = val.run(**quick)
    assert len(metrics) == 8 + 4
    assert metrics[8:] == (0, 0, 0, 0)
    assert metrics[2] > 0.8, "the fixture has learnt too little to test with"
    assert metrics[6] > 0.8
    assert maps.shape == (2,)
    assert maps.mean() == pytest.approx((metrics[3] + metrics[7]) / 2)
    assert len(speeds) == 3
    out = capsys.readouterr()
    assert re.search(r"Class.*P\(B\).*mAP50-95\(B\).*P\(M\).*mAP50-95\(M\)", out.out + out.err)


def test_what_is_written(quick: dict[str, Any], tmp_path: Path) -> None:
    val.run(**quick, save_txt=True, save_conf=True)
    folder = tmp_path / "runs" / "exp"
    written = {path.name for path in folder.iterdir()}
    assert {f"{group}{curve}_curve.png" for group in ("Box", "Mask") for curve in ("PR", "F1", "P", "R")} <= written
    assert {"val_batch0_labels.jpg", "val_batch0_pred.jpg", "confusion_matrix.png"} <= written
    with (folder / "metrics_per_class.csv").open(newline="") as file:
        header, *table = list(csv.reader(file))
    assert header[4:] == [f"{m}{g}" for g in ("(B)", "(M)") for m in ("precision", "recall", "f1", "mAP50", "mAP50-95")]
    assert [row[1] for row in table] == ["triangle", "square"]
    rows = [line.split() for path in (folder / "labels").iterdir() for line in path.read_text().splitlines()]
    assert rows
    for row in rows:
        assert len(row) % 2 == 0, "class, pairs of coordinates, confidence"
        assert len(row) >= 1 + 2 * 3 + 1
        assert all(0 <= float(v) <= 1 for v in row[1:])


def test_saved_outlines_are_labels(quick: dict[str, Any], tmp_path: Path, tiny_polygons: Path) -> None:
    """What --save-txt writes is read back as polygons, one object a row."""
    val.run(**quick, save_txt=True, conf_thres=0.3, no_plots=True)
    labels = tmp_path / "runs" / "exp" / "labels"
    images = labels.with_name("images")
    images.mkdir()
    for path in labels.iterdir():
        picture = tiny_polygons.parent / "images" / "val" / f"{path.stem}.png"
        (images / picture.name).write_bytes(picture.read_bytes())
    index = build_index([str(images)], 2, polygons=True)
    count = sum(len(path.read_text().splitlines()) for path in labels.iterdir())
    assert len(index.classes) == count > 0


@pytest.mark.parametrize("retina", [False, True])
def test_the_official_evaluator_agrees(
    quick: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], retina: bool
) -> None:
    metrics, _, _ = val.run(**quick, save_json=True, no_plots=True, retina_masks=retina)
    printed = capsys.readouterr().out
    found = re.findall(r"mAP50-95 official ([\d.]+), ours ([\d.]+), gap ([-+][\d.]+); mAP50 official ([\d.]+)", printed)
    assert len(found) == 2, "one line for bbox and one for segm"
    for (official, ours, gap, official50), mean, mean50 in zip(
        found, (metrics[3], metrics[7]), (metrics[2], metrics[6]), strict=True
    ):
        assert float(ours) == pytest.approx(mean, abs=1e-4)
        assert float(gap) == pytest.approx(float(official) - float(ours), abs=2e-4)
        assert abs(float(official) - mean) < 0.02  # six pictures: one detection is much
        assert abs(float(official50) - mean50) < 0.02
    rows = json.loads((tmp_path / "runs" / "exp" / "best_predictions.json").read_text())
    assert rows[0]["segmentation"]["size"] == [96, 96]
    assert isinstance(rows[0]["segmentation"]["counts"], str)


def test_flags_of_val(quick: dict[str, Any]) -> None:
    """Test-time augmentation, hybrid labels, one class: each runs and gives finite figures."""
    for flags in ({"augment": True}, {"save_hybrid": True}, {"single_cls": True}, {"task": "speed"}, {"half": True}):
        metrics, _, _ = val.run(**{**quick, "no_plots": True, **flags})
        assert np.isfinite(metrics).all(), flags
        if "augment" in flags:
            assert metrics[6] > 0.5, "masks of mirrored and shrunk views must come back to where they belong"


@pytest.mark.parametrize("flags", [{}, {"retina_masks": True}, {"augment": True}], ids=str)
def test_hybrid_labels_have_their_masks(
    quick: dict[str, Any], tmp_path: Path, tiny_polygons: Path, flags: dict[str, Any]
) -> None:
    """Labels as certain detections: all is found, and written with the outline that it has in the label file."""
    metrics, _, _ = val.run(**quick, save_hybrid=True, save_conf=True, no_plots=True, **flags)
    assert metrics[2] == pytest.approx(0.995)
    assert metrics[6] == pytest.approx(0.995)
    truth = tiny_polygons.parent / "labels" / "val" / "1.txt"
    size = (96, 96)
    known = parse_labels([truth.read_bytes()], ["1.txt"], polygons=True)
    written = (tmp_path / "runs" / "exp" / "labels" / "1.txt").read_text().splitlines()
    sure = [np.array(row.split()[1:-1], float).reshape(-1, 2) * 96 for row in written if row.endswith(" 1")]
    assert len(sure) == len(known.classes) == 2
    expected = rasterize(
        [points * 96 for points in np.split(known.polygons, np.cumsum(known.polygon_counts)[:-1])], size
    )
    iou = mask_iou(torch.from_numpy(expected), torch.from_numpy(rasterize(sure, size)))
    assert iou.amax(1).min() > 0.85  # to a part of a prototype's cell


def test_defaults() -> None:
    options = val.parse_opt([])
    assert (options.data, options.project) == ("data/shapes-seg.yaml", "runs/val-seg")
    assert options.retina_masks is False
