"""A stopwatch for the stages of a batch that does not make the CPU wait for the GPU."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch


class StageClock:
    """`seconds (stages,)` that each stage of all batches took.

    On CUDA a stage is marked by events on the GPU's own time line; they are read by `settle`, once the results of the
    batch have come to the CPU and everything before them is over anyway. Elsewhere the CPU's clock is read.
    """

    def __init__(self, device: torch.device, stages: int) -> None:
        self.seconds = np.zeros(stages)
        self._device = device
        self._events = device.type == "cuda" and torch.cuda.is_available()
        self._marks: list[tuple[int, Any, Any]] = []

    @contextlib.contextmanager
    def stage(self, number: int) -> Iterator[None]:
        """Time the block as part of stage `number`."""
        start = self._now()
        yield
        self._marks.append((number, start, self._now()))

    def settle(self) -> None:
        """Add what has been marked; on CUDA only after the device has been waited for."""
        for number, start, end in self._marks:
            self.seconds[number] += start.elapsed_time(end) / 1e3 if self._events else end - start
        self._marks.clear()

    def _now(self) -> Any:
        if not self._events:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event
