"""Losses that are not finite: named, skipped, and fatal at the tenth in a row."""

from __future__ import annotations

import pytest
import torch

from engine.training.safeguards.finite_loss import DELAY, PATIENCE, FiniteLossGuard
from tests.engine.cuda import stand_in_cuda
from utils.errors import UserError

NAMES = ("box", "obj", "cls")


def ask(guard: FiniteLossGuard, value: float, step: int = 17, device: str = "cpu") -> bool:
    items = torch.tensor([0.1, value, 0.2], device=device)
    return guard.accepts(items.sum()[None], items, epoch=3, step=step, paths=["a.jpg", "b.jpg"])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_names_epoch_batch_component_and_files(value: float, capsys: pytest.CaptureFixture[str]) -> None:
    assert not ask(FiniteLossGuard(NAMES), value)
    err = capsys.readouterr().err
    assert "epoch 3, batch 17" in err
    assert f"(obj {value})" in err
    assert "a.jpg, b.jpg" in err


def test_stops_at_the_tenth_in_a_row() -> None:
    guard = FiniteLossGuard(NAMES)
    for _ in range(PATIENCE - 1):
        assert not ask(guard, float("nan"))
    assert ask(guard, 1.0)  # one good batch and the count starts again
    for _ in range(PATIENCE - 1):
        assert not ask(guard, float("nan"))
    with pytest.raises(UserError, match="10 batches in a row"):
        ask(guard, float("nan"))


def test_with_a_delay_a_bad_batch_is_told_of_later_and_nobody_waits(capsys: pytest.CaptureFixture[str]) -> None:
    with stand_in_cuda() as watch:
        guard = FiniteLossGuard(NAMES, delay=DELAY)
        told = []
        for step in range(2 * DELAY):
            watch.waits.clear()  # a test makes numbers on the CPU
            assert ask(guard, float("nan") if step == 1 else 1.0, step, "cuda")
            assert not [place for place, _ in watch.waits if place.startswith("engine")]
            told.append("epoch 3, batch 1: loss is not finite (obj nan) on a.jpg, b.jpg" in capsys.readouterr().err)
    assert told == [step == 1 + DELAY for step in range(2 * DELAY)]


def test_the_end_of_an_epoch_tells_of_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    with stand_in_cuda():
        guard = FiniteLossGuard(NAMES, delay=DELAY)
        ask(guard, float("inf"), 5, "cuda")
        assert not capsys.readouterr().err
        guard.end_epoch()
        assert "epoch 3, batch 5: loss is not finite (obj inf)" in capsys.readouterr().err
        assert guard.since_last_step() is None  # the gradients of what was accepted are gone, too


def test_with_a_delay_the_tenth_in_a_row_stops_later() -> None:
    with stand_in_cuda():
        guard = FiniteLossGuard(NAMES, delay=DELAY)
        for step in range(PATIENCE - 1 + DELAY):
            ask(guard, float("nan") if step < PATIENCE else 1.0, step, "cuda")
        with pytest.raises(UserError, match=f"epoch 3, batch {PATIENCE - 1}: .*10 batches in a row"):
            ask(guard, 1.0, PATIENCE - 1 + DELAY, "cuda")


@pytest.mark.parametrize("bad", [None, 0, 1, 2])
def test_batches_of_one_step_are_judged_together(bad: int | None) -> None:
    with stand_in_cuda():
        guard = FiniteLossGuard(NAMES, delay=DELAY)
        for step in range(3):
            ask(guard, float("nan") if step == bad else 1.0, step, "cuda")
            assert guard.finite.item() == (step != bad)
        finite = guard.since_last_step()
        assert finite is not None
        assert finite.is_cuda
        assert finite.item() == (bad is None)
        ask(guard, 1.0, 3, "cuda")
        assert guard.since_last_step().item()  # type: ignore[union-attr]


def test_without_a_delay_there_is_nothing_left_to_say() -> None:
    guard = FiniteLossGuard(NAMES)
    assert ask(guard, 1.0)
    assert guard.since_last_step() is None
