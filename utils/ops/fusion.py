"""Folds batch normalisation into the convolution before it, for inference.

In evaluation mode a batch norm is the affine map ``y = (x - mean) * gamma / sqrt(var + eps) + beta`` of each channel,
and a convolution followed by an affine map is a convolution. The sum of parallel convolutions of one input is a
convolution too, which is the whole idea of RepVGG (Ding et al. 2021, section 3.3).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Kernel(NamedTuple):
    """Weight (c2, c1 / groups, k, k) and bias (c2) of a convolution; ``+`` combines two parallel convolutions."""

    weight: Tensor
    bias: Tensor

    def __add__(self, other: Kernel) -> Kernel:  # type: ignore[override]
        return Kernel(self.weight + other.weight, self.bias + other.bias)


def affine_of(bn: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """The scale (c) and the shift (c), float32, that `bn` applies in evaluation mode."""
    if bn.running_mean is None or bn.running_var is None:
        raise ValueError("a batch norm without running statistics depends on its batch and cannot be folded")
    scale = torch.rsqrt(bn.running_var.float() + bn.eps)
    if bn.weight is not None:
        scale = scale * bn.weight.float()
    shift = -bn.running_mean.float() * scale
    if bn.bias is not None:
        shift = shift + bn.bias.float()
    return scale, shift


def fold(conv: nn.Conv2d, bn: nn.BatchNorm2d | None) -> Kernel:
    """The float32 kernel that does the same as `conv` followed by `bn` (None for nothing)."""
    weight = conv.weight.float()
    bias = weight.new_zeros(weight.shape[0]) if conv.bias is None else conv.bias.float()
    if bn is None:
        return Kernel(weight, bias)
    scale, shift = affine_of(bn)
    return Kernel(weight * scale.view(-1, 1, 1, 1), bias * scale + shift)


def identity_kernel(channels: int, groups: int, like: Tensor) -> Tensor:
    """A 1×1 weight (channels, channels / groups, 1, 1) that leaves its input as it is."""
    width = channels // groups
    weight = like.new_zeros(channels, width, 1, 1, dtype=torch.float32)
    rows = torch.arange(channels, device=weight.device)
    weight[rows, rows % width] = 1.0
    return weight


def centred(kernel: Kernel, size: int) -> Kernel:
    """Extend a 1×1 kernel by zeros to `size` × `size` (odd)."""
    return kernel._replace(weight=F.pad(kernel.weight, [size // 2] * 4))


def with_kernel(conv: nn.Conv2d, kernel: Kernel) -> nn.Conv2d:
    """A biased convolution with the geometry, device and dtype of `conv` and the numbers of `kernel`, not trainable."""
    fused = nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,  # type: ignore[arg-type]
        conv.stride,  # type: ignore[arg-type]
        conv.padding,  # type: ignore[arg-type]
        conv.dilation,  # type: ignore[arg-type]
        conv.groups,
        padding_mode=conv.padding_mode,
        device="meta",  # no random initialisation that is overwritten at once
    )
    fused.weight = nn.Parameter(kernel.weight.detach().to(conv.weight), requires_grad=False)
    fused.bias = nn.Parameter(kernel.bias.detach().to(conv.weight), requires_grad=False)
    return fused.train(conv.training)


def fuse_conv_and_bn(conv: nn.Conv2d, bn: nn.BatchNorm2d) -> nn.Conv2d:
    """One convolution that does the same as `conv` followed by `bn` in evaluation mode. Neither is changed."""
    return with_kernel(conv, fold(conv, bn))
