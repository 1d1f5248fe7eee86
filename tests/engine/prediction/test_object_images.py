"""Crops on disk; masks as PNG: which value a pixel has, and how many bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.prediction.object_images import CropFiles, MaskFiles
from engine.prediction.outputs import FrameResult
from tests.media import pixels
from utils.data.sources.frame import Frame
from utils.data.sources.image_io import read_image
from utils.ops.masks import BoxMask

NAMES = {0: "cat", 1: "dog"}


def result(
    masks: list[BoxMask], classes: list[int], kind: str = "image", size: tuple[int, int] = (4, 6)
) -> FrameResult:
    frame = Frame("folder/ü.jpg", np.zeros((*size, 3), np.uint8), kind, 7 if kind == "video" else 0)  # type: ignore[arg-type]
    n = len(masks)
    confidences = np.linspace(0.9, 0.1, n).astype(np.float32)
    return FrameResult(frame, "ü", np.zeros((n, 4), np.float32), confidences, np.array(classes, np.int64), masks)


def filled(left: int, top: int, width: int, height: int) -> BoxMask:
    return BoxMask(left, top, np.ones((height, width), bool))


def test_classes_and_instances_with_the_surest_on_top(tmp_path: Path) -> None:
    corner = BoxMask(4, 2, np.array([[False, True], [True, False]]))
    MaskFiles(tmp_path / "m", NAMES).write(result([filled(1, 0, 2, 3), filled(0, 1, 4, 2), corner], [0, 1, 0]), None)
    assert pixels(tmp_path / "m" / "ü_instances.png").tolist() == [
        [0, 1, 1, 0, 0, 0],
        [2, 1, 1, 2, 0, 0],
        [2, 1, 1, 2, 0, 3],
        [0, 0, 0, 0, 3, 0],
    ]
    assert pixels(tmp_path / "m" / "ü_classes.png").tolist() == [
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
    assert pixels(tmp_path / "ü_7_instances.png").sum() == 2  # keeps its number, the second detection
    assert pixels(tmp_path / "ü_instances.png").tolist() == pixels(tmp_path / "ü_classes.png").tolist() == [[0] * 6] * 4


@pytest.mark.parametrize(("count", "dtype"), [(255, np.uint8), (256, np.uint16)])
def test_sixteen_bits_where_eight_do_not_do(tmp_path: Path, count: int, dtype: type) -> None:
    """255 detections, and class numbers up to 254, fit in a byte beside the background."""
    masks = [filled(i % 20, i // 20, 1, 1) for i in range(count)]
    classes = list(range(count))
    MaskFiles(tmp_path, dict.fromkeys(classes, "thing")).write(result(masks, classes, size=(13, 20)), None)
    for kind in ("instances", "classes"):
        image = pixels(tmp_path / f"ü_{kind}.png")
        assert image.dtype == dtype
        assert image.ravel().tolist() == [*range(1, count + 1), *[0] * (260 - count)]


def test_bits_follow_what_each_picture_needs(tmp_path: Path) -> None:
    MaskFiles(tmp_path, dict.fromkeys(range(300), "thing")).write(result([filled(0, 0, 1, 1)], [299]), None)
    assert pixels(tmp_path / "ü_instances.png").dtype == np.uint8
    classes = pixels(tmp_path / "ü_classes.png")
    assert classes.dtype == np.uint16  # the same for all pictures of a model
    assert classes.max() == 300


# --- crops ------------------------------------------------------------------------------------------------------------

CROP_NAMES = {0: "a/b", 1: "..", 2: "person"}


def three_boxes() -> FrameResult:
    boxes = np.array([[20, 30, 60, 60], [100, 40, 150, 90], [104, 44, 154, 94]], np.float32)
    classes, confidences = np.array([0, 2, 2]), np.array([0.9, 0.8, 0.7], np.float32)
    return FrameResult(Frame("x.png", np.full((100, 200, 3), 50, np.uint8)), "x", boxes, confidences, classes)


def one_box(cls: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.array([[1, 1, 7, 7]], np.float32), np.array([0.5], np.float32), np.array([cls])


def test_crops_by_class_with_safe_names(tmp_path: Path) -> None:
    crops = CropFiles(tmp_path, CROP_NAMES)
    crops.write(three_boxes(), None)
    crops.write(FrameResult(Frame("y.png", np.zeros((9, 9, 3), np.uint8)), "y", *one_box(1)), None)
    found = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.jpg"))
    assert found == ["_/y.jpg", "a_b/x.jpg", "person/x.jpg", "person/x2.jpg"]
    assert read_image(tmp_path / "a_b" / "x.jpg").shape == (41, 51, 3)  # 40·1.02 + 10 by 30·1.02 + 10, to whole pixels


def test_no_crop_replaces_another(tmp_path: Path) -> None:
    """The second crop of 1.png is 12.jpg; the first of 12.png has to give way."""
    crops = CropFiles(tmp_path, CROP_NAMES)
    boxes = np.array([[1, 1, 7, 7]] * 3, np.float32)
    for value, name, count in ((50, "1", 2), (200, "12", 3)):
        frame = Frame(f"{name}.png", np.full((9, 9, 3), value, np.uint8))
        crops.write(
            FrameResult(frame, name, boxes[:count], np.full(count, 0.5, np.float32), np.zeros(count, int)), None
        )
    found = {path.name: int(read_image(path).mean()) for path in tmp_path.rglob("*.jpg")}
    assert found == {"1.jpg": 50, "12.jpg": 50, "122.jpg": 200, "123.jpg": 200, "124.jpg": 200}


def test_crops_with_masks_are_transparent_around_the_object(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (100, 200, 3), np.uint8)
    shape = rng.random((30, 40)) > 0.5
    boxes = np.array([[20, 30, 60, 60], [0, 40, 40, 100], [5, 5, 9, 9]], np.float32)
    masks = [
        BoxMask(20, 30, shape),
        BoxMask(0, 40, np.ones((60, 40), bool)),
        BoxMask(5, 5, np.zeros((4, 4), bool)),
    ]
    item = FrameResult(Frame("é.jpg", image), "é", boxes, np.float32([0.9, 0.8, 0.7]), np.array([0, 2, 2]), masks)
    CropFiles(tmp_path, CROP_NAMES).write(item, None)
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.*")) == ["a_b/é.png", "person/é.png"]
    inner = pixels(tmp_path / "a_b" / "é.png")  # 40·1.02 + 10 by 30·1.02 + 10 around (40, 45): from (14.6, 24.7)
    assert np.array_equal(inner[..., :3], image[24:65, 14:65])
    assert np.array_equal(inner[6:36, 6:46, 3], shape * 255)
    assert inner[..., 3].sum() == shape.sum() * 255
    corner = pixels(tmp_path / "person" / "é.png")  # cut by the picture's edges
    assert np.array_equal(corner[..., :3], image[34:100, 0:45])
    assert corner[6:, :40, 3].min() == 255
    assert corner[..., 3].sum() == 60 * 40 * 255
