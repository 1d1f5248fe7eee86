"""Tensors brought from any device to the CPU, as tensors or as numpy arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch


def to_cpu(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The `tensors`, which may have different sizes and are on one device, as float32 on the CPU.

    They are copied all at once, because every copy waits for the GPU. Tensors that are on the CPU already are returned
    as they are, or converted if necessary.
    """
    if all(tensor.device.type == "cpu" for tensor in tensors):
        return [tensor.float() for tensor in tensors]
    packed = torch.cat([tensor.float().flatten() for tensor in tensors]).cpu()
    parts = packed.split([tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


def to_numpy(array: Any) -> np.ndarray:
    """`array`, a tensor on any device, an array or a list, as a numpy array; it is copied only if necessary."""
    return array.detach().cpu().numpy() if isinstance(array, torch.Tensor) else np.asarray(array)
