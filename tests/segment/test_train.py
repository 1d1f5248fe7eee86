"""segment/train.py from the outside: what it writes, which flags it has beside train.py's, and going on."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from models.checkpoints.checkpoint import load_checkpoint
from models.loading import load_model
from segment import train, val
from tests.trainings import rows, short_training, train_killed_in
from utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
LOSSES = ["box_loss", "seg_loss", "obj_loss", "cls_loss"]
METRICS = ["precision", "recall", "mAP_0.5", "mAP_0.5:0.95"]
COLUMNS = [
    "epoch",
    *(f"train/{name}" for name in LOSSES),
    *(f"metrics/{name}{group}" for group in ("(B)", "(M)") for name in METRICS),
    *(f"val/{name}" for name in LOSSES),
    *(f"x/lr{i}" for i in range(3)),
]


@pytest.fixture
def options(tiny_polygons: Path, tmp_path: Path) -> dict[str, Any]:
    return short_training("yolov5n_MobileNetv2-seg.yaml", tiny_polygons, tmp_path)


def test_a_training_writes_what_yolov5s_users_expect(options: dict[str, Any], tmp_path: Path) -> None:
    result = train.run(**{**options, "noplots": False})
    folder = tmp_path / "runs" / "exp"
    table = rows(folder)
    assert table[0] == COLUMNS
    assert [row[0] for row in table[1:]] == ["0", "1"]
    assert np.isfinite(np.array(table[1:], float)).all()
    assert float(table[1][2]) > 0, "the mask loss"
    written = {p.name for p in folder.iterdir()}
    assert {"hyp.yaml", "opt.yaml", "results.png", "labels.jpg", "train_batch0.jpg"} <= written
    assert {f"{group}{curve}_curve.png" for group in ("Box", "Mask") for curve in ("PR", "F1", "P", "R")} <= written
    assert {"val_batch0_labels.jpg", "val_batch0_pred.jpg", "confusion_matrix.png"} <= written
    assert len(result.groups) == 2
    assert load_model(str(folder / "weights" / "best.pt")).task == "segment"
    assert load_checkpoint(folder / "weights" / "last.pt").task == "segment"


def test_training_and_validation_print_the_same_numbers(options: dict[str, Any], tmp_path: Path) -> None:
    """Of last.pt, in batches as large as those of the validation in the training: to the last digit that is printed."""
    train.run(**{**options, "epochs": 12, "hyp": {"nbs": 4, "lr0": 0.02, "warmup_epochs": 0.0}})
    folder = tmp_path / "runs" / "exp"
    during = [float(value) for value in rows(folder)[-1][5:13]]
    summary = val.run(
        weights=str(folder / "weights" / "last.pt"), data=options["data"], imgsz=64, batch_size=8, workers=0,
        project=str(tmp_path / "val"), no_plots=True, device="cpu",
    )  # fmt: skip
    assert sum(during) > 0
    assert [f"{value:.5g}" for value in summary.metrics[:8]] == [f"{value:.5g}" for value in during]


@pytest.mark.parametrize(
    "flags",
    [
        {"no_overlap": True},
        {"mask_ratio": 2},
        {"mask_ratio": 1, "rect": True},
        {"quad": True},
        {"quad": True, "no_overlap": True},
        {"multi_scale": True},
        {"image_weights": True},
        {"single_cls": True},
        {"workers": 2},
        {"hyp": {"nbs": 4, "copy_paste": 0.5, "mixup": 0.5}},
        {"hyp": {"nbs": 4, "copy_paste": 0.5}, "no_overlap": True},
    ],
    ids=str,
)
def test_ways_of_feeding(options: dict[str, Any], tmp_path: Path, flags: dict[str, Any]) -> None:
    train.run(**{**options, "epochs": 1, **flags})
    table = rows(tmp_path / "runs" / "exp")
    assert len(table) == 2
    assert np.isfinite(np.array(table[1], float)).all()


def test_images_without_objects(options: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    for i in range(4):
        cv2.imwrite(str(folder / "images" / f"{i}.png"), np.full((64, 64, 3), 90 + i, np.uint8))
        (folder / "labels" / f"{i}.txt").write_text("0 0.2 0.2 0.8 0.2 0.5 0.9\n" if i == 0 else "")
    data = tmp_path / "empty.yaml"
    data.write_text("path: empty\ntrain: images\nval: images\nnames: [thing]\n")
    train.run(**{**options, "data": str(data), "epochs": 1, "batch_size": 1, "hyp": {"mosaic": 0.0}})
    assert np.isfinite(np.array(rows(tmp_path / "runs" / "exp")[1], float)).all()


@pytest.mark.parametrize("cfg", ["yolov5n_MobileNetv2-seg.yaml", ""])
def test_a_detector_lends_what_fits(
    options: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], cfg: str
) -> None:
    """With --cfg, or alone: then the segmenter is the detector with another head."""
    import train as detection

    data = options["data"]
    detection.run(**{**options, "cfg": "yolov5n_MobileNetv2.yaml", "data": data, "epochs": 1, "name": "boxes"})
    capsys.readouterr()
    weights = str(tmp_path / "runs" / "boxes" / "weights" / "best.pt")
    train.run(**{**options, "cfg": cfg, "weights": weights, "epochs": 1})
    found = re.search(r"Transferred (\d+)/(\d+)", capsys.readouterr().out)
    assert found
    assert 0.9 < int(found[1]) / int(found[2]) < 1  # all but the head's outputs and the prototypes
    stored = load_checkpoint(tmp_path / "runs" / "exp" / "weights" / "best.pt")
    assert (stored.task, stored.cfg["head"][-1][2]) == ("segment", "Segment")


def test_resume_continues_as_if_nothing_had_happened(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {**options, "mask_ratio": 2, "no_overlap": True}
    train.run(**options)
    train_killed_in(1, options, monkeypatch, train.run)
    straight, broken = tmp_path / "runs" / "exp", tmp_path / "runs" / "exp2"
    assert load_checkpoint(broken / "weights" / "last.pt").epoch == 0
    train.run(resume=str(broken / "weights" / "last.pt"))
    assert rows(broken) == rows(straight)
    a, b = (load_checkpoint(folder / "weights" / "last.pt") for folder in (straight, broken))
    for key, value in a.state_dict.items():
        torch.testing.assert_close(b.state_dict[key], value, msg=key)


def test_resuming_with_the_other_command(options: dict[str, Any], tmp_path: Path) -> None:
    import train as detection

    train.run(**{**options, "epochs": 1})
    with pytest.raises(UserError, match=r"a segment model; the command for it is python segment/train.py"):
        detection.run(resume=str(tmp_path / "runs" / "exp" / "weights" / "last.pt"))


@pytest.mark.parametrize("command", ["train", "val", "predict"])
def test_runs_as_a_script_from_anywhere(command: str, tmp_path: Path) -> None:
    words = [sys.executable, str(ROOT / "segment" / f"{command}.py"), "--help"]
    assert "usage: " in subprocess.run(words, capture_output=True, text=True, check=True, cwd=tmp_path).stdout


def test_the_three_commands_are_short() -> None:
    """What differs from detection lives in the task, the head, the loss and the drawing."""
    lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in (ROOT / "segment").glob("*.py"))
    assert lines < 250


def test_losses_names_and_weights_of_a_training(options: dict[str, Any], tmp_path: Path) -> None:
    """opt.yaml holds the two flags of segmentation, so that a resumed training knows them."""
    train.run(**{**options, "epochs": 1, "mask_ratio": 2})
    stored = load_checkpoint(tmp_path / "runs" / "exp" / "weights" / "last.pt").opt
    assert stored["mask_ratio"] == 2
    assert stored["no_overlap"] is False
