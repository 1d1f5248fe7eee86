"""Freezes rows of a network, including their batch-norm statistics."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from utils.errors import UserError

BACKBONE = "backbone"


class Freezer:
    """Keeps rows of `model.model` from learning.

    ``[10]`` means rows 0 to 9, several numbers mean exactly those rows, and ``backbone`` means the rows of the section
    of that name in `model.yaml`.
    """

    def __init__(self, model: nn.Module, freeze: Sequence[int | str] | int | str) -> None:
        rows: nn.Sequential = model.model  # type: ignore[assignment]
        words = [freeze] if isinstance(freeze, (int, str)) else list(freeze)
        for word in words:
            if word != BACKBONE and not (isinstance(word, int) and 0 <= word <= len(rows)):
                raise UserError(f"--freeze {word}: this model has rows 0 to {len(rows) - 1}; a row, or '{BACKBONE}'")
        chosen = {word for word in words if isinstance(word, int)}
        if len(words) == 1 and chosen:
            chosen = set(range(*chosen))
        if BACKBONE in words:
            chosen.update(range(len(model.yaml["backbone"])))  # type: ignore[index, arg-type]
        self.rows = sorted(chosen)
        self._modules = [rows[i] for i in self.rows]
        for module in self._modules:
            module.requires_grad_(False)

    def train(self, model: nn.Module) -> None:
        """Call `model.train()`, but keep the batch norms of frozen rows in evaluation mode: they must not change."""
        model.train()
        for frozen in self._modules:
            for module in frozen.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
