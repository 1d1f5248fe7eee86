"""Masks of a batch: polygons as cells of the mask's own resolution, and the two forms in which they travel.

A cell covers `ratio` × `ratio` pixels of the network's input. It belongs to an object where its centre lies inside the
outline, so nothing is drawn at full size first, and nothing grows (OpenCV's `fillPoly` adds half a pixel all around).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from utils.errors import UserError
from utils.ops.masks import BoxMask
from utils.ops.polygons import following, joined


@dataclass(frozen=True)
class MaskFormat:
    """How the masks of a batch are laid out. Raises `UserError` for a `ratio` that is no whole number from 1 on."""

    ratio: int = 4  # pixels of the network's input along a side of a cell
    overlap: bool = True  # one index map an image, where an object hides another; else one mask an object

    def __post_init__(self) -> None:
        if self.ratio < 1 or self.ratio != int(self.ratio):
            raise UserError(
                f"--mask-ratio {self.ratio}: how many pixels of the input make a mask's cell must be 1, 2, 4, 8 …"
            )

    def check_size(self, size: tuple[int, int]) -> None:
        """Raise `UserError` where an input of `size` (height, width) does not fall into whole cells."""
        if any(side % self.ratio for side in size):
            raise UserError(
                f"--mask-ratio {self.ratio} does not divide the input of {size[0]}x{size[1]} pixels (height x width); "
                "take 1, 2, 4, 8 …"
            )

    def draw(self, polygons: Sequence[Sequence[np.ndarray]], size: tuple[int, int]) -> np.ndarray:
        """The masks of a batch of images of `size` (height, width), from the `polygons` (k, 2) of each in pixels.

        With `overlap` an index map (B, h, w), see `index_map`; else 0 and 1 in (n, h, w), all images' objects in turn.
        """
        if not self.overlap:
            return rasterize([points for image in polygons for points in image], size, self.ratio)
        return np.stack([index_map(rasterize(image, size, self.ratio)) for image in polygons])


def index_map(stack: np.ndarray) -> np.ndarray:
    """Masks (n, h, w) → (h, w): 0 where there is none, else 1 + the number of the mask seen there.

    Larger masks lie below smaller ones, and of equal ones the earlier below the later. uint8, or int32 where n > 255.
    """
    count = len(stack)
    kind = np.uint8 if count <= 255 else np.int32
    if not count:
        return np.zeros(stack.shape[1:], kind)
    upwards = np.argsort([-np.count_nonzero(mask) for mask in stack], kind="stable")
    heights = np.arange(1, count + 1, dtype=kind)[:, None, None]
    highest = (stack[upwards] * heights).max(0)
    return np.concatenate(([0], upwards + 1)).astype(kind)[highest]


def rasterize(polygons: Sequence[np.ndarray], size: tuple[int, int], ratio: int = 1) -> np.ndarray:
    """Closed polygons (k, 2), in pixels of an image of `size` (H, W), as (n, H // ratio, W // ratio) uint8.

    A cell is 1 where a ray from its centre crosses the outline an odd number of times (even-odd rule); centres on an
    outline's left or upper side are in, on its right or lower side out. Exact: every edge toggles, in each column it
    passes, the first cell below it, and a running exclusive or down the columns does the rest. Edges that come back the
    way they went (bridges between the parts of an object, pieces joined along the image's rim) cancel.
    """
    height, width = size[0] // ratio, size[1] // ratio
    masks = np.zeros((len(polygons), height, width), np.uint8)
    points, counts = joined(polygons)
    if not len(points):
        return masks
    owners = np.repeat(np.arange(len(counts)), counts)
    left, right = _edges(points.astype(np.float64) / ratio - 0.5, counts)  # centres at whole numbers
    first = np.ceil(left[:, 0]).clip(0, width).astype(np.int64)
    passed = np.ceil(right[:, 0]).clip(0, width).astype(np.int64) - first  # columns of each edge
    edge = np.repeat(np.arange(len(owners)), passed)
    column = np.arange(len(edge)) + (first - np.cumsum(passed) + passed)[edge]
    run, rise = (right - left).T
    slope = np.divide(rise, run, out=np.zeros_like(rise), where=run > 0)
    row = np.ceil(left[edge, 1] + (column - left[edge, 0]) * slope[edge]).clip(0, height).astype(np.int64)
    inside = row < height
    cells = ((owners[edge] * height + row) * width + column)[inside]
    np.add.at(masks.reshape(-1), cells, np.uint8(1))  # wraps at 256, which is even
    for above, below in zip(range(height - 1), range(1, height), strict=True):  # `accumulate` takes three times as long
        np.bitwise_xor(masks[:, below], masks[:, above], out=masks[:, below])
    masks &= 1
    return masks


def polygons_to_box_masks(polygons: Sequence[np.ndarray], size: tuple[int, int]) -> list[BoxMask]:
    """Closed polygons (k, 2) in pixels of a picture of `size` (H, W), each drawn within its bounding box."""
    return [_polygon_to_box_mask(points.astype(np.float64), size) for points in polygons]


def _polygon_to_box_mask(points: np.ndarray, size: tuple[int, int]) -> BoxMask:
    if not len(points):
        return BoxMask(0, 0, np.zeros((0, 0), bool))
    left, top = np.floor(points.min(0)).clip(0, size[::-1]).astype(int)
    right, bottom = np.ceil(points.max(0)).clip((left, top), size[::-1]).astype(int)
    pixels = rasterize([points - (left, top)], (bottom - top, right - left))[0]
    return BoxMask(int(left), int(top), pixels.astype(bool))


def _edges(points: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Left and right end (p, 2) of the edge that starts at each of the `points` of polygons of `counts` points.

    Ordered, so that an edge and its way back are the same numbers.
    """
    others = points[following(counts)]
    forward = (points[:, 0] <= others[:, 0])[:, None]
    return np.where(forward, points, others), np.where(forward, others, points)
