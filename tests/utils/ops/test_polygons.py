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


def test_a_path_round_a_corner_leaves_no_bounds():
    """A wedge over the right edge whose far end lies below the picture, beyond the corner it does not reach."""
    wedge = np.array([[80, 10], [150, 30], [150, 200], [130, 200], [130, 40]], np.float32)
    clipped = clip_polygon(wedge, (100, 100))
    # the sides to the corners 150, 30 and 130, 40 cross x = 100 at these heights
    expected = [[80, 10], [100, 10 + 20 / 70 * 20], [100, 10 + 20 / 50 * 30]]
    np.testing.assert_allclose(sorted(clipped.tolist()), sorted(expected), rtol=1e-6)
    assert len(clip_polygon(wedge + np.float32([25, 0]), (100, 100))) == 0


@pytest.mark.parametrize("seed", range(4))
def test_bounds_are_those_of_the_visible_part(seed):
    """Stars over an edge or a corner; what is visible is found point by point, eight to a pixel."""
    from matplotlib.path import Path

    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(0, 60, 0.125) + 0.0625] * 2), -1).reshape(-1, 2)
    for _ in range(10):
        points = star(*rng.choice([-5, 5, 30, 55, 65], 2) + rng.uniform(-5, 5, 2), rng.uniform(10, 40), 4)
        visible = grid[Path(np.concatenate((points, points[:1]))).contains_points(grid)]
        box = polygon_boxes([clip_polygon(points, (60, 60))])[0]
        if len(visible):
            np.testing.assert_allclose(box, [*visible.min(0), *visible.max(0)], atol=0.7)  # tips are sharp
        else:
            assert (box[2:] - box[:2]).min() < 0.5


def test_there_and_back_is_cut_at_the_same_point():
    """A bridge of no width between two parts must not open where the rim cuts it."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        a, b = rng.uniform(-80, 80, (2, 2)).astype(np.float32)
        forth, back = clip_polygon(np.array([a, b]), (60, 60)), clip_polygon(np.array([b, a]), (60, 60))
        assert {tuple(p) for p in forth} == {tuple(p) for p in back}
