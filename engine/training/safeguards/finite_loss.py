"""A guard against losses that are not finite."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from utils.errors import UserError
from utils.logging import LOGGER

PATIENCE = 10  # bad batches in a row before training stops
DELAY = 4  # batches; the GPU is rarely so far behind the CPU that it has not computed their losses


class PendingLoss(NamedTuple):
    """The loss of a batch, which may not have come from the GPU yet."""

    values: Tensor  # (1 + n,): 1 or 0 for a loss that is finite or not, and its parts
    arrived: torch.cuda.Event | None  # happens when `values` lie in the CPU's memory
    where: str
    paths: list[str]


class FiniteLossGuard:
    """Decides whether a batch may be learned from; names what was wrong where it may not.

    Reading a number from a GPU makes the CPU wait until all work given to the GPU is done. With a `delay` nobody waits:
    every batch is accepted, the optimiser is told on the device to leave out the step of a bad one (`since_last_step`;
    other batches of the same step are lost with it), and what was wrong is read and told `delay` batches later. Without
    one, a bad batch is refused at once.
    """

    def __init__(self, loss_names: tuple[str, ...], delay: int = 0) -> None:
        self.delay = delay
        self.finite = torch.tensor(True)  # whether the last batch's loss was, on its device
        self._loss_names = loss_names
        self._in_a_row = 0
        self._unread: deque[PendingLoss] = deque()
        self._since_last_step: Tensor | None = None

    def accepts(self, loss: Tensor, items: Tensor, *, epoch: int, step: int, paths: list[str]) -> bool:
        """False for a `loss` that is known not to be finite; `items` are its parts.

        Raises `UserError` at the tenth bad batch in a row, or `delay` batches later. Processes that train together
        agree, or their collective operations would wait for each other.
        """
        self.finite = torch.isfinite(loss.detach()).all()
        if dist.is_available() and dist.is_initialized():
            flag = self.finite.float()
            dist.all_reduce(flag, op=dist.ReduceOp.MIN)
            self.finite = flag > 0
        values = torch.cat((self.finite[None].to(items.dtype), items.detach()))
        arrived = None
        if self.delay:
            so_far = self._since_last_step
            self._since_last_step = self.finite if so_far is None else so_far & self.finite
            values = values.to("cpu", non_blocking=True)  # which torch makes in memory that a GPU can write to
            arrived = torch.cuda.Event()
            arrived.record()
        self._unread.append(PendingLoss(values, arrived, f"epoch {epoch}, batch {step}", paths))
        good = len(self._unread) <= self.delay or self._read()
        return good or self.delay > 0

    def since_last_step(self) -> Tensor | None:
        """Whether all batches accepted since the last call had a finite loss: a boolean scalar on their device.

        None without a `delay`: they had.
        """
        finite, self._since_last_step = self._since_last_step, None
        return finite

    def end_epoch(self) -> None:
        """Read what was not read yet. What was accepted since the last step is forgotten, as its gradients are."""
        self._since_last_step = None
        while self._unread:
            self._read()

    def _read(self) -> bool:
        """Whether the oldest batch not read yet had a finite loss."""
        reading = self._unread.popleft()
        if reading.arrived is not None:
            reading.arrived.synchronize()
        finite, *values = reading.values.tolist()
        if finite:
            self._in_a_row = 0
            return True
        self._in_a_row += 1
        parts = zip(self._loss_names, values, strict=True)
        bad = ", ".join(f"{name} {value}" for name, value in parts if value - value != 0) or "total"
        where = f"{reading.where}: loss is not finite ({bad}) on {', '.join(reading.paths)}"
        if self._in_a_row >= PATIENCE:
            raise UserError(
                f"{where}; {PATIENCE} batches in a row. last.pt is as it was after the last good epoch. "
                "Try --no-amp, a lower lr0, or look at these images' labels"
            )
        LOGGER.warning(f"{where}; this batch is skipped")
        return False
