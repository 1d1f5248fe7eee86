from __future__ import annotations

import numpy as np
import pytest

from utils.ops.segments import resample_segments, scale_segments, segments2boxes

SQUARE = np.array([[0, 0], [4, 0], [4, 4], [0, 4]], np.float32)


def test_boxes_of_segments() -> None:
    boxes = segments2boxes([SQUARE, SQUARE[:3] + 10])
    assert boxes.tolist() == [[2, 2, 4, 4], [12, 12, 4, 4]]
    assert segments2boxes([]).shape == (0, 4)


def test_resampled_points_lie_on_the_closed_outline() -> None:
    (points,) = resample_segments([SQUARE], 9)
    assert points.dtype == np.float32
    assert points.tolist() == [[0, 0], [2, 0], [4, 0], [4, 2], [4, 4], [2, 4], [0, 4], [0, 2], [0, 0]]


def test_scale_segments_undoes_a_placement() -> None:
    placed = SQUARE * 2 + [3, 5]
    back = scale_segments((20, 20), placed.copy(), (7, 7), ((2, 2), (3, 5)))
    np.testing.assert_allclose(back, SQUARE)
    shares = scale_segments((20, 20), placed.copy(), (8, 4), ((2, 2), (3, 5)), normalize=True)
    np.testing.assert_allclose(shares, SQUARE / [4, 8])


def test_scale_segments_cuts_to_the_image() -> None:
    points = np.array([[-5.0, 3.0], [500.0, 3.0]])
    np.testing.assert_allclose(scale_segments((100, 100), points, (50, 50)), [[0, 1.5], [50, 1.5]])


def test_a_segment_needs_points() -> None:
    with pytest.raises(ValueError, match="zero-size"):
        segments2boxes([np.zeros((0, 2))])
