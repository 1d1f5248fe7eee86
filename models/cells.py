"""Where the predictions of a detection head sit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Cells(NamedTuple):
    """All N predictions of an image: level by level, in each anchor by anchor, in each row by row."""

    centre: Tensor  # (2, N) column - 0.5 and row - 0.5, in cells
    stride: Tensor  # (1, N) pixels a cell
    anchors: Tensor  # (2, N) width and height, pixels


def make_cells(sizes: Sequence[tuple[int, int]], stride: Tensor, anchors: Tensor, like: Tensor) -> Cells:
    """The cells of levels with `sizes` (ny, nx), `stride` (nl) and `anchors` (nl, na, 2) w, h in cells.

    They have the type and the device of `like`. Made of plain operations on the sizes, so that a recorded graph can
    follow sizes that change.
    """
    na = anchors.shape[1]
    centres, strides, pixels = [], [], []
    for level, (ny, nx) in enumerate(sizes):
        rows = torch.arange(ny, device=like.device, dtype=like.dtype).view(ny, 1).expand(ny, nx)
        columns = torch.arange(nx, device=like.device, dtype=like.dtype).expand(ny, nx)
        centre = torch.stack((columns, rows)) - 0.5  # (2, ny, nx)
        cell = stride[level].to(like)
        size = (anchors[level] * stride[level]).to(like).T.reshape(2, na, 1)
        centres.append(centre.unsqueeze(1).expand(2, na, ny, nx).reshape(2, na * ny * nx))
        strides.append(cell.expand(1, na * ny * nx))
        pixels.append(size.expand(2, na, ny * nx).reshape(2, na * ny * nx))
    return Cells(torch.cat(centres, 1), torch.cat(strides, 1), torch.cat(pixels, 1))


def is_recorded(x: Tensor) -> bool:
    """True while a tracer or compiler writes down the operations on `x`, or `x` is its stand-in for data."""
    return torch.jit.is_tracing() or torch.compiler.is_compiling() or type(x) is not Tensor
