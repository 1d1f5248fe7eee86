"""Results of many sizes from the device to the CPU at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def fetched(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """`tensors`, of one device, as float32 on the CPU: in a single copy, for each copy waits for the GPU.

    Those that lie on the CPU already are returned as they are, converted where need be.
    """
    if all(tensor.device.type == "cpu" for tensor in tensors):
        return [tensor.float() for tensor in tensors]
    packed = torch.cat([tensor.float().flatten() for tensor in tensors]).cpu()
    parts = packed.split([tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]
