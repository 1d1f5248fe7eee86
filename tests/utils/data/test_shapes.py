"""The embedded data set: geometry against plain arithmetic, the promised variety, a folder that is never half there."""

from __future__ import annotations

import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from utils.data import shapes
from utils.data.indexing.index import build_index
from utils.data.shapes import NAMES, DrawnImage, draw_image, generate_shapes
from utils.errors import UserError


@pytest.fixture(scope="module")
def drawn_images() -> list[DrawnImage]:
    return [draw_image(np.random.default_rng([shapes.VERSION, 0, i])) for i in range(60)]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "SPLITS", {"train": 6, "val": 3})


def area(polygon: np.ndarray) -> float:
    x, y = polygon.T
    return abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2


def test_same_seed_same_picture(drawn_images: list[DrawnImage]) -> None:
    again = draw_image(np.random.default_rng([shapes.VERSION, 0, 7]))
    np.testing.assert_array_equal(again.image, drawn_images[7].image)
    assert again.classes == drawn_images[7].classes
    assert not np.array_equal(drawn_images[7].image, drawn_images[8].image)


def test_variety(drawn_images: list[DrawnImage]) -> None:
    counts = [len(drawn.classes) for drawn in drawn_images]
    assert 0 in counts
    assert max(counts) >= 7
    assert 3 < np.mean(counts) < 6
    per_class = np.bincount([c for drawn in drawn_images for c in drawn.classes], minlength=len(NAMES))
    assert per_class.min() > 0.15 * per_class.sum()
    assert len({drawn.image.shape for drawn in drawn_images}) >= 4
    sizes = np.array([np.ptp(p, 0).max() / min(one.image.shape[:2]) for one in drawn_images for p in one.polygons])
    assert 0.05 - 1e-9 <= sizes.min() < 0.08
    assert 0.35 < sizes.max() <= 0.40 + 1e-9


def test_outlines_are_inside_and_have_the_form_of_their_class(drawn_images: list[DrawnImage]) -> None:
    corners = {"circle": 36, "square": 4, "triangle": 3, "star": 10}
    for drawn in drawn_images:
        h, w = drawn.image.shape[:2]
        for number, polygon in zip(drawn.classes, drawn.polygons, strict=True):
            assert len(polygon) == corners[NAMES[number]]
            assert (polygon >= 0).all()
            assert (polygon <= (w, h)).all()
            hull = float(cv2.contourArea(cv2.convexHull(polygon.astype(np.float32))))
            convexity = area(polygon) / hull
            assert (convexity < 0.6) == (NAMES[number] == "star")


def test_paint_covers_what_the_outline_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Area of the painted pixels against the shoelace formula, their extent against the polygon's."""
    painted: list[tuple[np.ndarray, np.ndarray]] = []
    paint = shapes._paint

    def record(rng, image, polygon, mask):
        painted.append((polygon, mask))
        paint(rng, image, polygon, mask)

    monkeypatch.setattr(shapes, "_paint", record)
    for i in range(10):
        draw_image(np.random.default_rng([9, i]))
    assert len(painted) > 20
    for polygon, mask in painted:
        length = np.linalg.norm(polygon - np.roll(polygon, 1, 0), axis=1).sum()
        assert abs(mask.sum() / 255 - area(polygon)) < 0.002 * area(polygon) + 0.1 * length
        ys, xs = np.nonzero(mask)
        extent = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
        assert np.abs(extent - np.concatenate((polygon.min(0), polygon.max(0)))).max() < 1.2


def test_no_object_is_mostly_hidden_and_some_overlap(drawn_images: list[DrawnImage]) -> None:
    overlaps = 0
    for drawn in drawn_images:
        h, w = drawn.image.shape[:2]
        owner = np.full((h, w), -1, np.int32)
        for j, polygon in enumerate(drawn.polygons):
            cv2.fillPoly(owner, [np.round(polygon - 0.5).astype(np.int32)], j)
        for j, polygon in enumerate(drawn.polygons):
            alone = np.zeros((h, w), np.uint8)
            cv2.fillPoly(alone, [np.round(polygon - 0.5).astype(np.int32)], 1)
            seen = ((owner == j) & (alone > 0)).sum() / alone.sum()
            assert seen > 0.6
            overlaps += seen < 0.98
    assert overlaps > 10


def test_colour_does_not_tell_the_class(drawn_images: list[DrawnImage]) -> None:
    """Mean hue of each class spreads round the whole circle."""
    hues: dict[int, list[float]] = {}
    for drawn in drawn_images:
        hsv = cv2.cvtColor(drawn.image, cv2.COLOR_BGR2HSV)
        for number, polygon in zip(drawn.classes, drawn.polygons, strict=True):
            x, y = polygon.mean(0).astype(int)
            hues.setdefault(number, []).append(float(hsv[y, x, 0]) * np.pi / 90)
    for values in hues.values():
        assert abs(np.exp(1j * np.array(values)).mean()) < 0.4  # 1 would be one colour


def test_folder_that_the_index_reads(few, tmp_path: Path, capsys) -> None:
    folder = generate_shapes(tmp_path / "sets" / "shapes")
    assert sorted(p.name for p in (folder / "images").iterdir()) == ["train", "val"]
    for split, count in (("train", 6), ("val", 3)):
        index = build_index([folder / "images" / split], len(NAMES), polygons=True)
        assert len(index) == count
        for i in range(count):
            drawn = draw_image(np.random.default_rng([shapes.VERSION, ["train", "val"].index(split), i]))
            rows = index.label_slice(i)
            assert index.classes[rows].tolist() == drawn.classes
            h, w = drawn.image.shape[:2]
            assert tuple(index.shapes[i]) == (h, w)
            for j, polygon in zip(range(rows.start, rows.stop), drawn.polygons, strict=True):
                np.testing.assert_allclose(index.polygon(j) * (w, h), polygon, atol=0.01)
                box = np.concatenate(((polygon.min(0) + polygon.max(0)) / 2, np.ptp(polygon, 0))) / (w, h, w, h)
                np.testing.assert_allclose(index.boxes[j], box, atol=3e-5)
            stored = cv2.imread(index.path(i))
            assert np.abs(stored.astype(float) - drawn.image).mean() < 12  # what JPEG leaves of the grain
    assert "without a label file" not in capsys.readouterr().out  # empty images have empty files


def test_drawn_once_and_again_for_a_new_version(few, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = generate_shapes(tmp_path / "shapes")
    first = {p.name: p.stat().st_mtime_ns for p in folder.rglob("*.jpg")}
    generate_shapes(folder)
    assert {p.name: p.stat().st_mtime_ns for p in folder.rglob("*.jpg")} == first
    (folder / "old").touch()
    monkeypatch.setattr(shapes, "VERSION", shapes.VERSION + 1)
    generate_shapes(folder)
    assert not (folder / "old").exists()
    assert len(list(folder.rglob("*.jpg"))) == 9
    assert [p.name for p in tmp_path.iterdir()] == ["shapes"]


def test_interruption_leaves_nothing(few, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(rng):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shapes, "draw_image", stop)
        with pytest.raises(KeyboardInterrupt):
            generate_shapes(tmp_path / "shapes")
    assert list(tmp_path.iterdir()) == []
    generate_shapes(tmp_path / "shapes")


def test_two_at_once(few, tmp_path: Path) -> None:
    failures: list[BaseException] = []

    def work() -> None:
        try:
            generate_shapes(tmp_path / "shapes")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(list((tmp_path / "shapes").rglob("*.jpg"))) == 9
    assert [p.name for p in tmp_path.iterdir()] == ["shapes"]


def test_somebody_elses_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "shapes").mkdir()
    (tmp_path / "shapes" / "mine.jpg").touch()
    with pytest.raises(UserError, match="will not be overwritten"):
        generate_shapes(tmp_path / "shapes")
    assert (tmp_path / "shapes" / "mine.jpg").exists()


def test_no_place_to_draw(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="YOLOv5_DATASETS_DIR"):
        generate_shapes(tmp_path / "file" / "shapes")
