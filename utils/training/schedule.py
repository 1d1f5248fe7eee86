"""Learning rate over the epochs, warm-up over the first steps, gradient accumulation up to the nominal batch."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from torch.optim import Optimizer

NOMINAL_BATCH = 64  # gradients are accumulated until about so many images have been seen


def linear(start: float = 1.0, end: float = 0.01, steps: int = 100) -> Callable[[float], float]:
    """A straight line from `start` at 0 to `end` at `steps`."""
    return lambda x: start + (end - start) * x / steps


def one_cycle(y1: float = 0.0, y2: float = 1.0, steps: int = 100) -> Callable[[float], float]:
    """Half a cosine from `y1` at 0 to `y2` at `steps` (Loshchilov & Hutter 2016)."""
    return lambda x: y1 + (y2 - y1) * (1 - math.cos(x * math.pi / steps)) / 2


def accumulation(batch_size: int) -> int:
    """How many batches make up the nominal batch of 64."""
    return max(round(NOMINAL_BATCH / batch_size), 1)


class Warmup:
    """Ramps learning rates, momentum and accumulation over the first `steps` batches.

    Biases (group 0) come down from `bias_lr`; the other groups rise from 0; both end at the schedule's value.
    """

    def __init__(
        self, steps: int, accumulate: int, schedule: Callable[[float], float], *,
        momentum: float, start_momentum: float = 0.8, bias_lr: float = 0.1,
    ) -> None:  # fmt: skip
        self.steps = steps
        self.accumulate = accumulate
        self.schedule = schedule
        self.momentum = momentum
        self.start_momentum = start_momentum
        self.bias_lr = bias_lr

    def apply(self, optimizer: Optimizer, step: int, epoch: int) -> int:
        """Set the values for batch number `step` (from 0 over the whole training); returns batches to accumulate."""
        if step > self.steps:
            return self.accumulate
        done = [0, self.steps]
        for i, group in enumerate(optimizer.param_groups):
            target = group["initial_lr"] * self.schedule(epoch)
            group["lr"] = float(np.interp(step, done, [self.bias_lr if i == 0 else 0.0, target]))
            if "momentum" in group:
                group["momentum"] = float(np.interp(step, done, [self.start_momentum, self.momentum]))
        return max(1, round(float(np.interp(step, done, [1, self.accumulate]))))


class Accumulator:
    """Says at which batches the optimiser steps: when `accumulate` batches have passed since the last step."""

    def __init__(self) -> None:
        self._last = -1

    def ready(self, step: int, accumulate: int) -> bool:
        """True where the optimiser should step after batch number `step`; the count starts again then."""
        if step - self._last < accumulate:
            return False
        self._last = step
        return True
