"""Box formats. Every function takes a torch tensor or a numpy array and returns the same kind.

`xyxy` are corners and `xywh` are centre and size, in pixels; a trailing `n` means normalised by width and height to
0..1. Boxes are the first four entries of the last axis; entries behind them (confidence, class) are left unchanged.
"""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import numpy as np
import torch

Boxes = TypeVar("Boxes", torch.Tensor, np.ndarray)


class Placement(NamedTuple):
    """An image inside a letterboxed one: scaled by `ratio` (width, height), then moved by `pad` (x, y) pixels."""

    ratio: tuple[float, float]
    pad: tuple[float, float]


def xyxy2xywh(x: Boxes) -> Boxes:
    """Convert corners to centre and size; shape (…, 4+)."""
    y = _copy(x)
    y[..., :2] = (x[..., :2] + x[..., 2:4]) / 2
    y[..., 2:4] = x[..., 2:4] - x[..., :2]
    return y


def xywh2xyxy(x: Boxes) -> Boxes:
    """Convert centre and size to corners; shape (…, 4+)."""
    y = _copy(x)
    half = x[..., 2:4] / 2
    y[..., :2] = x[..., :2] - half
    y[..., 2:4] = x[..., :2] + half
    return y


def xywhn2xyxy(x: Boxes, w: float = 640, h: float = 640, padw: float = 0, padh: float = 0) -> Boxes:
    """Convert normalised centre and size in a `w` × `h` image to corners in pixels, moved by (`padw`, `padh`)."""
    y = xywh2xyxy(x)
    y[..., 0:4:2] = y[..., 0:4:2] * w + padw
    y[..., 1:4:2] = y[..., 1:4:2] * h + padh
    return y


def xyxy2xywhn(x: Boxes, w: float = 640, h: float = 640, clip: bool = False, eps: float = 0.0) -> Boxes:
    """Convert corners in pixels of a `w` × `h` image to normalised centre and size; `clip` cuts to the image."""
    y = clip_boxes(_copy(x), (h - eps, w - eps)) if clip else x
    y = xyxy2xywh(y)
    y[..., 0:4:2] = y[..., 0:4:2] / w
    y[..., 1:4:2] = y[..., 1:4:2] / h
    return y


def xyn2xy(x: Boxes, w: float = 640, h: float = 640, padw: float = 0, padh: float = 0) -> Boxes:
    """Convert normalised points (…, 2) of a `w` × `h` image to pixels, moved by (`padw`, `padh`)."""
    y = _copy(x)
    y[..., 0] = x[..., 0] * w + padw
    y[..., 1] = x[..., 1] * h + padh
    return y


def clip_boxes(boxes: Boxes, shape: tuple[float, ...]) -> Boxes:
    """Cut xyxy boxes to an image of `shape` (height, width, …) **in place**, and return them."""
    boxes[..., 0:4:2] = boxes[..., 0:4:2].clip(0, shape[1])
    boxes[..., 1:4:2] = boxes[..., 1:4:2].clip(0, shape[0])
    return boxes


def placement(img1_shape: tuple[int, ...], img0_shape: tuple[int, ...]) -> Placement:
    """The centred placement, with its aspect ratio, of an image of `img0_shape` (h, w, …) in one of `img1_shape`."""
    gain = min(img1_shape[0] / img0_shape[0], img1_shape[1] / img0_shape[1])
    pad = (img1_shape[1] - img0_shape[1] * gain) / 2, (img1_shape[0] - img0_shape[0] * gain) / 2
    return Placement((gain, gain), pad)


def known_placement(img1_shape: tuple[int, ...], img0_shape: tuple[int, ...], ratio_pad: tuple | None) -> Placement:
    """The placement of `ratio_pad`, a loader's ``((ratio_h, ratio_w), (pad_w, pad_h))``; the centred one for None.

    Each axis has its own ratio: height and width are rounded separately, and a stretched image has two on purpose.
    """
    if ratio_pad is None:
        return placement(img1_shape, img0_shape)
    (ratio_h, ratio_w), (pad_w, pad_h) = ratio_pad
    return Placement((ratio_w, ratio_h), (pad_w, pad_h))


def scale_boxes(
    img1_shape: tuple[int, ...], boxes: Boxes, img0_shape: tuple[int, ...], ratio_pad: tuple | None = None
) -> Boxes:
    """Move xyxy boxes from a letterboxed image back to the original, cut to it, **in place**, and return them.

    Args:
        img1_shape: (height, width) of the letterboxed image.
        boxes: (…, 4+) pixels of the letterboxed image; overwritten with pixels of the original.
        img0_shape: (height, width, …) of the original image.
        ratio_pad: the loader's ``((ratio_h, ratio_w), (pad_w, pad_h))``; None to derive it from the two shapes.
    """
    (ratio_w, ratio_h), (pad_w, pad_h) = known_placement(img1_shape, img0_shape, ratio_pad)
    boxes[..., 0:4:2] = (boxes[..., 0:4:2] - pad_w) / ratio_w
    boxes[..., 1:4:2] = (boxes[..., 1:4:2] - pad_h) / ratio_h
    return clip_boxes(boxes, img0_shape)


def _copy(x: Boxes) -> Boxes:
    return x.clone() if isinstance(x, torch.Tensor) else np.copy(x)
