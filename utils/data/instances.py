"""The objects of one image. Boxes and polygons are moved and cut by the same methods, so they cannot disagree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from utils.ops.geometry import project_boxes, project_polygons
from utils.ops.polygons import clip_polygons, join_polygons, polygon_boxes, split_polygons

MIN_SIDE = 2.0  # pixels
MAX_ASPECT = 100.0
MIN_AREA_KEPT = 0.1  # of what the object had before; its upright box grows by rotation, so this is lenient
MIN_AREA_KEPT_POLYGONS = 0.01


@dataclass(eq=False)
class Instances:
    """n objects. If they have polygons, the boxes are the tight boxes of these; both go through the same matrix.

    Methods return new instances. These may share arrays with the old ones, so arrays must not be written to.
    """

    classes: np.ndarray  # (n,) float32
    boxes: np.ndarray  # (n, 4) float32 xyxy pixels
    polygons: list[np.ndarray] | None = None  # n × (k, 2) float32 pixels

    @classmethod
    def from_normalized(
        cls,
        classes: np.ndarray,
        xyxyn: np.ndarray,
        polygons: Sequence[np.ndarray] | None,
        size: tuple[float, float],
    ) -> Instances:
        """Instances with boxes (n, 4) and polygons n × (k, 2), given in 0..1 of an image of `size` (height, width)."""
        height, width = size
        boxes = xyxyn * np.array((width, height, width, height), np.float32)
        if polygons is None:
            return cls(classes, boxes)
        scale = np.array((width, height), np.float32)
        return cls(classes, boxes, [points * scale for points in polygons])

    @classmethod
    def concatenate(cls, parts: Sequence[Instances]) -> Instances:
        """All objects of `parts`, of which there is at least one; with polygons if the first part has them."""
        classes = np.concatenate([part.classes for part in parts])
        boxes = np.concatenate([part.boxes for part in parts])
        if parts[0].polygons is None:
            return cls(classes, boxes)
        return cls(classes, boxes, [points for part in parts for points in part.polygons or ()])

    def __len__(self) -> int:
        return len(self.classes)

    def select(self, keep: np.ndarray) -> Instances:
        """The objects `keep`: a mask (n,) or indices."""
        polygons = None
        if self.polygons is not None:
            indices = np.flatnonzero(keep) if keep.dtype == bool else keep
            polygons = [self.polygons[i] for i in indices]
        return Instances(self.classes[keep], self.boxes[keep], polygons)

    def warp(self, matrix: np.ndarray) -> Instances:
        """Map all objects through `matrix` (3, 3). A box without polygon becomes the upright box around its image."""
        if self.polygons is None:
            return Instances(self.classes, project_boxes(self.boxes, matrix).astype(np.float32))
        if not self.polygons:
            return self
        points, counts = project_polygons(*join_polygons(self.polygons), matrix)
        polygons = split_polygons(points.astype(np.float32), counts)
        return Instances(self.classes, polygon_boxes(polygons), polygons)

    def clip(self, size: tuple[float, float]) -> Instances:
        """Cut all objects to an image of `size` (height, width). Objects outside keep a box without area."""
        height, width = size
        limits = np.array((width, height, width, height), np.float32)
        boxes = self.boxes.clip(0, limits)
        if self.polygons is None:
            return Instances(self.classes, boxes)
        polygons = list(self.polygons)
        touched = np.flatnonzero((boxes != self.boxes).any(1))
        clipped = clip_polygons([polygons[i] for i in touched], size)
        boxes[touched] = polygon_boxes(clipped)
        for i, points in zip(touched, clipped, strict=True):
            polygons[i] = points
        return Instances(self.classes, boxes, polygons)

    def visible(self, before: Instances, scale: float = 1.0) -> np.ndarray:
        """Which objects (n,) are still worth learning, compared with what they were `before` a zoom by `scale`.

        They are wider and higher than 2 pixels, not thinner than 1:100, and have more than a tenth of the area that
        they would have if nothing had cut them (a hundredth if they have polygons, whose boxes are tight).
        """
        width, height = (self.boxes[:, 2:] - self.boxes[:, :2]).T
        width_before, height_before = (before.boxes[:, 2:] - before.boxes[:, :2]).T * scale
        kept = MIN_AREA_KEPT if self.polygons is None else MIN_AREA_KEPT_POLYGONS
        eps = 1e-16
        aspect = np.maximum(width / (height + eps), height / (width + eps))
        return (
            (width > MIN_SIDE)
            & (height > MIN_SIDE)
            & (width * height / (width_before * height_before + eps) > kept)
            & (aspect < MAX_ASPECT)
        )

    def to_xywhn(self, size: tuple[float, float]) -> np.ndarray:
        """Boxes (n, 4) float32 xywh, normalised by an image of `size` (height, width)."""
        height, width = size
        low, high = self.boxes[:, :2], self.boxes[:, 2:]
        scale = np.array((width, height, width, height), np.float32)
        return np.concatenate(((low + high) / 2, high - low), 1) / scale
