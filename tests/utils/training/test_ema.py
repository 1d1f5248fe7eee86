"""ModelEMA against the formula, in float64 by hand."""

from __future__ import annotations

import math

import torch
from torch import nn

from utils.training.ema import ModelEMA


def test_update_follows_the_formula() -> None:
    model = nn.Linear(2, 1).double()
    ema = ModelEMA(model, decay=0.9, tau=10)
    expected = model.weight.detach().clone()
    for update in range(1, 4):
        with torch.no_grad():
            model.weight.add_(1.0)
        ema.update(model)
        decay = 0.9 * (1 - math.exp(-update / 10))
        expected = decay * expected + (1 - decay) * model.weight.detach()
    torch.testing.assert_close(ema.ema.weight, expected)


def test_default_decay_ramps_to_0_9999() -> None:
    ema = ModelEMA(nn.Linear(1, 1))
    assert ema.decay_at(1) == 0.9999 * (1 - math.exp(-1 / 2000))
    assert abs(ema.decay_at(10**6) - 0.9999) < 1e-12


def test_integer_state_is_left_alone_and_copy_is_independent() -> None:
    model = nn.BatchNorm1d(3)
    ema = ModelEMA(model)
    model.train()(torch.randn(8, 3))
    ema.update(model)
    assert model.num_batches_tracked == 1
    assert ema.ema.num_batches_tracked == 0
    assert not ema.ema.weight.requires_grad
    assert model.weight.requires_grad
    assert not torch.equal(ema.ema.running_mean, torch.zeros(3))


def test_update_attr_copies_public_attributes() -> None:
    model = nn.Linear(1, 1)
    ema = ModelEMA(model)
    model.names = {0: "a"}  # type: ignore[assignment]
    ema.update_attr(model, include=("names",))
    assert ema.ema.names == {0: "a"}
