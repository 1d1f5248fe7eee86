"""The runtime for checkpoints: PyTorch itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from models.loading import load_model
from utils.logging import LOGGER


class PyTorchBackend(nn.Module):
    """Runs one checkpoint, or several as an ensemble.

    `fp16` is True where half precision was asked for and the device is a GPU. On the CPU there is a warning instead,
    and the model computes in float32.
    """

    def __init__(
        self, weights: Sequence[str], device: torch.device, fp16: bool = False, fuse: bool = True, trust: bool = False
    ) -> None:
        super().__init__()
        self.fp16 = fp16 and device.type != "cpu"
        if fp16 and not self.fp16:
            LOGGER.warning("half precision needs a GPU; continuing in float32")
        self.model: Any = load_model(list(weights), device, fuse=fuse, half=self.fp16, trust=trust)
        self.names: dict[int, str] = self.model.names
        self.stride = max(int(self.model.stride.max()), 32)
        self.task: str = self.model.task

    def forward(self, im: Tensor, augment: bool = False, visualize: Any = False) -> Any:
        """The output of the model in evaluation mode for images (B, 3, H, W); see `models.yolo.Detect`."""
        return self.model(im.half() if self.fp16 else im.float(), augment=augment, visualize=visualize)
