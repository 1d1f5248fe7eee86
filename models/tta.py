"""Test-time augmentation: views of an image at three scales, one of them mirrored, and their predictions restored."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class TTAView(NamedTuple):
    """An augmented view of the image: resized by `scale`, and mirrored left to right if `flip`."""

    scale: float
    flip: bool


VIEWS = (TTAView(1.0, False), TTAView(0.83, True), TTAView(0.67, False))

_PAD_VALUE = 0.447  # the mean of ImageNet


def scale_img(images: Tensor, ratio: float = 1.0, same_shape: bool = False, gs: int = 32) -> Tensor:
    """Resize `images` (B, C, H, W) by `ratio`, and pad them on the right and at the bottom.

    They are padded to multiples of `gs`, or, with `same_shape`, to the size that they had.
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
    """Height and width in whole pixels of a `height` × `width` image resized by `ratio`, without padding."""
    return int(height * ratio), int(width * ratio)


def augment_images(images: Tensor, view: TTAView, stride: int) -> Tensor:
    """`images` (B, C, H, W) mirrored, resized and padded for `view`."""
    return scale_img(images.flip(3) if view.flip else images, view.scale, gs=stride)


def descale_boxes(decoded: Tensor, view: TTAView, height: int, width: int) -> Tensor:
    """Bring boxes (B, N, 4 + …) from xywh pixels of a view to pixels of the `height` × `width` original.

    They are scaled by the sides in whole pixels; YOLOv5 takes the nominal ratio and is off by up to a pixel.
    """
    seen = scaled_size(height, width, view.scale)
    down, across = height / seen[0], width / seen[1]
    x, y, w, h = (decoded[..., :4] * decoded.new_tensor([across, down, across, down])).unbind(-1)
    return torch.cat((torch.stack((width - x if view.flip else x, y, w, h), -1), decoded[..., 4:]), -1)


def restore_boxes(decoded: Sequence[Tensor], size: Sequence[int], levels: int) -> list[Tensor]:
    """Bring the boxes decoded in each of `VIEWS` back to images of `size` (height, width), and clip their levels."""
    back = [descale_boxes(y, view, size[0], size[1]) for y, view in zip(decoded, VIEWS, strict=True)]
    return clip_augmented(back, levels)


def restore_prototypes(prototypes: Sequence[Tensor], size: Sequence[int]) -> list[Tensor]:
    """Bring prototypes (B, nm, h_i, w_i) of each of `VIEWS` back to images of `size`, at the first one's resolution.

    Padding is left out and mirroring undone. The value of a cell is interpolated at the point of the view that the
    centre of the cell shows.
    """
    shape = prototypes[0].shape[2:]
    return [_restore_map(p, view, size, shape) for p, view in zip(prototypes, VIEWS, strict=True)]


def _restore_map(maps: Tensor, view: TTAView, size: Sequence[int], shape: Sequence[int]) -> Tensor:
    if view == TTAView(1.0, False):
        return maps
    seen = scaled_size(size[0], size[1], view.scale)
    # the share of the padded view that shows the image; the cells of all views have the same number of pixels
    down, across = (seen[i] / size[i] * shape[i] / maps.shape[2 + i] for i in (0, 1))
    theta = [[-across if view.flip else across, 0.0, across - 1], [0.0, down, down - 1]]
    grid = F.affine_grid(maps.new_tensor([theta]).expand(len(maps), 2, 3), [*maps.shape[:2], *shape], False)
    return F.grid_sample(maps, grid, padding_mode="border", align_corners=False)


def clip_augmented(views: list[Tensor], levels: int) -> list[Tensor]:
    """Drop the coarsest level of the largest view (huge objects) and the finest level of the smallest (tiny objects).

    Each level has four times as many cells as the next coarser one, so level i of `levels` holds 4^(levels-1-i) of
    (4^levels - 1) / 3 equal parts.
    """
    parts = sum(4**i for i in range(levels))
    first, last = views[0].shape[1] // parts, views[-1].shape[1] // parts
    return [views[0][:, :-first], *views[1:-1], views[-1][:, last * 4 ** (levels - 1) :]]
