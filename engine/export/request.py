"""`ExportRequest`: the network to export, its metadata, and the options of the user."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from engine.export.calibration import CalibrationImages
from engine.export.network import ExportNetwork, Select
from models.export_metadata import ExportMetadata
from models.yolo import DetectionModel


@dataclass(frozen=True)
class ExportRequest:
    """One export of `model`, which is fused, in evaluation mode, and in the precision that `metadata` give."""

    model: DetectionModel
    metadata: ExportMetadata
    device: torch.device
    opset: int | None = None
    simplify: bool = False
    dynamo: bool = False
    calibration: CalibrationImages | None = None  # only with --int8

    def network(self, select: Select | None = None) -> ExportNetwork:
        """The network to convert; `select` is the suppression in the form that the format can hold."""
        return ExportNetwork(self.model, self.metadata, select).to(self.device)

    def example(self) -> Tensor:
        """Images (B, 3, H, W) of the size and the type that the network takes."""
        kind = torch.float16 if self.metadata.half else torch.float32
        return torch.zeros(self.metadata.batch, 3, *self.metadata.imgsz, dtype=kind, device=self.device)

    def in_float(self) -> ExportRequest:
        """A copy in float32 on the CPU, for converters that choose the precision themselves."""
        metadata = replace(self.metadata, half=False, int8=False)
        return replace(
            self, model=copy.deepcopy(self.model).float().cpu(), metadata=metadata, device=torch.device("cpu")
        )
