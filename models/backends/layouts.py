"""Converts the outputs of an exported file, whatever their layout, to those of a model in evaluation mode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from models.anchor_grid import make_anchor_grid
from models.export_metadata import ExportMetadata
from utils.ops.boxes import xyxy2xywh


def as_model_output(outputs: Mapping[str, Tensor], metadata: ExportMetadata) -> tuple[Any, ...]:
    """``(decoded, None)``, or for a segmenter ``(decoded, prototypes, None)``, as `models.yolo.Detect` returns them.

    `outputs` have the names of `metadata.outputs`. decoded is (B, N, 5 + nc [+ nm]) float32: xywh in pixels of the
    input, objectness, class probabilities and mask coefficients. Non-maximum suppression gives the same detections as
    for the model's own output; in layout "nms" it finds nothing left to suppress.
    """
    values = [outputs[name].float() for name in metadata.outputs]
    prototypes = values.pop() if metadata.nm else None
    decoded = _CONVERSIONS[metadata.layout](values, metadata)
    return (decoded, None) if prototypes is None else (decoded, prototypes, None)


def _from_decoded(values: Sequence[Tensor], metadata: ExportMetadata) -> Tensor:
    return values[0]


def _from_separate(values: Sequence[Tensor], metadata: ExportMetadata) -> Tensor:
    """Scores become class probabilities of objectness 1, because only the product of the two counts."""
    boxes, scores, *coefficients = values
    return torch.cat((boxes, torch.ones_like(boxes[..., :1]), scores, *coefficients), 2)


def _from_raw(values: Sequence[Tensor], metadata: ExportMetadata) -> Tensor:
    """Decode head maps (B, na·no, ny, nx) of each level as `Detect.decode` does."""
    anchors, stride = values[0].new_tensor(metadata.anchors), values[0].new_tensor(metadata.strides)
    na, known = anchors.shape[1], 5 + len(metadata.names)
    sizes = [(y.shape[2], y.shape[3]) for y in values]
    grid = make_anchor_grid(sizes, stride, anchors / stride.view(-1, 1, 1), values[0])
    flat = torch.cat([y.unflatten(1, (na, -1)).transpose(1, 2).flatten(2) for y in values], 2)  # (B, no, N)
    p = flat[:, :known].sigmoid()
    xy, wh = (p[:, :4] * 2).split(2, 1)
    parts = (xy + grid.centre) * grid.stride, wh * wh * grid.anchors, p[:, 4:], flat[:, known:]
    return torch.cat(parts, 1).transpose(1, 2)


def _from_nms(values: Sequence[Tensor], metadata: ExportMetadata) -> Tensor:
    """Confidence becomes objectness, and the class gets probability 1; the padding has confidence 0."""
    boxes, confidence, cls, coefficients = values[0].split((4, 1, 1, metadata.nm), 2)
    classes = (cls == torch.arange(len(metadata.names), device=cls.device)).to(cls.dtype)
    coefficients = coefficients / confidence.where(confidence > 0, 1)  # suppression multiplies them again
    return torch.cat((xyxy2xywh(boxes), confidence, classes, coefficients), 2)


_CONVERSIONS = {"decoded": _from_decoded, "separate": _from_separate, "raw": _from_raw, "nms": _from_nms}
