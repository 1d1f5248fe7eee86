from __future__ import annotations

import cv2
import numpy as np
import pytest

from utils.data.augment.camera import Camera, draw_camera
from utils.hyp import load_hyp
from utils.ops.geometry import project

CANVAS, OUTPUT = (1000, 1200), (500, 600)


def test_default_shows_the_middle_of_the_canvas():
    assert project(np.array([[600.0, 500.0]]), Camera().matrix(CANVAS, OUTPUT)).tolist() == [[300, 250]]
    np.testing.assert_array_equal(Camera().matrix(OUTPUT, OUTPUT), np.eye(3))


def test_parts_against_opencv_and_the_published_order():
    """Shift · shear · rotation (OpenCV's) · perspective · centring, as random_perspective of YOLOv5 composes them."""
    camera = Camera(25.0, 1.3, (4.0, -7.0), (3e-4, -2e-4), (0.45, 0.58))
    centre = np.array([[1, 0, -600.0], [0, 1, -500.0], [0, 0, 1]])
    perspective = np.array([[1, 0, 0], [0, 1, 0], [3e-4, -2e-4, 1]])
    rotation = np.vstack((cv2.getRotationMatrix2D((0, 0), 25.0, 1.3), [0, 0, 1]))
    shear = np.array([[1, np.tan(np.radians(4.0)), 0], [np.tan(np.radians(-7.0)), 1, 0], [0, 0, 1]])
    shift = np.array([[1, 0, 0.45 * 600], [0, 1, 0.58 * 500], [0, 0, 1]])
    expected = shift @ shear @ rotation @ perspective @ centre
    np.testing.assert_allclose(camera.matrix(CANVAS, OUTPUT), expected, atol=1e-9)


def test_flips_mirror_the_output():
    plain = Camera(10.0, 0.8).matrix(CANVAS, OUTPUT)
    both = Camera(10.0, 0.8, flip_lr=True, flip_ud=True).matrix(CANVAS, OUTPUT)
    points = np.array([[100.0, 200.0], [700.0, 900.0]])
    np.testing.assert_allclose(project(points, both), (600, 500) - project(points, plain))


@pytest.mark.parametrize("flip", [False, True])
def test_anchor_lands_on_a_pixel_corner_near_by(flip):
    camera = Camera(0.0, 0.777, centre=(0.432, 0.561), flip_lr=flip)
    anchor = (431.0, 555.0)
    exact = project(np.array([anchor]), camera.matrix(CANVAS, OUTPUT))[0]
    anchored = project(np.array([anchor]), camera.matrix(CANVAS, OUTPUT, anchor))[0]
    np.testing.assert_allclose(anchored, np.rint(anchored), atol=1e-9)
    assert np.abs(anchored - exact).max() <= 0.5


def test_anchor_is_left_alone_where_nothing_is_upright():
    camera = Camera(5.0, 0.777)
    np.testing.assert_array_equal(camera.matrix(CANVAS, OUTPUT, (431.0, 555.0)), camera.matrix(CANVAS, OUTPUT))


GAINS = {"degrees": 30.0, "scale": 0.4, "shear": 5.0, "perspective": 0.0005, "translate": 0.2}


def drawn(count=4000, **gains):
    hyp = load_hyp({**dict.fromkeys([*GAINS, "fliplr", "flipud"], 0.0), **gains})
    rng = np.random.default_rng(1)
    return [draw_camera(hyp, rng) for _ in range(count)]


def is_uniform(values, low, high):
    """Mean, spread and ends of a uniform distribution."""
    values = np.asarray(values)
    assert low <= values.min() < low + 0.02 * (high - low)
    assert high - 0.02 * (high - low) < values.max() <= high
    assert values.mean() == pytest.approx((low + high) / 2, abs=0.02 * (high - low))
    assert values.std() == pytest.approx((high - low) / 12**0.5, rel=0.03)


def test_each_gain_moves_its_own_part_only():
    parts = {
        "degrees": (lambda c: [c.degrees], -30.0, 30.0),
        "scale": (lambda c: [c.scale], 0.6, 1.4),
        "shear": (lambda c: c.shear, -5.0, 5.0),
        "perspective": (lambda c: c.perspective, -0.0005, 0.0005),
        "translate": (lambda c: c.centre, 0.3, 0.7),
    }
    for name, gain in GAINS.items():
        cameras = drawn(**{name: gain})
        for other, (part, low, high) in parts.items():
            values = np.array([part(c) for c in cameras])
            if other == name:
                for column in values.T:
                    is_uniform(column, low, high)
            else:
                assert (values == values[0]).all(), f"{name} moved {other}"


def test_parts_are_drawn_independently():
    cameras = drawn(2000, **GAINS)
    values = np.array([[c.degrees, c.scale, *c.shear, *c.perspective, *c.centre] for c in cameras])
    correlation = np.corrcoef(values.T)
    assert np.abs(correlation - np.eye(8)).max() < 0.1


def test_flips_are_probabilities():
    cameras = drawn(fliplr=0.3, flipud=0.7)
    assert np.mean([c.flip_lr for c in cameras]) == pytest.approx(0.3, abs=0.03)
    assert np.mean([c.flip_ud for c in cameras]) == pytest.approx(0.7, abs=0.03)
    assert not any(c.flip_lr or c.flip_ud for c in drawn())
