"""The size of a network: its layers, parameters and floating-point operations."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, NamedTuple

import torch
from torch import nn

from utils.logging import LOGGER


class ModelInfo(NamedTuple):
    """`layers` counts all modules, containers included, each once; `gflops` is for one image of the size asked for."""

    layers: int
    parameters: int
    gflops: float | None

    def __str__(self) -> str:
        flops = "" if self.gflops is None else f", {self.gflops:.1f} GFLOPs"
        return f"{self.layers} layers, {self.parameters} parameters{flops}"


def measure_model(model: nn.Module, imgsz: int | tuple[int, int] = 640) -> ModelInfo:
    """Count `model`; no operations where the thop package is missing."""
    layers = sum(1 for _ in model.modules())
    return ModelInfo(layers, sum(p.numel() for p in model.parameters()), count_gflops(model, imgsz))


def count_gflops(model: nn.Module, imgsz: int | tuple[int, int] = 640) -> float | None:
    """Multiplications and additions of one forward at `imgsz` (side, or height and width), in 1e9; None without thop.

    Counted at one stride × stride image and scaled by area: of a fully convolutional network, that is the same.
    """
    try:
        import thop
    except ImportError:
        return None
    parameter = next(model.parameters())
    stride = max(int(torch.as_tensor(getattr(model, "stride", 32)).max()), 32)
    channels = getattr(model, "yaml", {}).get("ch", 3)
    image = torch.zeros(1, channels, stride, stride, device=parameter.device, dtype=parameter.dtype)
    twin = deepcopy(model).eval()  # thop leaves buffers behind
    macs = thop.profile(twin, inputs=(image,), custom_ops={nn.Upsample: _count_upsample}, verbose=False)[0]
    height, width = (imgsz, imgsz) if isinstance(imgsz, int) else imgsz
    return 2 * macs / 1e9 * (height / stride) * (width / stride)


def _count_upsample(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
    """One operation a value, as the figures YOLOv5 publishes have it; releases of thop differ."""
    module.total_ops += output.nelement()  # type: ignore[operator, assignment]


def model_info(model: nn.Module, verbose: bool = False, imgsz: int | tuple[int, int] = 640) -> ModelInfo:
    """Log one line about `model`, and one for each parameter if `verbose`; return the figures."""
    if verbose:
        LOGGER.info(f"{'parameter':<50}{'gradient':>10}{'count':>12}  shape")
        for name, p in model.named_parameters():
            LOGGER.info(f"{name:<50}{p.requires_grad!s:>10}{p.numel():>12}  {list(p.shape)}")
    info = measure_model(model, imgsz)
    LOGGER.info(f"{type(model).__name__} summary: {info}")
    return info
