from __future__ import annotations

import cv2
import numpy as np
import pytest

from utils.ops.polygons import clip_polygon, polygon_boxes


def area(points):
    x, y = points.T.astype(float)
    return abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def star(cx, cy, radius, points=9):
    angle = np.linspace(0, 2 * np.pi, 2 * points, endpoint=False)
    length = np.where(np.arange(2 * points) % 2, radius, radius / 3)
    return np.stack((cx + length * np.cos(angle), cy + length * np.sin(angle)), 1).astype(np.float32)


def test_boxes():
    assert polygon_boxes([np.array([[3, 4], [1, 9], [2, 2]]), np.zeros((0, 2))]).tolist() == [
        [1, 2, 3, 9],
        [0, 0, 0, 0],
    ]
    assert polygon_boxes([]).shape == (0, 4)


def test_inside_is_left_as_it_is():
    inside = star(50, 50, 40)
    assert clip_polygon(inside, (100, 100)) is inside


def test_around_the_image_gives_the_image():
    large = np.array([[-50, -60], [300, -70], [310, 400], [-40, 420]], np.float32)
    assert sorted(map(tuple, clip_polygon(large, (80, 100)).tolist())) == [(0, 0), (0, 80), (100, 0), (100, 80)]


def test_outside_gives_nothing():
    assert len(clip_polygon(star(500, 50, 40), (100, 100))) == 0


@pytest.mark.parametrize("seed", range(8))
def test_area_is_that_of_the_visible_part(seed):
    """Concave stars over the rim: counted in pixels, 32 times as fine."""
    rng = np.random.default_rng(seed)
    points = star(*rng.uniform(0, 100, 2), rng.uniform(30, 90))
    clipped = clip_polygon(points, (100, 100))
    canvas = np.zeros((3200, 3200), np.uint8)
    cv2.fillPoly(canvas, [np.rint(points * 32 * 16).astype(np.int32)], 1, shift=4)
    visible = canvas.sum() / 32**2
    assert area(clipped) == pytest.approx(visible, rel=0.01, abs=5)  # OpenCV adds half a pixel all around
    assert (clipped >= 0).all()
    assert (clipped <= 100).all()
    assert clipped.dtype == np.float32


def test_there_and_back_is_cut_at_the_same_point():
    """A bridge of no width between two parts must not open where the rim cuts it."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        a, b = rng.uniform(-80, 80, (2, 2)).astype(np.float32)
        forth, back = clip_polygon(np.array([a, b]), (60, 60)), clip_polygon(np.array([b, a]), (60, 60))
        assert {tuple(p) for p in forth} == {tuple(p) for p in back}
