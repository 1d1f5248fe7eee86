"""Test-time augmentation: the image at three scales, once mirrored, and the predictions brought back to its frame."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class View(NamedTuple):
    """One look at the image: resized by `scale`, mirrored left to right if `flip`."""

    scale: float
    flip: bool


VIEWS = (View(1.0, False), View(0.83, True), View(0.67, False))

_PAD_VALUE = 0.447  # the mean of ImageNet


def scale_img(images: Tensor, ratio: float = 1.0, same_shape: bool = False, gs: int = 32) -> Tensor:
    """`images` (B, C, H, W) resized by `ratio`, then padded right and below.

    To multiples of `gs`, or, with `same_shape`, to the size they had.
    """
    if ratio == 1.0:
        return images
    height, width = images.shape[2:]
    size = scaled_size(height, width, ratio)
    images = F.interpolate(images, size=size, mode="bilinear", align_corners=False)
    if not same_shape:  # without padding, sides would no longer be multiples of the stride
        height, width = (math.ceil(side * ratio / gs) * gs for side in (height, width))
    return F.pad(images, [0, width - size[1], 0, height - size[0]], value=_PAD_VALUE)


def scaled_size(height: int, width: int, ratio: float) -> tuple[int, int]:
    """Whole pixels of a `height` × `width` image at `ratio`, padding not counted."""
    return int(height * ratio), int(width * ratio)


def look(images: Tensor, view: View, stride: int) -> Tensor:
    """`images` as `view` sees them."""
    return scale_img(images.flip(3) if view.flip else images, view.scale, gs=stride)


def look_back(decoded: Tensor, view: View, height: int, width: int) -> Tensor:
    """Boxes (B, N, 4 + …) xywh pixels of a view, in pixels of the original images of this size.

    They are scaled by what the sides became in whole pixels; YOLOv5 takes the nominal ratio and is up to a pixel off.
    """
    seen = scaled_size(height, width, view.scale)
    down, across = height / seen[0], width / seen[1]
    x, y, w, h = (decoded[..., :4] * decoded.new_tensor([across, down, across, down])).unbind(-1)
    return torch.cat((torch.stack((width - x if view.flip else x, y, w, h), -1), decoded[..., 4:]), -1)


def without_tails(views: list[Tensor], levels: int) -> list[Tensor]:
    """The largest view without its coarsest level (huge objects) and the smallest without its finest (tiny ones).

    Each level has four times the cells of the next coarser one, so level i of `levels` holds 4^(levels-1-i) of
    (4^levels - 1) / 3 equal parts.
    """
    parts = sum(4**i for i in range(levels))
    first, last = views[0].shape[1] // parts, views[-1].shape[1] // parts
    return [views[0][:, :-first], *views[1:-1], views[-1][:, last * 4 ** (levels - 1) :]]
