"""Plane geometry: 3×3 matrices that act on columns (x, y, 1), and what they do to points, polygons and boxes.

Coordinates are continuous pixels, as in the labels: pixel i covers i to i + 1, and its centre lies at i + 0.5. OpenCV
instead places the centres of pixels on whole numbers; the code that calls it converts between the two.
"""

from __future__ import annotations

import numpy as np

from utils.ops.polygons import cut_polygons

_NEAR = 1e-3  # least homogeneous weight: what lies behind the eye appears far away and not mirrored


def translation(x: float, y: float) -> np.ndarray:
    """The matrix that moves by (`x`, `y`)."""
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])


def scaling(x: float, y: float, origin: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    """The matrix that scales about the origin and then moves the origin to `origin` (x, y)."""
    return np.array([[x, 0.0, origin[0]], [0.0, y, origin[1]], [0.0, 0.0, 1.0]])


def mirroring(width: float | None = None, height: float | None = None) -> np.ndarray:
    """The matrix that mirrors an image left to right if its `width` is given, and top to bottom if its `height` is."""
    matrix = np.eye(3)
    if width is not None:
        matrix[0] = -1.0, 0.0, width
    if height is not None:
        matrix[1] = 0.0, -1.0, height
    return matrix


def is_affine(matrix: np.ndarray) -> bool:
    """Whether parallel lines stay parallel (the last row is 0, 0, 1)."""
    return matrix[2, 0] == 0 == matrix[2, 1]


def is_axis_aligned(matrix: np.ndarray) -> bool:
    """Whether upright rectangles stay upright: the matrix scales, moves and mirrors, and does nothing else."""
    (_, b, _), (d, _, _), (g, h, _) = matrix.tolist()
    return b == d == g == h == 0


def project(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Map points (n, 2) through `matrix`; float64."""
    moved = points @ matrix[:2, :2].T + matrix[:2, 2]
    if is_affine(matrix):
        return moved
    weights = points @ matrix[2, :2] + matrix[2, 2]
    return moved / np.maximum(weights, _NEAR)[:, None]


def project_polygons(points: np.ndarray, counts: np.ndarray, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Map closed polygons through `matrix`: their points (p, 2) end to end, and `counts` (n,), how many each has.

    Returns points (float64) and counts in the same form. As a projection keeps straight lines straight, it is enough to
    map the vertices. What lies behind the eye is cut off, as it cannot be seen.
    """
    if not is_affine(matrix):
        points, counts = cut_polygons(points, counts, points @ matrix[2, :2] + matrix[2, 2] - _NEAR)
    return project(points, matrix), counts


def project_polygon(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Map one closed polygon (k, 2) through `matrix`, see `project_polygons`."""
    if is_affine(matrix):
        return project(points, matrix)
    return project_polygons(points, np.array([len(points)]), matrix)[0]


def corners(boxes: np.ndarray) -> np.ndarray:
    """The corners (n, 4, 2) of boxes (n, 4) xyxy, in order around each box."""
    return boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)


def project_boxes(boxes: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """The upright boxes (n, 4) xyxy around the projected corners of `boxes` (n, 4) xyxy, float64."""
    if is_axis_aligned(matrix):
        (a, _, c), (_, e, f), _ = matrix.tolist()
        moved = boxes * np.array((a, e, a, e)) + np.array((c, f, c, f))
        if a < 0:
            moved[:, 0::2] = moved[:, 2::-2]
        if e < 0:
            moved[:, 1::2] = moved[:, 3::-2]
        return moved
    ends = project(corners(boxes).reshape(-1, 2), matrix).reshape(-1, 4, 2)
    return np.concatenate((ends.min(1), ends.max(1)), 1)


def scale_at(matrix: np.ndarray, point: tuple[float, float]) -> float:
    """The factor by which `matrix` enlarges lengths at the place that it maps to `point` (x, y)."""
    if is_affine(matrix):
        (a, b, _), (d, e, _), _ = matrix.tolist()
        return abs(a * e - b * d) ** 0.5
    back = np.linalg.inv(matrix)
    weight = max(abs(float(back[2, :2] @ point + back[2, 2])), _NEAR)
    # the Jacobian of a projection is its determinant over the cube of the weight
    return float(weight**3 / abs(np.linalg.det(back))) ** 0.5


def is_upright(outline: np.ndarray) -> bool:
    """Whether the polygon (k, 2) is a rectangle with sides along the axes, clockwise from its upper left corner.

    A mirror image of such a rectangle counts too.
    """
    if len(outline) != 4:
        return False
    (x0, y0), (x1, y1), (x2, y2), (x3, y3) = outline.tolist()
    return x0 == x3 and x1 == x2 and y0 == y1 and y2 == y3
