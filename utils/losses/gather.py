"""The predictions a loss looks at: all objectness logits, and whole rows where there are objects."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


class _Gather(torch.autograd.Function):
    """See `gather`.

    Works in the order in which the prediction lies in memory, which is its convolution's: a copy in the order of its
    dimensions would cost more than all else here, of the prediction as of the gradient.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, prediction: torch.Tensor, cell: torch.Tensor, valid: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        order = sorted(range(prediction.ndim), key=prediction.stride, reverse=True)
        dense = prediction.permute(order).contiguous()  # no copy of what a convolution has written
        ctx.shape, ctx.back = dense.shape, [order.index(dimension) for dimension in range(prediction.ndim)]
        place = _places(cell, dense.permute(ctx.back))
        ctx.save_for_backward(place)
        objectness = prediction[..., 4].clone(memory_format=torch.contiguous_format)
        return objectness.view(-1), dense.view(-1)[place].masked_fill_(~valid[:, None], 0)

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any, grad_objectness: torch.Tensor, grad_rows: torch.Tensor
    ) -> tuple[torch.Tensor, None, None]:
        (place,) = ctx.saved_tensors
        dense = _zeros(ctx.shape, grad_rows)
        gradient = dense.permute(ctx.back)
        gradient[..., 4] = grad_objectness.view(gradient.shape[:-1])
        # a prediction may answer for several objects
        dense.view(-1).index_add_(0, place.view(-1), grad_rows.reshape(-1))
        return gradient, None, None


def gather(prediction: torch.Tensor, cell: torch.Tensor, valid: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The objectness logits and some whole rows of a dense prediction, with one dense gradient.

    Left to autograd, every indexing of the prediction makes a zero tensor of its size in the backward pass, and these
    are added up: at 640 pixels and batch 16 each has 137 MB, and together they are most of the loss's time.

    Args:
        prediction: (B, na, ny, nx, no), any floating type, in any order in memory; its gradient has the same.
        cell: (R,) positions in the flattened (B, na, ny, nx); they may repeat.
        valid: (R,) bool; other rows read as 0, whatever the prediction holds. Their gradient must be 0: give them no
            weight.

    Returns:
        (B·na·ny·nx,) and (R, no), float32. Differentiable once. On a GPU the gradients of repeated cells are summed in
        no fixed order, unless `torch.use_deterministic_algorithms` is on.
    """
    objectness, rows = _Gather.apply(prediction, cell, valid)
    return objectness.float(), rows.float()


def _places(cell: torch.Tensor, prediction: torch.Tensor) -> torch.Tensor:
    """(R, no) where in memory the rows of `cell` (R,) are, counted in elements from the start of `prediction`."""
    *sizes, no = prediction.shape
    *steps, step = prediction.stride()
    place = torch.zeros_like(cell)
    for size, stride in zip(reversed(sizes), reversed(steps), strict=True):
        place = place + cell % size * stride
        cell = cell // size
    return place[:, None] + torch.arange(no, device=cell.device) * step


def values_are_at_hand(tensor: torch.Tensor) -> bool:
    """True where reading a value costs nothing: neither a GPU, nor a fake tensor, nor a graph being compiled."""
    return type(tensor) is torch.Tensor and tensor.device.type == "cpu" and not torch.compiler.is_compiling()


def _zeros(shape: torch.Size, like: torch.Tensor) -> torch.Tensor:
    """Contiguous zeros of the type and device of `like`.

    On a CPU numpy's: fresh memory from the system is zero already, and in large pages where numpy may ask for them.
    torch asks for neither and would fill it once more: 31 instead of 7 ms for 137 MB.
    """
    if not values_are_at_hand(like):
        return like.new_zeros(shape)
    return torch.from_numpy(np.zeros(shape.numel() * like.element_size(), np.uint8)).view(like.dtype).view(shape)
