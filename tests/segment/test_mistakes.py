"""Deliberate mistakes of segmentation: one clear line each, nothing written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mistakes import FAST, Place, check_mistake


@pytest.fixture
def place(tmp_path: Path, tiny_data: Path, make_weights: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Place:
    """`good.pt` is a detector, `masks.pt` a segmenter."""
    monkeypatch.chdir(tmp_path)
    make_weights("masks.pt", names=("light", "dark"), head="Segment")
    return Place(tmp_path, tiny_data, make_weights("good.pt", names=("light", "dark")))


def training(place: Place, *more: str) -> list[str]:
    return ["segment/train", "--cfg", "yolov5n_MobileNetv2-seg.yaml", "--data", str(place.yaml), *FAST, *more]


def labelled(place: Place, row: str) -> list[str]:
    place.label.write_text(f"0 0.1 0.1 0.5 0.1 0.3 0.6\n{row}\n")
    return training(place)


def boxes_only(place: Place) -> list[str]:
    """An official file of a detection data set."""
    content = {
        "images": [{"id": i, "file_name": f"{i}.png"} for i in range(6)],
        "annotations": [{"id": 7, "image_id": 0, "category_id": 1, "bbox": [1, 1, 9, 9], "area": 81, "iscrowd": 0}],
        "categories": [{"id": 1, "name": "light"}, {"id": 2, "name": "dark"}],
    }
    return [
        "segment/val", "--weights", "masks.pt", "--data", str(place.yaml), "--img", "64", "--save-json",
        "--coco-annotations", place.write("boxes.json", json.dumps(content)),
    ]  # fmt: skip


MISTAKES: dict[str, tuple[Callable[[Place], list[str]], str]] = {
    "a polygon of one point": (lambda p: labelled(p, "0 0.1 0.1"), "3.txt:2: 3 values"),
    "an odd number of coordinates": (lambda p: labelled(p, "0 0.1 0.1 0.5 0.1 0.3 0.6 0.2"), "3.txt:2: 8 values"),
    "not a number": (lambda p: labelled(p, "0 0.1 0.1 0.5 nan 0.3 0.6"), "3.txt:2: value nan is not finite"),
    "a word": (lambda p: labelled(p, "0 0.1 0.1 0.5 x 0.3 0.6"), "3.txt:2: 'x' is not a number"),
    "a class too many": (lambda p: labelled(p, "2 0.1 0.1 0.5 0.1 0.3 0.6"), "3.txt:2: class 2, but nc is 2"),
    "mask ratio 0": (lambda p: training(p, "--mask-ratio", "0"), "--mask-ratio: must be 1 or more, not 0"),
    "mask ratio below 0": (lambda p: training(p, "--mask-ratio", "-4"), "--mask-ratio: must be 1 or more, not -4"),
    "a mask ratio that is no number": (lambda p: training(p, "--mask-ratio", "half"), "--mask-ratio"),
    "a detector's network": (lambda p: [*training(p), "--cfg", "yolov5n.yaml"], "for the task 'detect'"),
    "a segmenter's network in train.py": (
        lambda p: ["train", *training(p)[1:], "--cfg", "yolov5n-seg.yaml"],
        "segment",
    ),
    "a detector in segment/val.py": (
        lambda p: ["segment/val", "--weights", str(p.weights), "--data", str(p.yaml), "--img", "64"],
        "good.pt: a detect model; the command for it is python val.py",
    ),
    "a detector in segment/predict.py": (
        lambda p: ["segment/predict", "--weights", str(p.weights), "--source", str(p.image)],
        "good.pt: a detect model; the command for it is python detect.py",
    ),
    "official annotations without outlines": (boxes_only, "boxes.json: 1 of 1 annotations have no segmentation"),
    "an unknown flag": (lambda p: training(p, "--overlap-mask"), "unknown argument '--overlap-mask'"),
    "no weights yet": (lambda p: ["segment/val", "--data", str(p.yaml)], "--weights"),
    "copy-paste out of range": (
        lambda p: training(p, "--hyp", p.write("h.yaml", "copy_paste: 1.5\n")),
        "h.yaml:1: copy_paste is 1.5",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_one_clear_line(name: str, place: Place, capfd: pytest.CaptureFixture[str]) -> None:
    mistake, told = MISTAKES[name]
    check_mistake(mistake(place), told, place, capfd)
