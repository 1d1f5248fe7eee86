"""Tiles: images placed on a canvas, and the canvas drawn as seen through a matrix.

A mosaic has four tiles, a letterboxed image has one, and copy-paste adds one for each copied object. The canvas itself
is never painted: every tile is resampled once, straight into the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from utils.data.instances import Instances
from utils.ops.geometry import (
    is_affine,
    is_axis_aligned,
    is_upright,
    project_polygon,
    scale_at,
    scaling,
    translation,
)
from utils.ops.polygons import clip_polygon

FILL = 114  # grey where there is no image
SMALLEST_SCALE = 0.5  # a bilinear sample reads 2×2 pixels: below half size it would skip some
_ON_GRID = 1 / 64  # pixels: OpenCV's bilinear weights have 1/32 steps

Recolor = Callable[[np.ndarray], np.ndarray]  # maps pixels (h, w, 3) to new ones, each pixel by itself


def as_it_is(image: np.ndarray) -> np.ndarray:
    """The `Recolor` that changes nothing."""
    return image


class SourceImage(NamedTuple):
    """An image of the data set. `image` may be stored at a smaller size than the `size` that it stands for."""

    image: np.ndarray  # (h, w, 3) uint8 BGR
    size: tuple[int, int]  # (height, width): fits the network's input
    instances: Instances  # pixels of `size`


class Tile(NamedTuple):
    """An image on a canvas."""

    image: np.ndarray  # (h, w, 3) uint8 BGR
    matrix: np.ndarray  # (3, 3): pixels of `image` to pixels of the canvas
    outline: np.ndarray  # (k, 2): the region of the canvas in which it may be seen
    instances: Instances  # pixels of the canvas


class AugmentedImage(NamedTuple):
    """What is seen of a canvas."""

    image: np.ndarray  # (h, w, 3) uint8 BGR
    instances: Instances  # pixels of `image`


# --- placing ----------------------------------------------------------------------------------------------------------


def place(source: SourceImage, x: float, y: float, scale: float, box: tuple[float, float, float, float]) -> Tile:
    """Place `source`, at `scale` times its `size`, with its upper left corner at (`x`, `y`) of a canvas.

    It is seen within `box` (xyxy) only.
    """
    height, width = source.image.shape[:2]
    from_size = scaling(scale, scale, (x, y))
    matrix = scaling(scale * (source.size[1] / width), scale * (source.size[0] / height), (x, y))
    left, top, right, bottom = box
    outline = np.array([(left, top), (right, top), (right, bottom), (left, bottom)], np.float64)
    return Tile(source.image, matrix, outline, source.instances.warp(from_size))


def letterboxed_tile(source: SourceImage, canvas: tuple[int, int]) -> Tile:
    """Place `source` in the middle of the `canvas` (height, width), scaled so that it just fits into it."""
    height, width = source.size
    ratio = min(canvas[0] / height, canvas[1] / width)
    height, width = round(height * ratio), round(width * ratio)
    x, y = (canvas[1] - width) / 2, (canvas[0] - height) / 2
    return place(source, x, y, ratio, (x, y, x + width, y + height))


def draw_centre(size: tuple[int, int], rng: np.random.Generator) -> tuple[int, int]:
    """The random point (x, y) where four images meet: whole pixels, uniform over the middle half of 2 × `size`."""
    y, x = (int(rng.uniform(side // 2, 2 * side - side // 2)) for side in size)
    return x, y


def mosaic_tiles(sources: Sequence[SourceImage], centre: tuple[int, int], size: tuple[int, int]) -> list[Tile]:
    """Place four images on a canvas of twice the `size` so that they meet at `centre` (x, y).

    They are the upper left, upper right, lower left and lower right one (mosaic: Bochkovskiy et al. 2020, YOLOv4).
    """
    canvas_height, canvas_width = 2 * size[0], 2 * size[1]
    tiles = []
    for i, source in enumerate(sources):
        height, width = source.size
        x = centre[0] if i % 2 else centre[0] - width
        y = centre[1] if i // 2 else centre[1] - height
        box = max(x, 0), max(y, 0), min(x + width, canvas_width), min(y + height, canvas_height)
        tiles.append(place(source, x, y, 1.0, box))
    return tiles


# --- drawing ----------------------------------------------------------------------------------------------------------


def render(
    tiles: Sequence[Tile],
    canvas: tuple[int, int],
    matrix: np.ndarray,
    output: tuple[int, int],
    scale: float,
    recolor: Recolor = as_it_is,
) -> AugmentedImage:
    """Draw the `tiles` on a canvas, seen through `matrix`, as an image of size `output`. Later tiles lie above earlier.

    Objects are cut by the canvas, moved, cut by the result, and kept if enough of them is left. That is measured
    against the zoom `scale` of the camera. `recolor` has to map grey to grey.
    """
    fill = recolor(np.full((1, 1, 3), FILL, np.uint8))[0, 0, 0]
    image = np.full((*output, 3), fill, np.uint8)
    for tile in tiles:
        paint(image, tile.image, matrix @ tile.matrix, project_polygon(tile.outline, matrix), recolor)
    before = Instances.concatenate([tile.instances for tile in tiles]).clip(canvas)
    after = before.warp(matrix).clip(output)
    return AugmentedImage(image, after.select(after.visible(before, scale)))


def paint(
    canvas: np.ndarray, image: np.ndarray, matrix: np.ndarray, outline: np.ndarray, recolor: Recolor = as_it_is
) -> None:
    """Draw `image` into `canvas`, both (h, w, 3) uint8, through `matrix` and within the polygon `outline`.

    Args:
        canvas: is written to. An upright rectangle owns the pixels whose centres it contains, so it meets its
            neighbours without gaps or overlaps; another outline owns the pixels that it touches.
        image: is continued beyond its edges by its edge pixels.
        matrix: (3, 3), pixels of `image` to pixels of `canvas`.
        outline: (k, 2) corners of the region to draw, pixels of `canvas`, in order around it.
        recolor: is applied before or after resampling, whichever means fewer pixels.
    """
    rectangle = is_axis_aligned(matrix) and is_upright(outline)
    if not rectangle:
        outline = clip_polygon(outline, canvas.shape[:2])
        if len(outline) < 3:
            return
    left, top, right, bottom = _pixels_inside(outline, canvas.shape)
    if left >= right or top >= bottom:
        return
    view = canvas[top:bottom, left:right]
    image, matrix = shrink_for(image, matrix, ((left + right) / 2, (top + bottom) / 2))
    if rectangle and _resize(image, matrix, (left, top), view, recolor):
        return
    matrix = translation(-left, -top) @ matrix
    if rectangle:
        np.copyto(view, recolor(_warp(image, matrix, view.shape)))
        return
    mask = np.zeros(view.shape[:2], np.uint8)
    # shift=4 means sixteenths of a pixel; half a pixel is subtracted because OpenCV counts from the centre of a pixel
    cv2.fillPoly(mask, [np.rint((outline - (left + 0.5, top + 0.5)) * 16).astype(np.int32)], 255, shift=4)
    cv2.copyTo(recolor(_warp(image, matrix, view.shape)), mask, view)


def _pixels_inside(outline: np.ndarray, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom (exclusive) of the pixels whose centres lie within the bounds of the outline."""
    xs, ys = outline.T.tolist()
    left, top = max(math.ceil(min(xs) - 0.5), 0), max(math.ceil(min(ys) - 0.5), 0)
    return left, top, min(math.ceil(max(xs) - 0.5), shape[1]), min(math.ceil(max(ys) - 0.5), shape[0])


def shrink_for(image: np.ndarray, matrix: np.ndarray, at: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Halve `image` until `matrix` no longer shrinks it below half its size; also returns the matrix for the rest.

    The scale is measured at the point `at` (x, y) of the output. Halving averages 2×2 pixels exactly.
    """
    scale = scale_at(matrix, at)
    while scale < SMALLEST_SCALE * 0.99 and min(image.shape[:2]) >= 4:
        height, width = (side // 2 for side in image.shape[:2])
        image = cv2.resize(image[: height * 2, : width * 2], (width, height), interpolation=cv2.INTER_AREA)
        matrix = matrix @ scaling(2.0, 2.0)
        scale *= 2
    return image, matrix


def _warp(image: np.ndarray, matrix: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Resample `image` through `matrix` to an image of `shape`, bilinearly."""
    centred = translation(-0.5, -0.5) @ matrix @ translation(0.5, 0.5)
    size = shape[1], shape[0]
    if is_affine(matrix):
        return cv2.warpAffine(image, centred[:2], size, borderMode=cv2.BORDER_REPLICATE)
    return cv2.warpPerspective(image, centred, size, borderMode=cv2.BORDER_REPLICATE)


# --- upright tiles ----------------------------------------------------------------------------------------------------


class _Span(NamedTuple):
    """One axis of a resize: take the pixels `part`, mirror or not, scale, mirror or not, and drop the first `skip`."""

    part: slice
    scale: float
    mirror_source: bool
    mirror_result: bool
    skip: int


def _resize(image: np.ndarray, matrix: np.ndarray, corner: tuple[int, int], view: np.ndarray, recolor: Recolor) -> bool:
    """Fill `view` as `_warp` would, but with `cv2.resize`, which is four times as fast; False if the matrix forbids it.

    `corner` (x, y) is where the view begins among the pixels to which `matrix` leads. A resize aligns the first pixels
    of source and result, so an edge of the image must lie on an edge between pixels of the result. If that is the right
    or lower edge of the source or of the result, it is mirrored on the way.
    """
    height, width = view.shape[:2]
    (scale_x, _, shift_x), (_, scale_y, shift_y), _ = matrix.tolist()
    y = _span(image.shape[0], height, scale_y, shift_y - corner[1])
    x = _span(image.shape[1], width, scale_x, shift_x - corner[0])
    if x is None or y is None:
        return False
    source = image[y.part, x.part]
    fewer = source.size < view.size
    if fewer:
        source = recolor(source)
    if y.mirror_source or x.mirror_source:
        source = cv2.flip(source, _flip_code(y.mirror_source, x.mirror_source))
    result = cv2.resize(source, None, fx=x.scale, fy=y.scale, interpolation=cv2.INTER_LINEAR)
    result = result[y.skip : y.skip + height, x.skip : x.skip + width]
    below, right = height - result.shape[0], width - result.shape[1]
    if below or right:  # the image ends within the last pixel
        result = cv2.copyMakeBorder(result, 0, below, 0, right, cv2.BORDER_REPLICATE)
    if not fewer:
        result = recolor(result)
    if y.mirror_result or x.mirror_result:
        cv2.flip(result, _flip_code(y.mirror_result, x.mirror_result), dst=view)
    else:
        np.copyto(view, result)
    return True


def _span(length: int, wanted: int, factor: float, offset: float) -> _Span | None:
    """How to get the pixels 0 to `wanted` of the result, if a line of `length` pixels lands at ``factor * x + offset``.

    None if neither end of the line lands on an edge between pixels, outside the wanted pixels or on their rim.
    """
    scale = abs(factor)
    for mirror_source in (False, True):
        landed = offset + (length * factor if mirror_source else 0.0)
        edge = round(landed)
        forward = mirror_source == (factor < 0)  # from this end the line runs towards larger results
        skip = -edge if forward else edge - wanted
        if abs(landed - edge) > _ON_GRID or skip < 0:
            continue
        used = min(length, int((wanted + skip) / scale) + 2)
        part = slice(length - used, length) if mirror_source else slice(0, used)
        return _Span(part, scale, mirror_source, not forward, skip)
    return None


def _flip_code(up_down: bool, left_right: bool) -> int:
    return (-1 if up_down else 1) if left_right else 0
