"""A timer for the stages of a batch, which does not make the CPU wait for the GPU."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch


class StageTimer:
    """Adds up the `seconds (stages,)` that each stage took over all batches.

    On CUDA, events on the GPU mark the beginning and the end of a stage. `read_marks` reads them once the results of
    the batch have come to the CPU, when the GPU has done that work anyway. On other devices the CPU's clock is read.
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

    def read_marks(self) -> None:
        """Add the times marked so far; on CUDA, call it only after waiting for the device."""
        for number, start, end in self._marks:
            self.seconds[number] += start.elapsed_time(end) / 1e3 if self._events else end - start
        self._marks.clear()

    def _now(self) -> Any:
        if not self._events:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event
