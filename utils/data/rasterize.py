"""Polygons drawn as masks, and the two layouts that the masks of a batch can have.

Masks are drawn at their own resolution: a cell covers `ratio` × `ratio` pixels of the network's input, and it belongs
to an object if its centre lies inside the outline. So nothing is drawn at full size first, and no object grows, as it
would with OpenCV's `fillPoly`, which adds half a pixel all around.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from utils.errors import UserError
from utils.ops.masks import BoxMask
from utils.ops.polygons import join_polygons, next_points


@dataclass(frozen=True)
class MaskFormat:
    """The layout of the masks of a batch. Raises `UserError` for a `ratio` that is not a whole number of at least 1."""

    ratio: int = 4  # pixels of the network's input along a side of a cell
    overlap: bool = True  # one index map per image, where an object hides others; else one mask per object

    def __post_init__(self) -> None:
        if self.ratio < 1 or self.ratio != int(self.ratio):
            raise UserError(
                f"--mask-ratio {self.ratio}: a cell of a mask has 1, 2, 4, 8 … pixels of the input on each side"
            )

    def check_size(self, size: tuple[int, int]) -> None:
        """Raise `UserError` if an input of `size` (height, width) cannot be divided into whole cells."""
        if any(side % self.ratio for side in size):
            raise UserError(
                f"--mask-ratio {self.ratio} does not divide the input of {size[0]}x{size[1]} pixels (height x width); "
                "take 1, 2, 4, 8 …"
            )

    def draw(self, polygons: Sequence[Sequence[np.ndarray]], size: tuple[int, int]) -> np.ndarray:
        """Draw the masks of a batch of images of `size` (height, width), from the `polygons` (k, 2) of each, in pixels.

        Returns with `overlap` index maps (B, h, w), see `index_map`; else (n, h, w) of 0 and 1, image after image.
        """
        if not self.overlap:
            return rasterize([points for image in polygons for points in image], size, self.ratio)
        return np.stack([index_map(rasterize(image, size, self.ratio)) for image in polygons])


def index_map(stack: np.ndarray) -> np.ndarray:
    """Combine masks (n, h, w) to (h, w): 0 where there is none, else 1 + the number of the mask that is seen there.

    Larger masks lie below smaller ones; of two equally large ones the earlier lies below. uint8, or int32 if n > 255.
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
    """Draw closed polygons (k, 2), in pixels of an image of `size` (H, W), as (n, H // ratio, W // ratio) uint8.

    A cell is 1 if a ray from its centre crosses the outline an odd number of times (even-odd rule). Centres on the left
    or upper side of an outline are inside, those on its right or lower side are outside. The result is exact: in each
    column that an edge passes it toggles the first cell below it, and a running exclusive or down the columns does the
    rest. Edges that come back the way they went cancel each other (bridges between the parts of an object, and pieces
    that are joined along the rim of the image).
    """
    height, width = size[0] // ratio, size[1] // ratio
    masks = np.zeros((len(polygons), height, width), np.uint8)
    points, counts = join_polygons(polygons)
    if not len(points):
        return masks
    owners = np.repeat(np.arange(len(counts)), counts)
    left, right = _edges(points.astype(np.float64) / ratio - 0.5, counts)  # centres at whole numbers
    first = np.ceil(left[:, 0]).clip(0, width).astype(np.int64)
    passed = np.ceil(right[:, 0]).clip(0, width).astype(np.int64) - first  # columns that each edge passes
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
    """Draw closed polygons (k, 2), in pixels of an image of `size` (H, W), each within its bounding box."""
    return [_polygon_to_box_mask(points.astype(np.float64), size) for points in polygons]


def _polygon_to_box_mask(points: np.ndarray, size: tuple[int, int]) -> BoxMask:
    if not len(points):
        return BoxMask(0, 0, np.zeros((0, 0), bool))
    left, top = np.floor(points.min(0)).clip(0, size[::-1]).astype(int)
    right, bottom = np.ceil(points.max(0)).clip((left, top), size[::-1]).astype(int)
    pixels = rasterize([points - (left, top)], (bottom - top, right - left))[0]
    return BoxMask(int(left), int(top), pixels.astype(bool))


def _edges(points: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The left and right end (p, 2) of the edge that starts at each of the `points` of polygons of `counts` points.

    As the ends are ordered, an edge and the same edge on its way back have equal numbers.
    """
    others = points[next_points(counts)]
    forward = (points[:, 0] <= others[:, 0])[:, None]
    return np.where(forward, points, others), np.where(forward, others, points)
