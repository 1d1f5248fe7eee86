"""train.py from the outside: what it writes."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

import train
from engine.task import DetectionTask
from models.checkpoints.checkpoint import load_checkpoint
from models.loading import load_model
from tests.trainings import options, rows
from utils.errors import UserError

__all__ = ["options"]  # the fixture

COLUMNS = [
    "epoch",
    "train/box_loss",
    "train/obj_loss",
    "train/cls_loss",
    "metrics/precision",
    "metrics/recall",
    "metrics/mAP_0.5",
    "metrics/mAP_0.5:0.95",
    "val/box_loss",
    "val/obj_loss",
    "val/cls_loss",
    "x/lr0",
    "x/lr1",
    "x/lr2",
]


def test_a_training_writes_what_yolov5s_users_expect(options: dict[str, Any], tmp_path: Path) -> None:
    result = train.run(**{**options, "noplots": False})
    folder = tmp_path / "runs" / "exp"
    table = rows(folder)
    assert table[0] == COLUMNS
    assert [row[0] for row in table[1:]] == ["0", "1"]
    assert all(float(value) == float(value) for row in table[1:] for value in row)
    written = {p.name for p in folder.iterdir()}
    assert {"hyp.yaml", "opt.yaml", "results.png", "labels.jpg", "train_batch0.jpg"} <= written
    assert {"PR_curve.png", "F1_curve.png", "P_curve.png", "R_curve.png", "confusion_matrix.png"} <= written
    assert {"val_batch0_labels.jpg", "val_batch0_pred.jpg"} <= written
    last, best = (torch.load(folder / "weights" / f"{n}.pt", weights_only=True) for n in ("last", "best"))
    assert last["epoch"] == 1
    assert last["optimizer"] is not None
    assert best["optimizer"] is None
    assert {v.dtype for v in best["state_dict"].values() if v.is_floating_point()} == {torch.float16}
    model = load_model(str(folder / "weights" / "best.pt"))
    assert model.names == {0: "light", 1: "dark"}
    assert 0 <= result.metrics.map50 <= 1


@pytest.mark.slow
def test_losses_fall(options: dict[str, Any], tmp_path: Path) -> None:
    hyp = {"nbs": 4, "mosaic": 0.0, "scale": 0.1, "lr0": 0.003}
    train.run(**{**options, "epochs": 80, "noval": True, "optimizer": "AdamW", "hyp": hyp})
    table = rows(tmp_path / "runs" / "exp")[1:]
    for column in (1, 3):  # box and class; the objectness target is the IoU reached, so that loss may rise with skill
        assert float(table[-1][column]) < 0.9 * float(table[0][column]), table[0][column]


def test_the_same_seed_gives_the_same_training(options: dict[str, Any], tmp_path: Path) -> None:
    for seed in (1, 1, 2):
        train.run(**{**options, "epochs": 1, "seed": seed})
    a, b, c = (rows(tmp_path / "runs" / name)[1][1:4] for name in ("exp", "exp2", "exp3"))
    assert a == b != c


@pytest.mark.parametrize("flags", [{"rect": True}, {"quad": True}, {"multi_scale": True}, {"image_weights": True}])
def test_ways_of_feeding(options: dict[str, Any], tmp_path: Path, flags: dict[str, bool]) -> None:
    train.run(**{**options, "epochs": 1, **flags})
    assert len(rows(tmp_path / "runs" / "exp")) == 2


def test_two_sizes_cosine_adamw_single_class_and_smoothing(options: dict[str, Any], tmp_path: Path) -> None:
    extra = {"imgsz": [64, 96], "cos_lr": True, "optimizer": "AdamW", "single_cls": True, "label_smoothing": 0.1}
    train.run(**{**options, **extra})
    checkpoint = load_checkpoint(tmp_path / "runs" / "exp" / "weights" / "last.pt")
    assert checkpoint.names == {0: "item"}
    assert checkpoint.extra["imgsz"] == [64, 96]
    assert checkpoint.hyp["label_smoothing"] == 0.1


def test_frozen_rows_stay_bit_identical(options: dict[str, Any], tmp_path: Path) -> None:
    train.run(**{**options, "epochs": 1, "nosave": False, "name": "a"})
    start = tmp_path / "runs" / "a" / "weights" / "last.pt"
    train.run(**{**options, "epochs": 2, "cfg": "", "weights": str(start), "freeze": [5], "name": "b"})
    before, after = (load_checkpoint(tmp_path / "runs" / n / "weights" / "last.pt") for n in ("a", "b"))
    frozen = [k for k in before.ema if int(k.split(".")[1]) < 5]
    assert len(frozen) > 20
    for key in frozen:
        assert torch.equal(before.ema[key], after.state_dict[key]), key
    assert any(not torch.equal(before.ema[k], after.state_dict[k]) for k in before.ema if k not in frozen)


def test_patience_stops(options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fitnesses = iter([0.5, 0.4, 0.3, 0.2, 0.1])
    monkeypatch.setattr("engine.validation.validator.fitness", lambda metrics: next(fitnesses))
    train.run(**{**options, "epochs": 5, "patience": 2})
    assert [row[0] for row in rows(tmp_path / "runs" / "exp")[1:]] == ["0", "1", "2"]


def test_non_finite_losses_are_named_and_skipped(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = itertools.count()
    whole = DetectionTask.loss

    def loss(self: DetectionTask, *arguments: Any) -> Any:
        total, parts = whole(self, *arguments)
        if torch.is_grad_enabled() and next(steps) > 4:  # in the second epoch
            return total * float("nan"), parts * float("nan")
        return total, parts

    monkeypatch.setattr(DetectionTask, "loss", loss)
    with pytest.raises(UserError, match=r"epoch 4, batch \d+: loss is not finite \(box nan, .*10 batches in a row"):
        train.run(**{**options, "epochs": 30, "noval": True})
    last = load_checkpoint(tmp_path / "runs" / "exp" / "weights" / "last.pt")
    assert all(torch.isfinite(v).all() for v in last.ema.values())
    assert capsys.readouterr().err.count("this batch is skipped") == 9


def test_evolve_searches_and_records(options: dict[str, Any], tmp_path: Path) -> None:
    best = train.run(**{**options, "epochs": 1, "evolve": 2})
    with (tmp_path / "runs" / "exp" / "evolve.csv").open(newline="") as file:
        table = list(csv.reader(file))
    assert len(table) == 3
    assert table[0][0] == "fitness"
    assert table[1] != table[2]
    assert (tmp_path / "runs" / "exp" / "hyp_evolve.yaml").is_file()
    assert best["lr0"] > 0


def test_save_period_and_nosave(options: dict[str, Any], tmp_path: Path) -> None:
    train.run(**{**options, "epochs": 3, "save_period": 2, "noval": True})
    assert (tmp_path / "runs" / "exp" / "weights" / "epoch2.pt").is_file()
    assert not (tmp_path / "runs" / "exp" / "weights" / "epoch1.pt").is_file()
    train.run(**{**options, "nosave": True, "noval": True, "epochs": 1})
    assert (tmp_path / "runs" / "exp2" / "weights" / "last.pt").is_file()
