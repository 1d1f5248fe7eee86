"""Tensors that the backward pass computes again instead of finding them kept: less memory for more time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.checkpoint import checkpoint


def set_recompute(model: nn.Module, recompute: bool) -> int:
    """Tell all blocks of `model` that can recompute (they have an attribute of that name) whether to; returns how many."""
    blocks = [module for module in model.modules() if hasattr(module, "recompute")]
    for block in blocks:
        block.recompute = recompute  # type: ignore[assignment]
    return len(blocks)


def recomputed(module: nn.Module, x: Tensor) -> Tensor:
    """``module(x)``, of which only `x` is kept for the backward pass, where the rest is computed again.

    That happens under the autocast of the forward pass. The gradients are the same to the last bit wherever the forward pass repeats itself to the last bit. Norms take the
    batch into their running statistics once. The module must draw no random numbers.
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
    """Within the block the norms of `module` see a batch without taking it into their running statistics."""
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
