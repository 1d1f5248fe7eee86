"""Masks as PNG: which value a pixel has, and how many bits."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.prediction.masks import MaskFiles
from engine.prediction.result import Result
from utils.data.sources.frame import Frame
from utils.ops.masks import BoxMask

NAMES = {0: "cat", 1: "dog"}


def result(masks: list[BoxMask], classes: list[int], kind: str = "image", size: tuple[int, int] = (4, 6)) -> Result:
    frame = Frame("folder/ü.jpg", np.zeros((*size, 3), np.uint8), kind, 7 if kind == "video" else 0)  # type: ignore[arg-type]
    n = len(masks)
    confidences = np.linspace(0.9, 0.1, n).astype(np.float32)
    return Result(frame, "ü", np.zeros((n, 4), np.float32), confidences, np.array(classes, np.int64), masks)


def read(path: Path) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)


def filled(left: int, top: int, width: int, height: int) -> BoxMask:
    return BoxMask(left, top, np.ones((height, width), bool))


def test_classes_and_instances_with_the_surest_on_top(tmp_path: Path) -> None:
    corner = BoxMask(4, 2, np.array([[False, True], [True, False]]))
    MaskFiles(tmp_path / "m", NAMES).write(result([filled(1, 0, 2, 3), filled(0, 1, 4, 2), corner], [0, 1, 0]), None)
    assert read(tmp_path / "m" / "ü_instances.png").tolist() == [
        [0, 1, 1, 0, 0, 0],
        [2, 1, 1, 2, 0, 0],
        [2, 1, 1, 2, 0, 3],
        [0, 0, 0, 0, 3, 0],
    ]
    assert read(tmp_path / "m" / "ü_classes.png").tolist() == [
        [0, 1, 1, 0, 0, 0],
        [2, 1, 1, 2, 0, 0],
        [2, 1, 1, 2, 0, 1],
        [0, 0, 0, 0, 1, 0],
    ]


def test_frames_of_a_video_and_empty_masks(tmp_path: Path) -> None:
    empty = BoxMask(6, 0, np.zeros((0, 0), bool))
    MaskFiles(tmp_path, NAMES).write(result([empty, filled(0, 0, 1, 1)], [1, 1], "video"), None)
    MaskFiles(tmp_path, NAMES).write(result([], []), None)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "ü_7_classes.png",
        "ü_7_instances.png",
        "ü_classes.png",
        "ü_instances.png",
    ]
    assert read(tmp_path / "ü_7_instances.png").sum() == 2  # keeps its number, the second detection
    assert read(tmp_path / "ü_instances.png").tolist() == read(tmp_path / "ü_classes.png").tolist() == [[0] * 6] * 4


@pytest.mark.parametrize(("count", "dtype"), [(255, np.uint8), (256, np.uint16)])
def test_sixteen_bits_where_eight_do_not_do(tmp_path: Path, count: int, dtype: type) -> None:
    """255 detections, and class numbers up to 254, fit in a byte beside the background."""
    masks = [filled(i % 20, i // 20, 1, 1) for i in range(count)]
    classes = list(range(count))
    MaskFiles(tmp_path, dict.fromkeys(classes, "thing")).write(result(masks, classes, size=(13, 20)), None)
    for kind in ("instances", "classes"):
        image = read(tmp_path / f"ü_{kind}.png")
        assert image.dtype == dtype
        assert image.ravel().tolist() == [*range(1, count + 1), *[0] * (260 - count)]


def test_bits_follow_what_each_picture_needs(tmp_path: Path) -> None:
    MaskFiles(tmp_path, dict.fromkeys(range(300), "thing")).write(result([filled(0, 0, 1, 1)], [299]), None)
    assert read(tmp_path / "ü_instances.png").dtype == np.uint8
    classes = read(tmp_path / "ü_classes.png")
    assert classes.dtype == np.uint16  # the same for all pictures of a model
    assert classes.max() == 300
