"""One validated image: the detections and the labels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from utils.data.batch import Batch
from utils.ops.boxes import scale_boxes, xywh2xyxy


@dataclass(frozen=True)
class ValidatedImage:
    """An image of a batch with its detections and labels, in pixels of the original image.

    `size` is (height, width) of the original, `detections (n, 6 [+ nm])` are xyxy, confidence and class, and `labels
    (m, 5)` are class and xyxy. `input_detections` are the same detections in pixels of the network input, in which the
    original is letterboxed with `ratio_pad`, ((ratio_h, ratio_w), (pad_w, pad_h)), or which it is where that is None.
    All of these are on the CPU, and so is `batch`, of which this is image number `index`. The model's `output` for the
    batch stays on its device. A task that needs more than boxes reads it, and stores what it computes in `cache`.
    """

    path: str
    size: tuple[int, int]
    detections: torch.Tensor
    labels: torch.Tensor
    input_detections: torch.Tensor
    index: int
    batch: Batch
    output: Any
    ratio_pad: tuple[tuple[float, float], tuple[float, float]] | None = None
    cache: dict[str, Any] = field(default_factory=dict)

    @property
    def input_shape(self) -> tuple[int, int]:
        """(height, width) of the network input."""
        return self.batch.images.shape[2], self.batch.images.shape[3]

    def polygons(self) -> list[np.ndarray]:
        """The labels' outlines, m × (k, 2), in pixels of the network input; for data read with polygons."""
        return self.batch.outlines(self.index)

    def original_polygons(self) -> list[np.ndarray]:
        """The labels' outlines, m × (k, 2), in pixels of the original image."""
        if self.ratio_pad is None:
            return self.polygons()
        ratio, pad = (np.array(pair, np.float32) for pair in self.ratio_pad)
        return [(points - pad) / ratio[::-1] for points in self.polygons()]


def validated_images(batch: Batch, detections: list[torch.Tensor], output: Any) -> list[ValidatedImage]:
    """The images of `batch` with their `detections`, boxes scaled back from the network input to the original images.

    `batch.targets` hold normalised boxes. Labels and detections are scaled back in the same way, so that a rounding of
    the letterbox shifts both alike.
    """
    height, width = batch.images.shape[2:]
    labels = batch.targets[:, 1:].clone()
    labels[:, 1:] = xywh2xyxy(labels[:, 1:] * torch.tensor([width, height] * 2, device=labels.device))
    images = []
    for i, found in enumerate(detections):
        shapes = batch.shapes[i] if batch.shapes is not None else None
        size, ratio_pad = shapes if shapes is not None else ((height, width), None)
        scaled, known = found.clone(), labels[batch.targets[:, 0] == i]
        scale_boxes((height, width), scaled, size, ratio_pad)
        known[:, 1:] = scale_boxes((height, width), known[:, 1:], size, ratio_pad)
        images.append(
            ValidatedImage(batch.paths[i], (size[0], size[1]), scaled, known, found, i, batch, output, ratio_pad)
        )
    return images
