"""Façade: names that scripts written for YOLOv5 import from ``utils.segment.general``."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from utils.ops.boxes import known_placement
from utils.ops.masks import BoxMask, crop_mask, mask_iou, mask_to_polygon, process_mask, process_mask_native

__all__ = [
    "crop_mask",
    "mask_iou",
    "masks2segments",
    "masks_iou",
    "process_mask",
    "process_mask_native",
    "process_mask_upsample",
    "scale_image",
]

# The same for an image that fills the network's input, because it has no border that must be cut off.
process_mask_upsample = process_mask_native


def masks_iou(mask1: torch.Tensor, mask2: torch.Tensor, eps: float = 1e-7) -> torch.Tensor:
    """The IoU (n,) of the masks (n, pixels) of two stacks, pair by pair."""
    both = (mask1 * mask2).sum(1)
    return both / (mask1.sum(1) + mask2.sum(1) - both + eps)


def masks2segments(masks: torch.Tensor, strategy: str = "largest") -> list[np.ndarray]:
    """The outline (k, 2) float32 of each mask (n, h, w), in pixels. An empty mask has no points.

    All parts of a mask are in it, whatever the `strategy` ("concat", "largest") is. The largest part alone would be a
    wrong outline.
    """
    outlines = (mask_to_polygon(BoxMask(0, 0, mask)) for mask in masks.bool().cpu().numpy())
    return [np.zeros((0, 2), np.float32) if outline is None else outline for outline in outlines]


def scale_image(
    im1_shape: tuple[int, int], masks: np.ndarray, im0_shape: tuple[int, ...], ratio_pad: Any = None
) -> np.ndarray:
    """Scale `masks` (h, w[, n]) of a letterboxed image of `im1_shape` (h, w) to the original image of `im0_shape`.

    The border is cut off. `ratio_pad` is as in `scale_boxes`. Returns (H, W, n) with the original's H and W; n is 1 for
    a single mask.
    """
    import cv2

    pad_x, pad_y = known_placement(im1_shape, im0_shape, ratio_pad).pad
    content = masks[int(pad_y) : int(im1_shape[0] - pad_y), int(pad_x) : int(im1_shape[1] - pad_x)]
    scaled = cv2.resize(content, (im0_shape[1], im0_shape[0]))
    return scaled if scaled.ndim == 3 else scaled[:, :, None]
