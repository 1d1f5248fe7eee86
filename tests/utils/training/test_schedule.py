"""The schedule against numbers worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from utils.training.optimizer import smart_optimizer
from utils.training.schedule import Accumulator, EarlyStopping, Schedule, accumulation, linear, one_cycle


def test_linear_and_cosine() -> None:
    line, cosine = linear(1.0, 0.01, 100), one_cycle(1.0, 0.1, 100)
    assert [line(0), line(50), line(100)] == pytest.approx([1.0, 0.505, 0.01])
    assert [cosine(0), cosine(50), cosine(100)] == pytest.approx([1.0, 0.55, 0.1])
    assert cosine(25) == pytest.approx(1.0 - 0.9 * (1 - 0.5**0.5) / 2)


@pytest.mark.parametrize(("batch", "expected"), [(1, 64), (16, 4), (24, 3), (48, 1), (64, 1), (128, 1)])
def test_accumulation_reaches_64_images(batch: int, expected: int) -> None:
    assert accumulation(batch) == expected


def make() -> tuple[torch.optim.Optimizer, Schedule]:
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))
    optimizer = smart_optimizer(model, "SGD", lr=0.02, momentum=0.9, decay=0.0005)
    return optimizer, Schedule(linear(1.0, 0.5, 10), momentum=0.9, accumulate=4, warmup_steps=100)


def test_warmup_ramps_biases_down_and_the_rest_up() -> None:
    optimizer, schedule = make()
    assert schedule.apply(optimizer, step=0, epoch=0) == 1
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.1, 0.0, 0.0])
    assert optimizer.param_groups[0]["momentum"] == pytest.approx(0.8)
    # half way, epoch 2: target is 0.02 · 0.9 = 0.018
    assert schedule.apply(optimizer, step=50, epoch=2) == round(2.5)
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.059, 0.009, 0.009])
    assert optimizer.param_groups[1]["momentum"] == pytest.approx(0.85)


def test_after_warmup_the_rate_is_the_decay_of_the_epoch() -> None:
    optimizer, schedule = make()
    assert schedule.apply(optimizer, step=101, epoch=5) == 4
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.015] * 3)


def test_a_resumed_schedule_needs_no_memory() -> None:
    optimizer, schedule = make()
    for step in range(60):
        schedule.apply(optimizer, step, epoch=step // 10)
    fresh, again = make()
    again.apply(fresh, 59, epoch=5)
    assert [g["lr"] for g in fresh.param_groups] == [g["lr"] for g in optimizer.param_groups]


def test_accumulator_steps_every_nth_batch() -> None:
    accumulator = Accumulator()
    assert [accumulator.ready(i, 4) for i in range(9)] == [False, False, False, True] * 2 + [False]
    assert [Accumulator(10).ready(i, 1) for i in (10,)] == [True]


def test_stops_patience_epochs_after_the_best() -> None:
    stopper = EarlyStopping(patience=3)
    curve = [0.1, 0.5, 0.4, 0.4, 0.4, 0.9]
    assert [stopper(epoch, value) for epoch, value in enumerate(curve[:5])] == [False] * 4 + [True]
    assert (stopper.best_epoch, stopper.best_fitness) == (1, 0.5)


def test_zero_patience_never_stops() -> None:
    stopper = EarlyStopping(patience=0)
    assert not any(stopper(epoch, 1.0 if epoch == 0 else 0.0) for epoch in range(500))


def test_flat_zeros_are_no_plateau() -> None:
    stopper = EarlyStopping(patience=2)
    assert not any(stopper(epoch, 0.0) for epoch in range(10))
