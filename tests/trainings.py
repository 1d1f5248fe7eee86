"""A training of a few seconds, and what it wrote."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import train
from engine.training.trainer import Trainer


@pytest.fixture
def options(tiny_data: Path, tmp_path: Path) -> dict[str, Any]:
    return short_training("yolov5n_MobileNetv2.yaml", tiny_data, tmp_path)


def short_training(cfg: str, data: Path, folder: Path) -> dict[str, Any]:
    """Options of a training of a few seconds that writes below `folder`."""
    return {
        "cfg": cfg,
        "data": str(data),
        "hyp": {"nbs": 4, "lr0": 0.01},
        "imgsz": [64],
        "batch_size": 4,
        "epochs": 2,
        "workers": 0,
        "device": "cpu",
        "project": str(folder / "runs"),
        "noplots": True,
        "noautoanchor": True,
    }


def rows(folder: Path) -> list[list[str]]:
    with (folder / "results.csv").open(newline="") as file:
        return list(csv.reader(file))


class Killed(BaseException):
    """Stands for kill -9: nothing in the code base may catch it."""


def train_killed_in(
    epoch: int, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, run: Callable[..., object] = train.run
) -> None:
    """Run a training that is killed at its second step of `epoch`."""
    step = Trainer.optimizer_step
    seen: list[int] = []

    def killing(self: Trainer) -> None:
        seen.append(1)
        if len(seen) > epoch * len(self.session.train_loader) + 1:
            raise Killed
        step(self)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Trainer, "optimizer_step", killing)
        run(**options)
