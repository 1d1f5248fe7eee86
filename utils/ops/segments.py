"""Polygons as YOLOv5's functions take them: their boxes, resampled points, and their scaling to the original image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from utils.ops.boxes import Boxes, known_placement, xyxy2xywh


def segments2boxes(segments: Sequence[np.ndarray]) -> np.ndarray:
    """The tight xywh boxes (n, 4) of `segments`, arrays of (k, 2) points, in the points' own unit."""
    corners = [(*s.min(axis=0), *s.max(axis=0)) for s in segments]
    return xyxy2xywh(np.asarray(corners, dtype=np.float32).reshape(-1, 4))


def resample_segments(segments: Sequence[np.ndarray], n: int = 1000) -> list[np.ndarray]:
    """Resample closed polygons to `n` points each, (n, 2) float32, spread evenly over the original points."""
    resampled = []
    for segment in segments:
        closed = np.concatenate((segment, segment[:1]), axis=0)
        at = np.linspace(0, len(closed) - 1, n)
        index = np.arange(len(closed))
        resampled.append(np.stack([np.interp(at, index, closed[:, axis]) for axis in (0, 1)], 1).astype(np.float32))
    return resampled


def scale_segments(
    img1_shape: tuple[int, ...],
    segments: Boxes,
    img0_shape: tuple[int, ...],
    ratio_pad: tuple | None = None,
    normalize: bool = False,
) -> Boxes:
    """Move points (k, 2) from a letterboxed image back to the original, **in place**, and return them.

    Shapes and `ratio_pad` as in `scale_boxes`. `normalize` divides the points by the original's width and height.
    """
    (ratio_w, ratio_h), (pad_w, pad_h) = known_placement(img1_shape, img0_shape, ratio_pad)
    height, width = img0_shape[:2]
    for axis, (pad, ratio, size) in enumerate(((pad_w, ratio_w, width), (pad_h, ratio_h, height))):
        segments[:, axis] = ((segments[:, axis] - pad) / ratio).clip(0, size)
        if normalize:
            segments[:, axis] = segments[:, axis] / size
    return segments
