from __future__ import annotations

import numpy as np
import pytest

from utils.ops import geometry as g

RNG = np.random.default_rng(0)
PERSPECTIVE = np.array([[0.9, 0.2, 5.0], [-0.1, 1.1, 3.0], [4e-4, -3e-4, 1.0]])


def by_hand(matrix, x, y):
    a = matrix.tolist()
    w = a[2][0] * x + a[2][1] * y + a[2][2]
    return (a[0][0] * x + a[0][1] * y + a[0][2]) / w, (a[1][0] * x + a[1][1] * y + a[1][2]) / w


def test_project_is_the_textbook_formula():
    points = RNG.uniform(0, 200, (20, 2))
    expected = [by_hand(PERSPECTIVE, x, y) for x, y in points]
    np.testing.assert_allclose(g.project(points, PERSPECTIVE), expected, rtol=1e-12)


def test_what_lies_behind_the_eye_is_far_away_and_not_mirrored():
    matrix = np.array([[1.0, 0, 0], [0, 1.0, 0], [0.01, 0, 1.0]])
    (x, _), (far, _) = g.project(np.array([[-90.0, 1.0], [-150.0, 1.0]]), matrix)
    assert x == pytest.approx(-900)
    assert far < -10_000


def test_a_polygon_behind_the_eye_is_cut_at_its_horizon():
    """Seen through w = 1 + x / 100: what lies at x < -100 would come back mirrored from the other side.

    The square from x = -300 to 0, seen: rays from the points in front go straight to where x runs to -infinity.
    """
    matrix = np.array([[1.0, 0, 0], [0, 1.0, 0], [0.01, 0, 1.0]])
    square = np.array([[-300.0, 10], [0, 10], [0, 40], [-300, 40]])
    seen = g.project_polygon(square, matrix)
    assert len(seen) == 4
    assert seen[:, 0].max() == 0
    assert seen[:, 0].min() < -90_000
    for y in (10, 40):  # x' = x / w, y' = y / w lie on y' = y - y / 100 · x'
        side = seen[np.isclose(seen[:, 1], y - y / 100 * seen[:, 0])]
        assert len(side) == 2
    assert len(g.project_polygon(square - (200, 0), matrix)) == 0
    before = square + np.array([250, 0])
    np.testing.assert_array_equal(g.project_polygon(before, matrix), g.project(before, matrix))


def test_edges_stay_straight_so_vertices_suffice():
    """Points all along the edges, each projected by itself, lie on the edges between the projected vertices."""
    triangle = np.array([[10.0, 20], [150, 40], [60, 170]])
    vertices = g.project_polygon(triangle, PERSPECTIVE)
    for a, b, p, q in zip(triangle, np.roll(triangle, -1, 0), vertices, np.roll(vertices, -1, 0), strict=True):
        between = [by_hand(PERSPECTIVE, *(a + t * (b - a))) for t in np.linspace(0, 1, 20)]
        (dx, dy), away = q - p, np.array(between) - p
        np.testing.assert_allclose(away[:, 0] * dy - away[:, 1] * dx, 0, atol=1e-8)


def test_elementary_matrices():
    point = np.array([[3.0, 4.0]])
    assert g.project(point, g.translation(10, -1)).tolist() == [[13, 3]]
    assert g.project(point, g.scaling(2, 0.5)).tolist() == [[6, 2]]
    assert g.project(point, g.scaling(2, 0.5, (10, 20))).tolist() == [[16, 22]]
    assert g.project(point, g.mirroring(width=100)).tolist() == [[97, 4]]
    assert g.project(point, g.mirroring(height=100)).tolist() == [[3, 96]]
    assert g.project(point, g.mirroring()).tolist() == [[3, 4]]


@pytest.mark.parametrize("matrix", [PERSPECTIVE, g.mirroring(width=50) @ g.scaling(1.5, 0.7) @ g.translation(3, 4)])
def test_boxes_go_round_their_projected_corners(matrix):
    low = RNG.uniform(0, 100, (30, 2))
    boxes = np.concatenate((low, low + RNG.uniform(1, 50, (30, 2))), 1)
    for box, found in zip(boxes, g.project_boxes(boxes, matrix), strict=True):
        corners = np.array([by_hand(matrix, x, y) for x in box[[0, 2]] for y in box[[1, 3]]])
        np.testing.assert_allclose(found, [*corners.min(0), *corners.max(0)], rtol=1e-9)


def test_no_boxes_stay_no_boxes():
    assert g.project_boxes(np.zeros((0, 4), np.float32), PERSPECTIVE).shape == (0, 4)
    assert g.project_boxes(np.zeros((0, 4), np.float32), np.eye(3)).shape == (0, 4)


@pytest.mark.parametrize("matrix", [PERSPECTIVE, g.scaling(3, 0.5), g.translation(1, 2) @ g.scaling(0.4, 0.4)])
def test_scale_is_that_of_a_tiny_square(matrix):
    x, y, d = 40.0, 70.0, 1e-4
    a, b, c = (np.array(by_hand(matrix, *p)) for p in ((x, y), (x + d, y), (x, y + d)))
    area = abs(np.cross(np.append(b - a, 0), np.append(c - a, 0))[2]) / d**2
    assert g.scale_at(matrix, tuple(a)) == pytest.approx(area**0.5, rel=1e-3)


def test_kinds_of_matrices():
    turned = np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]])
    assert g.is_affine(turned)
    assert not g.is_axis_aligned(turned)
    assert not g.is_affine(PERSPECTIVE)
    assert g.is_axis_aligned(g.mirroring(width=5) @ g.scaling(2, 3))


def test_upright_rectangles():
    box = np.array([[0.0, 0], [4, 0], [4, 2], [0, 2]])
    assert g.is_upright(box)
    assert g.is_upright(g.project(box, g.mirroring(width=9)))
    assert not g.is_upright(box + np.array([[0, 0], [0, 0.1], [0, 0], [0, 0]]))
    assert not g.is_upright(box[:3])
