"""Façade: names that scripts written for YOLOv5 import from ``utils.segment.dataloaders``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from utils.data import legacy
from utils.data.rasterize import MaskFormat, index_map, rasterize

__all__ = ["create_dataloader", "polygon2mask", "polygons2masks", "polygons2masks_overlap"]


def create_dataloader(
    path: Any,
    imgsz: Any,
    batch_size: int,
    stride: int,
    single_cls: bool = False,
    *,
    mask_downsample_ratio: int = 1,
    overlap_mask: bool = False,
    **kwargs: Any,
) -> tuple[Any, Any]:
    """Make a loader as for detection, whose batches unpack into ``images, targets, paths, shapes, masks``."""
    masks = MaskFormat(mask_downsample_ratio, overlap_mask)
    return legacy.create_dataloader(path, imgsz, batch_size, stride, single_cls, masks=masks, **kwargs)


def polygon2mask(img_size: tuple[int, int], polygons: Any, color: int = 1, downsample_ratio: int = 1) -> np.ndarray:
    """Draw a polygon (1, 2·k) of pixels x, y, x, y, … of an image of `img_size` as a mask (h, w) uint8 of `color`."""
    points = np.asarray(polygons, np.float32).reshape(-1, 2)
    return rasterize([points], (img_size[0], img_size[1]), downsample_ratio)[0] * np.uint8(color)


def polygons2masks(
    img_size: tuple[int, int], polygons: Sequence[Any], color: int, downsample_ratio: int = 1
) -> np.ndarray:
    """Draw polygons in any layout of x, y, x, y, … as masks (n, h, w) uint8 of `color`."""
    points = [np.asarray(polygon, np.float32).reshape(-1, 2) for polygon in polygons]
    return rasterize(points, (img_size[0], img_size[1]), downsample_ratio) * np.uint8(color)


def polygons2masks_overlap(
    img_size: tuple[int, int], segments: Sequence[Any], downsample_ratio: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Returns an index map (h, w), numbered by falling area, and that order (n,), by which to sort the labels."""
    masks = polygons2masks(img_size, segments, 1, downsample_ratio)
    order = np.argsort(-masks.sum((1, 2), dtype=np.int64), kind="stable")
    return index_map(masks[order]), order
