"""Letterbox: fit an image into a size that the network takes without distorting it, and fill the border."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Letterboxed(NamedTuple):
    """`image` (h, w, 3) uint8; the original is scaled by `ratio` (width, height), then moved by `pad` (x, y) pixels."""

    image: np.ndarray
    ratio: tuple[float, float]
    pad: tuple[float, float]


def letterbox(
    im: np.ndarray,
    new_shape: int | tuple[int, int] = (640, 640),
    color: tuple[int, int, int] = (114, 114, 114),
    auto: bool = True,
    scaleFill: bool = False,  # noqa: N803, RUF100 (YOLOv5's name)
    scaleup: bool = True,
    stride: int = 32,
) -> Letterboxed:
    """Resize `im` (h, w, channels) to fit in `new_shape` (height, width), and fill the borders with `color`.

    Args:
        im: uint8 image.
        new_shape: (height, width), or one number for both.
        color: the border's value.
        auto: fill only up to the next multiple of `stride` (the smallest rectangle) instead of up to `new_shape`.
        scaleFill: stretch to `new_shape` instead of keeping the aspect ratio; `auto` goes first.
        scaleup: allow enlarging; validation forbids it.
        stride: the network's largest stride.

    Returns:
        The image, the ratios new / old of (width, height), and half the border (x, y). If the half ends in .5, the odd
        pixel is at the right and below.
    """
    import cv2

    height, width = im.shape[:2]
    new_h, new_w = (new_shape, new_shape) if isinstance(new_shape, int) else new_shape
    ratio = min(new_h / height, new_w / width)
    if not scaleup:
        ratio = min(ratio, 1.0)
    ratios = ratio, ratio
    size = max(round(width * ratio), 1), max(round(height * ratio), 1)
    border_x, border_y = float(new_w - size[0]), float(new_h - size[1])
    if auto:
        border_x, border_y = border_x % stride, border_y % stride
    elif scaleFill:
        size, ratios = (new_w, new_h), (new_w / width, new_h / height)
        border_x = border_y = 0.0
    pad_x, pad_y = border_x / 2, border_y / 2

    if (width, height) != size:
        im = cv2.resize(im, size, interpolation=cv2.INTER_LINEAR)
    # ±0.1 sends a half pixel down on one side and up on the other
    top, bottom = round(pad_y - 0.1), round(pad_y + 0.1)
    left, right = round(pad_x - 0.1), round(pad_x + 0.1)
    if top or bottom or left or right:
        im = cv2.copyMakeBorder(im, top, bottom, left, right, cv2.BORDER_CONSTANT, value=color)
    return Letterboxed(im, ratios, (pad_x, pad_y))


def letterbox_chw(
    image: np.ndarray, size: int | Sequence[int] = 640, stride: int = 32, auto: bool = True
) -> np.ndarray:
    """Turn `image` (H, W, 3) uint8 BGR into (3, h, w) RGB, contiguous, letterboxed into `size` (height, width).

    With `auto` the border ends at the next multiple of `stride`, which is the smallest input that the network takes.
    """
    shape = (size, size) if isinstance(size, int) else (size[0], size[1])
    boxed = letterbox(image, shape, stride=stride, auto=auto).image
    return np.ascontiguousarray(boxed[..., ::-1].transpose(2, 0, 1))


def fit_sizes(shapes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Sizes (n, 2) int of images of `shapes` (n, 2), scaled to fit into `size`; all are (height, width).

    A fraction of a pixel counts as a whole pixel, as in YOLOv5, unless it comes from rounding alone.
    """
    ratio = np.minimum(size[0] / shapes[:, 0], size[1] / shapes[:, 1])[:, None]
    return np.maximum(np.ceil(shapes * ratio - 1e-6), 1).astype(np.int64)


def make_divisible(x: float, divisor: int = 8) -> int:
    """The smallest multiple of `divisor` that is not below `x`: ``make_divisible(19.2, 8) == 24``."""
    return math.ceil(x / divisor) * divisor


def check_img_size(imgsz: int | list[int] | tuple[int, ...], s: int = 32, floor: int = 0) -> int | list[int]:
    """`imgsz`, one side or a list of them, rounded up to multiples of the stride `s` and to at least `floor`."""
    if isinstance(imgsz, int):
        return max(make_divisible(imgsz, int(s)), floor)
    return [max(make_divisible(side, int(s)), floor) for side in imgsz]
