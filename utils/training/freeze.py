"""Freeze the first rows of a network, their BatchNorm statistics included."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from utils.errors import UserError


class Freezer:
    """Rows of `model.model` that do not learn: ``[10]`` means rows 0 to 9, several numbers mean exactly those rows."""

    def __init__(self, model: nn.Module, freeze: list[int]) -> None:
        rows: nn.Sequential = model.model  # type: ignore[assignment]
        chosen = range(freeze[0]) if len(freeze) == 1 else freeze
        if bad := [i for i in freeze if i < 0 or i > len(rows)]:
            raise UserError(f"--freeze {bad[0]}: this model has rows 0 to {len(rows) - 1}")
        self.rows = sorted(set(chosen))
        self._modules = [rows[i] for i in self.rows]
        for module in self._modules:
            module.requires_grad_(False)

    def train(self, model: nn.Module) -> None:
        """`model.train()`, but BatchNorm in frozen rows stays in evaluation mode: its statistics must not drift."""
        model.train()
        for frozen in self._modules:
            for module in frozen.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
