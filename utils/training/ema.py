"""Exponential moving average of a model's weights."""

from __future__ import annotations

import copy
import math

import torch
from torch import nn

from utils.networks import de_parallel


class ModelEMA:
    """Keeps ``ema = d · ema + (1 - d) · model`` over all floating-point tensors of the state (BN statistics included).

    The decay ramps up, d = decay · (1 - exp(-updates / tau)), so that the first, poor weights are soon forgotten.
    (Same form as in the exponential averaging of Tarvainen & Valpola 2017, with a ramp.)
    """

    def __init__(self, model: nn.Module, decay: float = 0.9999, tau: float = 2000, updates: int = 0) -> None:
        self.ema = copy.deepcopy(de_parallel(model)).eval()
        self.ema.requires_grad_(False)
        self.decay = decay
        self.tau = tau
        self.updates = updates

    def decay_at(self, updates: int) -> float:
        """The decay used for update number `updates` (1 for the first)."""
        return self.decay * (1 - math.exp(-updates / self.tau))

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards `model` by one step; integer tensors (BN counters) keep the value they have."""
        self.updates += 1
        current = de_parallel(model).state_dict()
        pairs = [(e, current[k]) for k, e in self.ema.state_dict().items() if e.dtype.is_floating_point]
        averages, values = [e for e, _ in pairs], [v.detach().to(e.dtype) for e, v in pairs]
        torch._foreach_lerp_(averages, values, 1 - self.decay_at(self.updates))

    def update_attr(self, model: nn.Module, include: tuple[str, ...] = (), exclude: tuple[str, ...] = ()) -> None:
        """Copy plain attributes (names, …) from `model`: those in `include`, or all public ones outside `exclude`."""
        for key, value in de_parallel(model).__dict__.items():
            if (include and key not in include) or key.startswith("_") or key in exclude:
                continue
            setattr(self.ema, key, value)
