"""Polygons of one image as a list of (k, 2) point arrays: their boxes, and clipping to the image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def polygon_boxes(polygons: Sequence[np.ndarray]) -> np.ndarray:
    """Tight boxes (n, 4) float32 xyxy; a polygon without points has the box 0, 0, 0, 0."""
    boxes = np.zeros((len(polygons), 4), np.float32)
    for box, points in zip(boxes, polygons, strict=True):
        if len(points):
            box[:2], box[2:] = points.min(0), points.max(0)
    return boxes


def clip_polygon(points: np.ndarray, size: tuple[float, float]) -> np.ndarray:
    """The part of a closed polygon (k, 2) inside an image of `size` (height, width); maybe no points at all.

    Cuts along the four edges in turn (Sutherland and Hodgman, 1974). Where a concave outline falls into pieces these
    stay joined by a line along the edge, which has no area.
    """
    height, width = size
    whole = points
    for axis, limit, sign in ((0, 0.0, 1), (1, 0.0, 1), (0, width, -1), (1, height, -1)):
        if len(points):
            points = cut_polygon(points, sign * (points[:, axis] - limit), (axis, limit))
    # what ran outside is left as a path along the edges, out to a corner and back: without area, but it has bounds
    while len(points) and points is not whole:
        edges = np.concatenate((points == 0, points == (width, height)), 1)
        idle = (edges & np.roll(edges, 1, 0) & np.roll(edges, -1, 0)).any(1)
        if not idle.any():
            break
        points = points[~idle]
    return points


def cut_polygon(points: np.ndarray, inside: np.ndarray, rim: tuple[int, float] | None = None) -> np.ndarray:
    """The part of a closed polygon (k, 2) on one side of a line.

    Args:
        points: its vertices.
        inside: (k,) a linear function of the plane at the vertices, not negative on the side that is kept.
        rim: for a line along an axis, the coordinate (0: x, 1: y) that is the same all along it, and its value; points
            of the cut then have exactly that.
    """
    if (inside >= 0).all():
        return points
    after, following = np.roll(inside, -1)[:, None], np.roll(points, -1, 0)
    before = inside[:, None]
    crosses = (before >= 0) != (after >= 0)
    # written so that an edge and its way back are cut at the very same point
    cuts = np.divide(points * after - following * before, after - before, out=np.zeros_like(points), where=crosses)
    if rim is not None:
        cuts[:, rim[0]] = rim[1]
    # each vertex that is inside, and behind it the point where its edge crosses
    both = np.stack((points, cuts), 1).reshape(-1, 2)
    return both[np.concatenate((before >= 0, crosses), 1).ravel()]
