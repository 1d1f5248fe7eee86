"""One validated image: what the model found and what the labels say."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from utils.data.batch import Batch
from utils.ops.boxes import scale_boxes, xywh2xyxy


@dataclass(frozen=True)
class Scene:
    """An image of a batch with its detections and labels, in pixels of the original picture.

    `size` (height, width) of the original; `detections (n, 6 [+ nm])` xyxy, confidence, class; `labels (m, 5)` class,
    xyxy. `raw` are the detections in pixels of the network input, in which the original lies as `placement` says:
    ((ratio_h, ratio_w), (pad_w, pad_h)), None where the two are one. All of that is on the CPU, as is the `batch`, in
    which the image has the number `index`. The model's `output`, which stays on its device, is there for tasks that
    need more than boxes, and `kept` for what they work out once.
    """

    path: str
    size: tuple[int, int]
    detections: torch.Tensor
    labels: torch.Tensor
    raw: torch.Tensor
    index: int
    batch: Batch
    output: Any
    placement: tuple[tuple[float, float], tuple[float, float]] | None = None
    kept: dict[str, Any] = field(default_factory=dict)

    @property
    def input_shape(self) -> tuple[int, int]:
        """(height, width) of the network input."""
        return self.batch.images.shape[2], self.batch.images.shape[3]

    def polygons(self) -> list[np.ndarray]:
        """The labels' outlines, m × (k, 2), pixels of the network input; for data read with polygons."""
        return self.batch.outlines(self.index)

    def original_polygons(self) -> list[np.ndarray]:
        """The same in pixels of the original picture."""
        if self.placement is None:
            return self.polygons()
        ratio, pad = (np.array(pair, np.float32) for pair in self.placement)
        return [(points - pad) / ratio[::-1] for points in self.polygons()]


def scenes_of(batch: Batch, detections: list[torch.Tensor], output: Any) -> list[Scene]:
    """The scenes of a batch, boxes moved back from the letterboxed input to the original pictures.

    `batch.targets` hold normalised boxes; labels and detections take the same way back, so that a rounding of the
    letterbox shifts both alike.
    """
    height, width = batch.images.shape[2:]
    labels = batch.targets[:, 1:].clone()
    labels[:, 1:] = xywh2xyxy(labels[:, 1:] * torch.tensor([width, height] * 2, device=labels.device))
    scenes = []
    for i, raw in enumerate(detections):
        placed = batch.shapes[i] if batch.shapes is not None else None
        size, placement = placed if placed is not None else ((height, width), None)
        found, known = raw.clone(), labels[batch.targets[:, 0] == i]
        scale_boxes((height, width), found, size, placement)
        known[:, 1:] = scale_boxes((height, width), known[:, 1:], size, placement)
        scenes.append(Scene(batch.paths[i], (size[0], size[1]), found, known, raw, i, batch, output, placement))
    return scenes
