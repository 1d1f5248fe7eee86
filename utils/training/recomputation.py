"""Recomputation: the backward pass computes tensors again, which takes time, instead of keeping them in memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.checkpoint import checkpoint

from utils.errors import UserError


def set_recompute(model: nn.Module, recompute: bool) -> nn.Module:
    """Set the attribute `recompute` of all blocks of `model` that have it, and return the model.

    Raises `UserError` if it should be on and there are no such blocks.
    """
    blocks = [module for module in model.modules() if hasattr(module, "recompute")]
    if recompute and not blocks:
        raise UserError("--recompute: this network has no block that can do so; MobileNetV2_Block can")
    for block in blocks:
        block.recompute = recompute  # type: ignore[assignment]
    return model


def recomputed(module: nn.Module, x: Tensor) -> Tensor:
    """Compute ``module(x)`` and keep only `x` for the backward pass, which computes the rest again.

    It does so under the autocast of the forward pass. The gradients are the same to the last bit wherever a repeated
    computation is. Norms add the batch to their running statistics once. `module` must not draw random numbers.
    """
    return checkpoint(
        module,
        x,
        use_reentrant=False,
        preserve_rng_state=False,
        context_fn=lambda: (contextlib.nullcontext(), _running_statistics_kept(module)),
    )


@contextlib.contextmanager
def _running_statistics_kept(module: nn.Module) -> Iterator[None]:
    """Within this context the norms of `module` do not add batches to their running statistics."""
    norms = [norm for norm in module.modules() if isinstance(norm, _NormBase)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm, (_, count) in zip(norms, before, strict=True):
        norm.momentum = 0.0
        norm.num_batches_tracked = None if count is None else count.clone()
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count
