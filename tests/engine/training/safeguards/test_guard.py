"""Losses that are not finite: named, skipped, and fatal at the tenth in a row."""

from __future__ import annotations

import pytest
import torch

from engine.training.safeguards.guard import PATIENCE, FiniteGuard
from utils.errors import UserError

NAMES = ("box", "obj", "cls")


def ask(guard: FiniteGuard, value: float) -> bool:
    items = torch.tensor([0.1, value, 0.2])
    return guard.accepts(items.sum()[None], items, epoch=3, step=17, paths=["a.jpg", "b.jpg"])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_names_epoch_batch_component_and_files(value: float, capsys: pytest.CaptureFixture[str]) -> None:
    assert not ask(FiniteGuard(NAMES), value)
    err = capsys.readouterr().err
    assert "epoch 3, batch 17" in err
    assert f"(obj {value})" in err
    assert "a.jpg, b.jpg" in err


def test_stops_at_the_tenth_in_a_row() -> None:
    guard = FiniteGuard(NAMES)
    for _ in range(PATIENCE - 1):
        assert not ask(guard, float("nan"))
    assert ask(guard, 1.0)  # one good batch and the count starts again
    for _ in range(PATIENCE - 1):
        assert not ask(guard, float("nan"))
    with pytest.raises(UserError, match="10 batches in a row"):
        ask(guard, float("nan"))
