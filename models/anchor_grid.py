"""The anchor grid of a detection head: the cell and the anchor that each prediction belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class AnchorGrid(NamedTuple):
    """Position, stride and anchor of all N predictions for one image.

    They are ordered by level, within a level by anchor, and for each anchor row by row.
    """

    centre: Tensor  # (2, N) column - 0.5 and row - 0.5, in cells
    stride: Tensor  # (1, N) pixels per cell
    anchors: Tensor  # (2, N) width and height, pixels


def make_anchor_grid(sizes: Sequence[tuple[int, int]], stride: Tensor, anchors: Tensor, like: Tensor) -> AnchorGrid:
    """The grid for levels of `sizes` (ny, nx), `stride` (nl) and `anchors` (nl, na, 2), width and height in cells.

    Its tensors have the type and the device of `like`. It is computed by plain operations on the sizes, so that a
    traced graph can follow sizes that change.
    """
    na = anchors.shape[1]
    centres, strides, pixels = [], [], []
    for level, (ny, nx) in enumerate(sizes):
        rows = torch.arange(ny, device=like.device, dtype=like.dtype).view(ny, 1).expand(ny, nx)
        columns = torch.arange(nx, device=like.device, dtype=like.dtype).expand(ny, nx)
        centre = torch.stack((columns, rows)) - 0.5  # (2, ny, nx)
        pixels_per_cell = stride[level].to(like)
        size = (anchors[level] * stride[level]).to(like).T.reshape(2, na, 1)
        centres.append(centre.unsqueeze(1).expand(2, na, ny, nx).reshape(2, na * ny * nx))
        strides.append(pixels_per_cell.expand(1, na * ny * nx))
        pixels.append(size.expand(2, na, ny * nx).reshape(2, na * ny * nx))
    return AnchorGrid(torch.cat(centres, 1), torch.cat(strides, 1), torch.cat(pixels, 1))


def is_traced(x: Tensor) -> bool:
    """True while a tracer or a compiler records the operations on `x`, or where `x` only stands in for data."""
    return torch.jit.is_tracing() or torch.compiler.is_compiling() or type(x) is not Tensor
