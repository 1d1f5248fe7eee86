"""Letterbox: fit an image into a given size without changing its shape, and fill the rest."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Letterboxed(NamedTuple):
    """`image` (h, w, 3) uint8; content scaled by `ratio` (width, height), then moved by `pad` (x, y) pixels."""

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
        auto: fill only up to the next multiple of `stride` (smallest rectangle), not up to `new_shape`.
        scaleFill: stretch to `new_shape` instead of keeping the aspect ratio; `auto` goes first.
        scaleup: allow enlarging; validation forbids it.
        stride: the network's largest stride.

    Returns:
        The image, its (width, height) ratio new / old and the half border (x, y), which may end in .5: the odd pixel
        goes right and below.
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
