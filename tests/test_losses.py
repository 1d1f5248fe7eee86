"""Every box loss trains the embedded data set."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import pytest

import train
from utils.data.shapes import NAMES, generate_shapes
from utils.losses.box import LOSSES, MEASURES


@pytest.fixture(scope="module")
def few_shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """YAML of 64 + 16 pictures of the embedded data set."""
    root = generate_shapes(tmp_path_factory.mktemp("shapes") / "shapes")
    for split, count in (("train", 64), ("val", 16)):
        images = sorted((root / "images" / split).iterdir())[:count]
        (root / f"{split}.txt").write_text("".join(f"{image}\n" for image in images), encoding="utf-8")
    yaml = root / "few.yaml"
    yaml.write_text(f"path: .\ntrain: train.txt\nval: val.txt\nnames: [{', '.join(NAMES)}]\n", encoding="utf-8")
    return yaml


@pytest.mark.slow
@pytest.mark.parametrize(
    "choice",
    [
        *({"iou_loss": name} for name in (*MEASURES, *LOSSES)),
        {"iou_loss": "eiou", "focal_iou": 0.5},
        {"qfl": True, "label_smoothing": 0.1},
    ],
    ids=lambda choice: "-".join(map(str, choice.values())),
)
def test_a_few_epochs_stay_finite(
    few_shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], choice: dict[str, Any]
) -> None:
    train.run(
        cfg="yolov5n_MobileNetv2.yaml", data=str(few_shapes), imgsz=[160], batch_size=4, epochs=4, workers=0,
        hyp={"nbs": 4, "lr0": 0.003, **choice}, optimizer="AdamW",
        device="cpu", project=str(tmp_path), noplots=True, noautoanchor=True,
    )  # fmt: skip
    with (tmp_path / "exp" / "results.csv").open(newline="") as file:
        epochs = list(csv.DictReader(file))
    assert len(epochs) == 4
    assert all(math.isfinite(float(value)) for epoch in epochs for value in epoch.values())
    assert "not finite" not in "".join(capsys.readouterr())
    box = [float(epoch["train/box_loss"]) for epoch in epochs]
    if "focal_iou" not in choice:  # whose weights grow with the overlap
        assert box[-1] < box[0]
