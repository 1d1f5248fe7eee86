"""Test-time augmentation: the image at three scales, once mirrored, and the predictions brought back to its frame."""

from __future__ import annotations

import math
from collections.abc import Sequence
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


def boxes_back(decoded: Sequence[Tensor], size: Sequence[int], levels: int) -> list[Tensor]:
    """What the network decoded of each of `VIEWS`, brought back to images of `size` (height, width), without tails."""
    back = [look_back(y, view, size[0], size[1]) for y, view in zip(decoded, VIEWS, strict=True)]
    return without_tails(back, levels)


def prototypes_back(prototypes: Sequence[Tensor], size: Sequence[int]) -> list[Tensor]:
    """Prototypes (B, nm, h_i, w_i) of each of `VIEWS`, brought back to images of `size` and to the size of the first.

    Padding is left out and mirroring undone; a cell's value is interpolated at the point of the view that its centre
    shows.
    """
    shape = prototypes[0].shape[2:]
    return [_map_back(p, view, size, shape) for p, view in zip(prototypes, VIEWS, strict=True)]


def _map_back(maps: Tensor, view: View, size: Sequence[int], shape: Sequence[int]) -> Tensor:
    if view == View(1.0, False):
        return maps
    seen = scaled_size(size[0], size[1], view.scale)
    # what of the view is the image and not padding, as a part of the padded view; all cells have the same pixels
    down, across = (seen[i] / size[i] * shape[i] / maps.shape[2 + i] for i in (0, 1))
    theta = [[-across if view.flip else across, 0.0, across - 1], [0.0, down, down - 1]]
    grid = F.affine_grid(maps.new_tensor([theta]).expand(len(maps), 2, 3), [*maps.shape[:2], *shape], False)
    return F.grid_sample(maps, grid, padding_mode="border", align_corners=False)


def without_tails(views: list[Tensor], levels: int) -> list[Tensor]:
    """The largest view without its coarsest level (huge objects) and the smallest without its finest (tiny ones).

    Each level has four times the cells of the next coarser one, so level i of `levels` holds 4^(levels-1-i) of
    (4^levels - 1) / 3 equal parts.
    """
    parts = sum(4**i for i in range(levels))
    first, last = views[0].shape[1] // parts, views[-1].shape[1] // parts
    return [views[0][:, :-first], *views[1:-1], views[-1][:, last * 4 ** (levels - 1) :]]
