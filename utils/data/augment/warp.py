"""Drawing one image into another through a matrix, once, and only where it is to be seen."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np

from utils.ops.geometry import is_affine, is_axis_aligned, is_upright, scale_at, scaling, translation
from utils.ops.polygons import clip_polygon

SMALLEST_SCALE = 0.5  # a bilinear sample sees 2×2 pixels: below half size it would skip some
_ON_GRID = 1 / 64  # pixels: OpenCV's bilinear weights have 1/32 steps


Recolor = Callable[[np.ndarray], np.ndarray]  # new pixels (h, w, 3) for old, each by itself


def as_it_is(image: np.ndarray) -> np.ndarray:
    """The `Recolor` that changes nothing."""
    return image


def paint(
    canvas: np.ndarray, image: np.ndarray, matrix: np.ndarray, outline: np.ndarray, recolor: Recolor = as_it_is
) -> None:
    """Draw `image` into `canvas` (both (h, w, 3) uint8) through `matrix`, within the polygon `outline`.

    Args:
        canvas: written to. An upright rectangle owns the pixels whose centres it holds, and thus meets its neighbours
            without gap or overlap; another outline owns those it touches.
        image: continued beyond its edges by its edge pixels.
        matrix: (3, 3), pixels of `image` to pixels of `canvas`.
        outline: (k, 2) corners of the region to draw, pixels of `canvas`, in order around it.
        recolor: applied where there are fewer pixels, before or after resampling.
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
    # shift=4 means sixteenths of a pixel; the half is there because OpenCV counts from the centre of a pixel
    cv2.fillPoly(mask, [np.rint((outline - (left + 0.5, top + 0.5)) * 16).astype(np.int32)], 255, shift=4)
    cv2.copyTo(recolor(_warp(image, matrix, view.shape)), mask, view)


def _pixels_inside(outline: np.ndarray, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom (the last two exclusive) of the pixels with centres within the outline's bounds."""
    xs, ys = outline.T.tolist()
    left, top = max(math.ceil(min(xs) - 0.5), 0), max(math.ceil(min(ys) - 0.5), 0)
    return left, top, min(math.ceil(max(xs) - 0.5), shape[1]), min(math.ceil(max(ys) - 0.5), shape[0])


def shrink_for(image: np.ndarray, matrix: np.ndarray, at: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """`image` halved until `matrix` shrinks it to no less than half, and the matrix that then does the rest.

    `at` (x, y) is the point of the output where the scale is measured. Halving averages 2×2 pixels exactly.
    """
    scale = scale_at(matrix, at)
    while scale < SMALLEST_SCALE * 0.99 and min(image.shape[:2]) >= 4:
        height, width = (side // 2 for side in image.shape[:2])
        image = cv2.resize(image[: height * 2, : width * 2], (width, height), interpolation=cv2.INTER_AREA)
        matrix = matrix @ scaling(2.0, 2.0)
        scale *= 2
    return image, matrix


def _warp(image: np.ndarray, matrix: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """`image` through `matrix` as an image of `shape`, bilinear."""
    centred = translation(-0.5, -0.5) @ matrix @ translation(0.5, 0.5)
    size = shape[1], shape[0]
    if is_affine(matrix):
        return cv2.warpAffine(image, centred[:2], size, borderMode=cv2.BORDER_REPLICATE)
    return cv2.warpPerspective(image, centred, size, borderMode=cv2.BORDER_REPLICATE)


# --- upright views ----------------------------------------------------------------------------------------------------


class _Span(NamedTuple):
    """One axis of a resize: take the pixels `part`, mirror or not, scale, mirror or not, drop the first `skip`."""

    part: slice
    scale: float
    mirror_source: bool
    mirror_result: bool
    skip: int


def _resize(image: np.ndarray, matrix: np.ndarray, corner: tuple[int, int], view: np.ndarray, recolor: Recolor) -> bool:
    """Fill `view` as `_warp` would, by `cv2.resize`, which is four times as fast; False where the matrix forbids it.

    `corner` (x, y) is where the view begins among the pixels that `matrix` leads to.

    A resize aligns the first pixels of source and result, so an edge of the image must lie on an edge between pixels
    of the result. If it is the right or lower edge of either, that one is mirrored on the way.
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
    """How to get result pixels 0 to `wanted` of a line of `length` pixels that lands at ``factor * x + offset``.

    None if neither end of the line lands on a pixel edge outside (or on the rim of) the wanted pixels.
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
