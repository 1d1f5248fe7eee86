"""Closed polygons, many at once: their boxes, and the parts of them on one side of a line or within an image.

A polygon is an array (k, 2) of points, where k may be 0. Several polygons are a list of these arrays, or all their
points end to end with `counts` (n,), the number of points of each.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def next_points(counts: np.ndarray) -> np.ndarray:
    """The number (p,) of the next point around, for each point of polygons of `counts` (n,) points."""
    ends = np.cumsum(counts)
    order = np.arange(1, int(counts.sum()) + 1)
    filled = counts > 0
    order[ends[filled] - 1] = (ends - counts)[filled]
    return order


def split_polygons(points: np.ndarray, counts: np.ndarray) -> list[np.ndarray]:
    """Split `points` (p, 2) into n polygons of `counts` (n,) points, as views."""
    ends = np.cumsum(counts).tolist()
    return [points[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def join_polygons(polygons: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The points (p, 2) of `polygons` end to end, and how many each of them has."""
    counts = np.array([len(points) for points in polygons], np.int64)
    return np.concatenate(polygons) if len(polygons) else np.zeros((0, 2), np.float32), counts


def polygon_boxes(polygons: Sequence[np.ndarray]) -> np.ndarray:
    """The tight boxes (n, 4) float32 xyxy. A polygon without points has the box 0, 0, 0, 0."""
    boxes = np.zeros((len(polygons), 4), np.float32)
    points, counts = join_polygons(polygons)
    if len(points):
        filled = counts > 0
        first = (np.cumsum(counts) - counts)[filled]
        boxes[filled, :2], boxes[filled, 2:] = np.minimum.reduceat(points, first), np.maximum.reduceat(points, first)
    return boxes


def clip_polygon(points: np.ndarray, size: tuple[float, float]) -> np.ndarray:
    """The part of a polygon (k, 2) inside an image of `size`, see `clip_polygons`."""
    return clip_polygons([points], size)[0]


def clip_polygons(polygons: Sequence[np.ndarray], size: tuple[float, float]) -> list[np.ndarray]:
    """The part of each polygon inside an image of `size` (height, width), which may have no points at all.

    The polygons are cut along the four edges in turn (Sutherland and Hodgman, 1974). If a concave outline falls into
    pieces, these stay joined by a line along the edge, which has no area.
    """
    height, width = size
    points, counts = join_polygons(polygons)
    if ((points >= 0) & (points <= (width, height))).all():
        return list(polygons)
    for axis, limit, sign in ((0, 0.0, 1), (1, 0.0, 1), (0, width, -1), (1, height, -1)):
        points, counts = cut_polygons(points, counts, sign * (points[:, axis] - limit), (axis, limit))
    # what lay outside is now a path along the edges, out to a corner and back: it has no area, but it widens the box
    while True:
        edges = np.concatenate((points == 0, points == (width, height)), 1)
        after = next_points(counts)
        along = edges & edges[after]  # the edges of the image that a point shares with the next
        idle = np.zeros(len(points), bool)
        idle[after] = (along & along[after]).any(1)
        if not idle.any():
            return split_polygons(points, counts)
        points, counts = points[~idle], _count(~idle, counts)


def cut_polygons(
    points: np.ndarray, counts: np.ndarray, inside: np.ndarray, rim: tuple[int, float] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The parts of polygons on one side of a line, again as points and counts.

    Args:
        points: (p, 2), end to end.
        counts: (n,) number of points of each polygon.
        inside: (p,) a linear function of the plane at the points, which is not negative on the side that is kept.
        rim: for a line along an axis, the coordinate (0: x, 1: y) that is constant on it, and its value. Points of the
            cut then have exactly that value.
    """
    kept = inside >= 0
    if kept.all():
        return points, counts
    after = next_points(counts)
    start = np.flatnonzero(kept != kept[after])  # of the edges that cross
    end = after[start]
    here, there = inside[start, None], inside[end, None]
    # in this form an edge and the same edge on its way back are cut at exactly the same point
    cuts = (points[start] * there - points[end] * here) / (there - here)
    if rim is not None:
        cuts[:, rim[0]] = rim[1]
    # each point that is inside, followed by the point where its edge crosses the line
    both = np.repeat(points, 2, 0)
    both[2 * start + 1] = cuts
    chosen = np.repeat(kept, 2)
    chosen[1::2] = False
    chosen[2 * start + 1] = True
    return both[chosen], _count(chosen, 2 * counts)


def _count(chosen: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """How many points (n,) of each polygon of `counts` (n,) points are `chosen` (p,)."""
    total = np.concatenate(([0], np.cumsum(chosen)))
    ends = np.cumsum(counts)
    return total[ends] - total[ends - counts]
