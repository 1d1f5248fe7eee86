"""Reads from the predictions what a loss needs: all objectness logits, and whole rows where there are objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch


class _Gather(torch.autograd.Function):
    """See `gather_rows`.

    It works in the order in which a prediction lies in memory, which is that of its convolution. Copying the prediction
    or the gradient into the order of its dimensions would cost more than everything else here.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, cell: torch.Tensor, valid: torch.Tensor, counts: Sequence[int], *predictions: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        rows, places, ctx.layouts = [], [], []
        for prediction, own in zip(predictions, cell.split(list(counts)), strict=True):
            order = sorted(range(prediction.ndim), key=prediction.stride, reverse=True)
            dense = prediction.permute(order).contiguous()  # no copy of what a convolution has written
            back = [order.index(dimension) for dimension in range(prediction.ndim)]
            places.append(_places(own, dense.permute(back)))
            rows.append(dense.view(-1)[places[-1]])
            ctx.layouts.append((dense.shape, back))
        ctx.save_for_backward(*places)
        objectness = [p[..., 4].clone(memory_format=torch.contiguous_format).view(-1) for p in predictions]
        return torch.cat(rows).masked_fill_(~valid[:, None], 0), *objectness

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any, grad_rows: torch.Tensor, *grad_objectness: torch.Tensor
    ) -> tuple[torch.Tensor | None, ...]:
        places, gradients = ctx.saved_tensors, []
        of_levels = grad_rows.split([len(place) for place in places])
        for (shape, back), place, own, objectness in zip(ctx.layouts, places, of_levels, grad_objectness, strict=True):
            dense = _zeros(shape, grad_rows)
            gradients.append(dense.permute(back))
            gradients[-1][..., 4] = objectness.view(gradients[-1].shape[:-1])
            # a prediction may answer for several objects
            dense.view(-1).index_add_(0, place.view(-1), own.reshape(-1))
        return None, None, None, *gradients


def gather_rows(
    predictions: Sequence[torch.Tensor], cell: torch.Tensor, valid: torch.Tensor, counts: Sequence[int]
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Some whole rows of the predictions of all levels, and all objectness logits, with one dense gradient per level.

    With autograd alone, every indexing of a prediction makes a zero tensor of its size in the backward pass, and these
    are added up. At 640 pixels and batch 16 each of them has 137 MB, and they take most of the time of the loss.

    Args:
        predictions: (B, na, ny, nx, no) of each level, any floating type, in any order in memory; a gradient has the
            order of its prediction.
        cell: (R, 4) image, anchor, row and column, those of a level behind those of the level before; they may repeat.
        valid: (R,) bool; other rows read as 0, whatever the prediction holds. Their gradient must be 0: give them no
            weight.
        counts: how many of the R rows each level has.

    Returns:
        (R, no), and (B·na·ny·nx,) of each level, float32. Differentiable once. On a GPU the gradients of repeated cells
        are summed in no fixed order, unless `torch.use_deterministic_algorithms` is on.
    """
    rows, *objectness = _Gather.apply(cell, valid, counts, *predictions)
    return rows.float(), [logits.float() for logits in objectness]


def _places(cell: torch.Tensor, prediction: torch.Tensor) -> torch.Tensor:
    """The places (R, no) in memory of the rows of `cell` (R, 4), in elements from the start of `prediction`."""
    *steps, step = prediction.stride()
    first, *others = cell.unbind(1)
    place = first * steps[0]
    for index, stride in zip(others, steps[1:], strict=True):
        place = place.add(index, alpha=stride)
    return torch.add(place[:, None], torch.arange(prediction.shape[-1], device=cell.device), alpha=step)


def values_are_at_hand(tensor: torch.Tensor) -> bool:
    """Whether reading a value costs nothing: on a CPU, and neither a fake tensor nor a graph that is being compiled."""
    return type(tensor) is torch.Tensor and tensor.device.type == "cpu" and not torch.compiler.is_compiling()


def _zeros(shape: torch.Size, like: torch.Tensor) -> torch.Tensor:
    """Contiguous zeros of the type and device of `like`.

    On a CPU numpy makes them: memory that is fresh from the system is zero already, and comes in large pages where
    numpy may ask for them. torch asks for neither and fills it once more, which takes 31 instead of 7 ms for 137 MB.
    """
    if not values_are_at_hand(like):
        return like.new_zeros(shape)
    return torch.from_numpy(np.zeros(shape.numel() * like.element_size(), np.uint8)).view(like.dtype).view(shape)
