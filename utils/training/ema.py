"""Exponential moving average of a model's weights."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from utils.distributed import de_parallel

Place = tuple[dict[str, Tensor | None], str]  # where a module keeps a tensor, and its name there


class ModelEMA:
    """Keeps ``ema = d · ema + (1 - d) · model`` for all floating-point tensors of the state dict.

    The decay ramps up, d = decay · (1 - exp(-updates / tau)), so that the poor weights of the beginning are soon
    forgotten. (It is the exponential average of Tarvainen & Valpola 2017, with a ramp.)
    """

    def __init__(self, model: nn.Module, decay: float = 0.9999, tau: float = 2000, updates: int = 0) -> None:
        self.ema = copy.deepcopy(de_parallel(model)).eval()
        self.ema.requires_grad_(False)
        self.decay = decay
        self.tau = tau
        self.updates = updates
        self._paired: nn.Module | None = None
        self._pairs: list[tuple[Place, Place]] = []

    def decay_at(self, updates: int) -> float:
        """The decay of update number `updates`; the first one is number 1."""
        return self.decay * (1 - math.exp(-updates / self.tau))

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards `model` by one step. Integer tensors (batch-norm counters) keep their values.

        Both models are walked through once, to remember where their modules keep tensors. The tensors themselves may be
        moved, loaded or replaced between updates; the modules may not.
        """
        self.updates += 1
        if self._paired is not (model := de_parallel(model)):
            current = state_places(model)
            self._pairs = [(place, current[name]) for name, place in state_places(self.ema).items()]
            self._paired = model
        averages, weights = [], []
        for (own, name), (theirs, their_name) in self._pairs:
            average, value = own[name], theirs[their_name]
            assert average is not None and value is not None  # noqa: PT018
            averages.append(average)
            weights.append(value if value.dtype == average.dtype else value.to(average.dtype))
        torch._foreach_lerp_(averages, weights, 1 - self.decay_at(self.updates))

    def __getstate__(self) -> dict[str, Any]:
        """The state without what is remembered of a model, which a copy cannot use."""
        return {**self.__dict__, "_paired": None, "_pairs": []}

    def update_attr(self, model: nn.Module, include: tuple[str, ...] = (), exclude: tuple[str, ...] = ()) -> None:
        """Copy attributes such as names from `model`: those in `include`, or else all public ones outside `exclude`."""
        for key, value in de_parallel(model).__dict__.items():
            if (include and key not in include) or key.startswith("_") or key in exclude:
                continue
            setattr(self.ema, key, value)


def state_places(model: nn.Module) -> dict[str, Place]:
    """The places where `model` keeps the floating-point tensors of its state dict, by their names in it."""
    places: dict[str, Place] = {}
    for prefix, module in model.named_modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                kept = tensor is not None and name not in module._non_persistent_buffers_set
                if kept and tensor.is_floating_point():  # type: ignore[union-attr]
                    places[f"{prefix}.{name}" if prefix else name] = tensors, name  # type: ignore[assignment]
    return places
