"""Watches for losses that are not finite."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from utils.errors import UserError
from utils.logging import LOGGER

PATIENCE = 10  # bad batches in a row before training stops


class FiniteGuard:
    """Decides whether a batch may be learned from; names what was wrong where it may not."""

    def __init__(self, loss_names: tuple[str, ...]) -> None:
        self._loss_names = loss_names
        self._in_a_row = 0

    def accepts(self, loss: Tensor, items: Tensor, *, epoch: int, step: int, paths: list[str]) -> bool:
        """True for a finite `loss`. This reads one number from the device: the one synchronisation of a step.

        Raises `UserError` at the tenth refusal in a row. Processes that train together agree, or their collective
        operations would wait for each other.
        """
        flag = torch.isfinite(loss.detach()).all().float()
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(flag, op=dist.ReduceOp.MIN)
        if flag.item():
            self._in_a_row = 0
            return True
        self._in_a_row += 1
        values = dict(zip(self._loss_names, items.tolist(), strict=True))
        bad = ", ".join(f"{name} {value}" for name, value in values.items() if value - value != 0) or "total"
        where = f"epoch {epoch}, batch {step}: loss is not finite ({bad}) on {', '.join(paths)}"
        if self._in_a_row >= PATIENCE:
            raise UserError(
                f"{where}; {PATIENCE} batches in a row. last.pt is as it was after the last good epoch. "
                "Try --no-amp, a lower lr0, or look at these images' labels"
            )
        LOGGER.warning(f"{where}; this batch is skipped")
        return False
