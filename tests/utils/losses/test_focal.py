from __future__ import annotations

import math

import pytest
import torch
from torch.nn import BCEWithLogitsLoss

from utils.losses.focal import BinaryLoss, FocalLoss, smooth_bce


def _case(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(6, 5, generator=generator) * 3
    return logits, torch.rand(6, 5, generator=generator)


@pytest.mark.parametrize("pos_weight", [1.0, 0.7, 2.5])
def test_binary_cross_entropy(pos_weight: float) -> None:
    logits, target = _case()
    expected = BCEWithLogitsLoss(pos_weight=torch.tensor(pos_weight), reduction="none")
    loss = BinaryLoss(pos_weight)
    torch.testing.assert_close(loss(logits, target), expected(logits, target))
    for constant in (0, 0.05, 1.0):
        torch.testing.assert_close(loss(logits, constant), expected(logits, torch.full_like(logits, constant)))


def test_torchvision_agrees_on_focal_loss() -> None:
    from torchvision.ops import sigmoid_focal_loss

    logits, target = _case()
    target = target.round()
    expected = sigmoid_focal_loss(logits, target, alpha=0.25, gamma=1.5)
    torch.testing.assert_close(BinaryLoss(gamma=1.5)(logits, target), expected, rtol=1e-5, atol=1e-6)
    for reduction in ("none", "mean", "sum"):
        module = FocalLoss(BCEWithLogitsLoss(reduction=reduction), gamma=1.5, alpha=0.25)
        whole = expected if reduction == "none" else getattr(expected, reduction)()
        torch.testing.assert_close(module(logits, target), whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("beta", [0.5, 2.0, 3.0])
def test_quality_focal_loss_by_its_formula(beta: float) -> None:
    """QFL(σ) = −|y − σ|^β ((1 − y) log(1 − σ) + y log σ), and its slope by central differences."""

    def scalar(x: float, y: float) -> float:
        p = 1 / (1 + math.exp(-x))
        return -(abs(y - p) ** beta) * ((1 - y) * math.log(1 - p) + y * math.log(p))

    logits, target = (v.double().flatten() for v in _case())
    logits.requires_grad_()
    loss = BinaryLoss(gamma=beta, quality=True)(logits, target)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    for x, y, value, slope in zip(*(v.tolist() for v in (logits, target, loss, gradient)), strict=True):
        assert value == pytest.approx(scalar(x, y), rel=1e-9)
        assert slope == pytest.approx((scalar(x + 1e-6, y) - scalar(x - 1e-6, y)) / 2e-6, rel=1e-5, abs=1e-8)
    zeros = BinaryLoss(gamma=beta, quality=True)(logits, 0)
    assert zeros.tolist() == pytest.approx([scalar(x, 0.0) for x in logits.tolist()], rel=1e-9)


def test_a_quality_that_is_met_costs_nothing() -> None:
    """Plain cross entropy with a soft target cannot get below the target's entropy."""
    logits = torch.tensor([0.0, 2.0])
    target = logits.sigmoid()
    assert BinaryLoss()(logits, target).min() > 0.3
    assert BinaryLoss(gamma=2.0, quality=True)(logits, target).max() < 1e-12


@pytest.mark.parametrize("quality", [False, True])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.5])
def test_extreme_logits_stay_finite(gamma: float, quality: bool) -> None:
    logits = torch.tensor([-200.0, -20, 0, 20, 200, -200, 200], requires_grad=True)
    loss = BinaryLoss(gamma=gamma, quality=quality)(logits, torch.tensor([1.0, 0, 0.5, 1, 0, 0, 1])).sum()
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


def test_label_smoothing() -> None:
    assert smooth_bce(0.1) == (pytest.approx(0.95), pytest.approx(0.05))
    assert smooth_bce(0.0) == (1, 0)
