"""The network as it is exported: its outputs have one of the layouts of `models.export_metadata.LAYOUTS`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from engine.export.suppression import best_rows
from models.activations import ACTIVATIONS
from models.anchor_grid import make_anchor_grid
from models.export_metadata import ExportMetadata
from models.yolo import BaseModel, Detect, DetectionModel

Select = Callable[[Tensor, Tensor, int, float, float], Tensor]  # see `engine.export.suppression`


class _HeadMaps(nn.Module):
    """The last row of the network: outputs (B, na·no, ny, nx) of the convolutions in `head`, and prototypes."""

    def __init__(self, head: Detect) -> None:
        super().__init__()
        self.f, self.i = head.f, head.i  # every row of a network has these
        self.m = head.m
        self.proto = getattr(head, "proto", None)

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        maps = [conv(level) for level, conv in zip(x, self.m, strict=True)]
        return maps if self.proto is None else [*maps, self.proto(x[0])]


class ExportNetwork(nn.Module):
    """A network with the outputs that `metadata` describe, which shares the weights of `model`.

    `model` is fused and in evaluation mode. The decoding is that of `Detect` in operations that every converter knows:
    at most four dimensions, no power, and for a fixed input size constants instead of computed grids. It is done in
    float32, whatever the type of the weights. `select` is the suppression of layout "nms".
    """

    def __init__(self, model: DetectionModel, metadata: ExportMetadata, select: Select | None = None) -> None:
        super().__init__()
        head = model.head
        self.network = BaseModel()
        self.network.model = nn.Sequential(*list(model.model)[:-1], _HeadMaps(head))
        self.network.save = model.save
        self.metadata, self.select = metadata, select
        self.nl, self.na, self.no = head.nl, head.na, head.no
        self.strides, self.known = metadata.strides, 5 + head.nc
        self.cells: list[int] = []  # per level, as numbers, because sizes read from tensors are traced as operations
        for i, (stride, anchors) in enumerate(zip(metadata.strides, metadata.anchors, strict=True)):
            size = torch.tensor(anchors)  # (na, 2) pixels; the model's own may be in half precision
            self.register_buffer(f"anchor{i}", size.view(1, self.na, 2, 1))
            ny, nx = (side // stride for side in metadata.imgsz)
            self.register_buffer(f"centre{i}", _centres(ny, nx, size))
            self.cells.append(ny * nx)
        self.eval()

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The outputs that `metadata.outputs` names, for images (B, 3, H, W), RGB 0..1; a single one is no tuple."""
        found = self.network(images)
        outputs = self._outputs(found[: self.nl], found[self.nl :])
        return outputs[0] if len(outputs) == 1 else outputs

    def _outputs(self, maps: list[Tensor], prototypes: list[Tensor]) -> tuple[Tensor, ...]:
        if self.metadata.layout == "raw":
            return *maps, *prototypes
        if self.metadata.half:
            maps, prototypes = [y.float() for y in maps], [y.float() for y in prototypes]
        levels = [self._decode(i, y) for i, y in enumerate(maps)]
        boxes, probabilities, *more = (torch.cat(parts, 1) for parts in zip(*levels, strict=True))
        if self.metadata.layout == "decoded":
            return torch.cat((boxes, probabilities, *more), 2), *prototypes
        objectness, classes = probabilities[..., :1], probabilities[..., 1:]
        coefficients = [c * objectness for c in more]
        if self.metadata.layout == "separate":
            return boxes, classes * objectness, *coefficients, *prototypes
        return *self._suppressed(boxes, objectness, classes, coefficients), *prototypes

    def _decode(self, level: int, y: Tensor) -> tuple[Tensor, ...]:
        """Decode a head map (B, na·no, ny, nx) to boxes, probabilities and, for a segmenter, coefficients.

        Boxes are (B, n, 4) xywh in pixels, probabilities (B, n, 1 + nc), coefficients (B, n, nm).
        """
        anchor = getattr(self, f"anchor{level}")
        if self.metadata.dynamic:
            centre = _centres(y.shape[2], y.shape[3], y)
            y = y.reshape(y.shape[0], self.na, self.no, -1)
        else:
            centre = getattr(self, f"centre{level}")
            y = y.reshape(-1, self.na, self.no, self.cells[level])
        p = y[:, :, : self.known].sigmoid()  # (B, na, 5 + nc, ny·nx)
        xy = (p[:, :, :2] * 2 + centre) * self.strides[level]
        wh = p[:, :, 2:4] * 2
        parts = [torch.cat((xy, wh * wh * anchor), 2), p[:, :, 4:]]
        if self.no > self.known:
            parts.append(y[:, :, self.known :])
        widths = (4, self.known - 4, self.no - self.known)
        return tuple(self._rows(part, level, c) for part, c in zip(parts, widths, strict=False))

    def _rows(self, part: Tensor, level: int, c: int) -> Tensor:
        """(B, na, c, ny·nx) → (B, na·ny·nx, c)."""
        part = part.permute(0, 1, 3, 2)
        if self.metadata.dynamic:
            return part.reshape(part.shape[0], -1, c)
        return part.reshape(-1, self.na * self.cells[level], c)

    def _suppressed(
        self, boxes: Tensor, objectness: Tensor, classes: Tensor, coefficients: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Detections (B, max_det, 6 + nm) and their number (B,), by the rules of `utils.ops.nms` for the best class."""
        metadata = self.metadata
        assert self.select is not None  # layout "nms" has all of these
        assert metadata.max_det is not None
        assert metadata.iou_thres is not None
        assert metadata.conf_thres is not None
        xy, half = boxes[..., :2], boxes[..., 2:] / 2
        corners = torch.cat((xy - half, xy + half), 2)
        best, cls = classes.max(2, keepdim=True)  # (B, N, 1)
        conf = best * objectness
        scores = conf
        if not metadata.agnostic:
            scores = conf * (cls == torch.arange(classes.shape[2], device=cls.device)).to(conf.dtype)
        selected = self.select(
            corners, scores.transpose(1, 2), metadata.max_det, metadata.iou_thres, metadata.conf_thres
        )
        rows = torch.cat((corners, conf, cls.to(conf.dtype), *coefficients), 2)
        return best_rows(rows, selected, metadata.max_det)


def _centres(ny: int, nx: int, like: Tensor) -> Tensor:
    """The column and row of each cell, minus a half (1, 1, 2, ny·nx): `centre` of `make_anchor_grid`."""
    one = torch.ones(1, 1, 2, device=like.device)
    return make_anchor_grid([(ny, nx)], one[0, 0], one, like).centre.view(1, 1, 2, -1)


def activation_of(model: nn.Module) -> str:
    """The names of the activations in `model`, the most frequent one first: ``"ReLU6+SiLU"``."""
    kinds = [type(m).__name__ for _, m in model.named_modules(remove_duplicate=False)]
    counts = Counter(kind for kind in kinds if kind in ACTIVATIONS and kind not in ("Identity", "Sigmoid"))
    return "+".join(kind for kind, _ in counts.most_common()) or "Identity"


def metadata_of(model: DetectionModel, **values: Any) -> ExportMetadata:
    """The metadata of an export of `model`; `values` are the fields that do not follow from the model."""
    head = model.head
    pixels = head.anchors.float() * head.stride.float().view(-1, 1, 1)
    return ExportMetadata(
        task=model.task,
        names=dict(model.names),
        strides=[int(s) for s in head.stride],
        anchors=[[[round(float(v), 4) for v in anchor] for anchor in level] for level in pixels],
        activation=activation_of(model),
        nm=getattr(head, "nm", 0),
        **values,
    )
