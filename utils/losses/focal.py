"""Elementwise binary cross entropy of logits, with the variants focal loss and quality focal loss.

Focal loss: Lin et al. 2017, arXiv:1708.02002. Quality focal loss: Li et al. 2020, arXiv:2006.04388.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import softplus

QFL_BETA = 2.0  # the paper's choice


def smooth_bce(eps: float = 0.1) -> tuple[float, float]:
    """The (positive, negative) targets of label smoothing by `eps`."""
    return 1.0 - 0.5 * eps, 0.5 * eps


def focal_factor(logits: torch.Tensor, target: torch.Tensor | float, gamma: float, alpha: float) -> torch.Tensor:
    """The weight of an element in focal loss: small where the prediction is right. `alpha` weighs the positives.

    Soft targets mix the positive and the negative case.
    """
    p = logits.sigmoid()
    miss = p if _is_zero(target) else target * (1 - p) + (1 - target) * p
    return (target * alpha + (1 - target) * (1 - alpha)) * _power(miss, gamma)


def quality_factor(logits: torch.Tensor, target: torch.Tensor | float, beta: float) -> torch.Tensor:
    """The weight of an element in quality focal loss: |target − p|^beta, so 0 where a soft target is met."""
    p = logits.sigmoid()
    return _power(p if _is_zero(target) else (p - target).abs(), beta)


def _is_zero(target: torch.Tensor | float) -> bool:
    """Whether the target is the number 0, as for most predictions. This saves passes over all of them."""
    return isinstance(target, (int, float)) and target == 0


def _power(miss: torch.Tensor, exponent: float) -> torch.Tensor:
    """`miss` to the power `exponent`. A miss of exactly 0 would have an infinite gradient for exponents below 1."""
    return miss.clamp(min=1e-12).pow(exponent)


@dataclass(frozen=True)
class BinaryLoss:
    """The elementwise loss of logits against targets in 0..1. It is focal if `gamma` is above 0.

    Attributes:
        pos_weight: multiplies the positive part, as in `torch.nn.BCEWithLogitsLoss`.
        gamma: the exponent of the focal factor.
        alpha: see `focal_factor`; quality focal loss has none.
        quality: quality focal loss, with `gamma` as its beta.
    """

    pos_weight: float = 1.0
    gamma: float = 0.0
    alpha: float = 0.25
    quality: bool = False

    def __call__(self, logits: torch.Tensor, target: torch.Tensor | float) -> torch.Tensor:
        """The loss in the shape of `logits`, which may be any; `target` broadcasts.

        −t·w·log σ(x) − (1 − t)·log(1 − σ(x)) with log(1 − σ(x)) = −softplus(x) and log σ(x) = x − softplus(x).
        A target that is the number 0 costs one pass over the logits.
        """
        loss = softplus(logits)
        if not _is_zero(target):
            loss = loss * (1 + (self.pos_weight - 1) * target) - (self.pos_weight * target) * logits
        if self.gamma > 0:
            if self.quality:
                return loss * quality_factor(logits, target, self.gamma)
            return loss * focal_factor(logits, target, self.gamma, self.alpha)
        return loss


class FocalLoss(nn.Module):
    """Makes a loss module that takes logits, such as ``BCEWithLogitsLoss()``, focal, and keeps its reduction.

    It is there for users' scripts; `DetectionLoss` uses `BinaryLoss`.
    """

    def __init__(self, loss_fcn: nn.Module, gamma: float = 1.5, alpha: float = 0.25) -> None:
        super().__init__()
        self.gamma = gamma
        self.alpha = alpha
        self.reduction = str(loss_fcn.reduction)
        self.loss_fcn = loss_fcn
        setattr(loss_fcn, "reduction", "none")  # noqa: B010 (typed as a tensor or a module)

    def forward(self, pred: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
        """The loss of logits and targets of one shape: a scalar, or of that shape if the reduction is 'none'."""
        loss = self.loss_fcn(pred, true) * focal_factor(pred, true, self.gamma, self.alpha)
        if self.reduction == "mean":
            return loss.mean()
        return loss.sum() if self.reduction == "sum" else loss
