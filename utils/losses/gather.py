"""The predictions a loss looks at: all objectness logits, and whole rows where there are objects."""

from __future__ import annotations

from typing import Any

import torch


class _Gather(torch.autograd.Function):
    """See `gather`."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, prediction: torch.Tensor, cell: torch.Tensor, valid: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        flat = prediction.reshape(-1, prediction.shape[-1])
        ctx.save_for_backward(cell)
        ctx.shape = prediction.shape
        return flat[:, 4].contiguous(), flat[cell].masked_fill_(~valid[:, None], 0)

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any, grad_objectness: torch.Tensor, grad_rows: torch.Tensor
    ) -> tuple[torch.Tensor, None, None]:
        (cell,) = ctx.saved_tensors
        gradient = grad_rows.new_zeros(ctx.shape)
        flat = gradient.view(-1, ctx.shape[-1])
        flat[:, 4] = grad_objectness
        flat.index_add_(0, cell, grad_rows)  # a prediction may answer for several objects
        return gradient, None, None


def gather(prediction: torch.Tensor, cell: torch.Tensor, valid: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The objectness logits and some whole rows of a dense prediction, with one dense gradient.

    Left to autograd, every indexing of the prediction makes a zero tensor of its size in the backward pass, and these
    are added up: at 640 pixels and batch 16 each has 137 MB, and together they are most of the loss's time.

    Args:
        prediction: (B, na, ny, nx, no), any floating type.
        cell: (R,) positions in the flattened (B, na, ny, nx); they may repeat.
        valid: (R,) bool; other rows read as 0, whatever the prediction holds. Their gradient must be 0: give them no
            weight.

    Returns:
        (B·na·ny·nx,) and (R, no), float32. Differentiable once. On a GPU the gradients of repeated cells are summed in
        no fixed order, unless `torch.use_deterministic_algorithms` is on.
    """
    objectness, rows = _Gather.apply(prediction, cell, valid)
    return objectness.float(), rows.float()
