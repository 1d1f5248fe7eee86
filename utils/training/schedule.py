"""Learning rate, momentum and accumulation as functions of epoch and batch number, and when to stop early."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch.optim import Optimizer

from utils.logging import LOGGER


def linear(start: float = 1.0, end: float = 0.01, steps: int = 100) -> Callable[[float], float]:
    """A straight line from `start` at 0 to `end` at `steps`."""
    return lambda x: start + (end - start) * x / steps


def one_cycle(y1: float = 0.0, y2: float = 1.0, steps: int = 100) -> Callable[[float], float]:
    """Half a cosine from `y1` at 0 to `y2` at `steps` (Loshchilov & Hutter 2016)."""
    return lambda x: y1 + (y2 - y1) * (1 - math.cos(x * math.pi / steps)) / 2


def accumulation(batch_size: int, nominal: float = 64) -> int:
    """The number of batches whose gradients are accumulated, so that they have about `nominal` images together."""
    return max(round(nominal / batch_size), 1)


@dataclass
class Schedule:
    """Sets learning rates and momentum of the optimiser before each batch.

    The learning rate of an epoch is ``initial_lr · decay(epoch)``. Over the first `warmup_steps` batches the rate
    of the biases (group 0) falls to it from `warmup_bias_lr`, and that of the other groups rises to it from 0.
    Momentum and accumulation rise too. Nothing is remembered between calls, so a resumed training needs no state of it.
    """

    decay: Callable[[float], float]
    momentum: float
    accumulate: int  # batches per optimiser step after the warm-up
    warmup_steps: int
    warmup_momentum: float = 0.8
    warmup_bias_lr: float = 0.1

    def apply(self, optimizer: Optimizer, step: int, epoch: int) -> int:
        """Prepare batch number `step` (0 at the start of training); returns how many batches to accumulate."""
        warming = step <= self.warmup_steps
        ramp = [0, self.warmup_steps]
        for i, group in enumerate(optimizer.param_groups):
            group.setdefault("initial_lr", group["lr"])
            rate = group["initial_lr"] * self.decay(epoch)
            if warming:
                rate = float(np.interp(step, ramp, [self.warmup_bias_lr if i == 0 else 0.0, rate]))
                if "momentum" in group:
                    group["momentum"] = float(np.interp(step, ramp, [self.warmup_momentum, self.momentum]))
            group["lr"] = rate
        return max(1, round(float(np.interp(step, ramp, [1, self.accumulate])))) if warming else self.accumulate


class Accumulator:
    """Says after which batches the optimiser steps: when `accumulate` batches have passed since the last step."""

    def __init__(self, first_step: int = 0) -> None:
        self._last = first_step - 1

    def due(self, step: int, accumulate: int) -> bool:
        """Whether the optimiser should step after batch number `step`."""
        return step - self._last >= accumulate

    def ready(self, step: int, accumulate: int) -> bool:
        """Whether a step is `due`. If so, the count starts again."""
        if not self.due(step, accumulate):
            return False
        self._last = step
        return True


class EarlyStopping:
    """``stopper(epoch, fitness)`` is True once `patience` epochs have passed since the best one (0 means never)."""

    def __init__(self, patience: int = 30) -> None:
        self.best_fitness = 0.0
        self.best_epoch = 0
        self.patience = patience or float("inf")
        self.possible_stop = False  # the next epoch may be the last: a reason to validate it

    def __call__(self, epoch: int, fitness: float) -> bool:
        if fitness >= self.best_fitness:  # >= so that the zeros of the first epochs do not count as a plateau
            self.best_epoch, self.best_fitness = epoch, fitness
        waited = epoch - self.best_epoch
        self.possible_stop = waited >= self.patience - 1
        stop = waited >= self.patience
        if stop:
            LOGGER.info(
                f"Stopped early: no improvement in the last {self.patience} epochs, the best was epoch"
                f" {self.best_epoch} (kept as best.pt). --patience N waits longer, --patience 0 for ever."
            )
        return stop
