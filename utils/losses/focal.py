"""Binary cross entropy, plain or focal (Lin et al. 2017, arXiv:1708.02002), element by element from logits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import softplus


def smooth_bce(eps: float = 0.1) -> tuple[float, float]:
    """The (positive, negative) targets of label smoothing by `eps`."""
    return 1.0 - 0.5 * eps, 0.5 * eps


def focal_factor(logits: torch.Tensor, target: torch.Tensor | float, gamma: float, alpha: float) -> torch.Tensor:
    """How much an element counts in focal loss: little where the prediction is right; `alpha` weighs the positives.

    Soft targets mix the positive and the negative case.
    """
    p = logits.sigmoid()
    miss = target * (1 - p) + (1 - target) * p
    return (target * alpha + (1 - target) * (1 - alpha)) * miss.pow(gamma)


@dataclass(frozen=True)
class BinaryLoss:
    """The elementwise loss of a logit against a target in 0..1; focal where `gamma` is above 0.

    ``pos_weight`` multiplies the positive part, as in `torch.nn.BCEWithLogitsLoss`.
    """

    pos_weight: float = 1.0
    gamma: float = 0.0
    alpha: float = 0.25

    def __call__(self, logits: torch.Tensor, target: torch.Tensor | float) -> torch.Tensor:
        """Same shape as `logits`, any shape; `target` broadcasts.

        −t·w·log σ(x) − (1 − t)·log(1 − σ(x)) with log(1 − σ(x)) = −softplus(x) and log σ(x) = x − softplus(x).
        A plain-number target of 0 costs one pass over the logits.
        """
        loss = softplus(logits)
        if not (isinstance(target, (int, float)) and target == 0):
            loss = loss * (1 + (self.pos_weight - 1) * target) - (self.pos_weight * target) * logits
        if self.gamma > 0:
            loss = loss * focal_factor(logits, target, self.gamma, self.alpha)
        return loss


class FocalLoss(nn.Module):
    """Makes an elementwise-from-logits module, such as ``BCEWithLogitsLoss()``, focal, keeping its reduction.

    For users' scripts; `DetectionLoss` uses `BinaryLoss`.
    """

    def __init__(self, loss_fcn: nn.Module, gamma: float = 1.5, alpha: float = 0.25) -> None:
        super().__init__()
        self.gamma = gamma
        self.alpha = alpha
        self.reduction = str(loss_fcn.reduction)
        self.loss_fcn = loss_fcn
        setattr(loss_fcn, "reduction", "none")  # noqa: B010 (typed as a tensor or a module)

    def forward(self, pred: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
        """Logits and targets of one shape; a scalar, or that shape where the reduction is 'none'."""
        loss = self.loss_fcn(pred, true) * focal_factor(pred, true, self.gamma, self.alpha)
        if self.reduction == "mean":
            return loss.mean()
        return loss.sum() if self.reduction == "sum" else loss
