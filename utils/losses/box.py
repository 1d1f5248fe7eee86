"""The loss of a predicted box compared with the true one. There are six, each as in its paper (docs/losses.md).

GIoU: Rezatofighi et al. 2019, arXiv:1902.09630. DIoU and CIoU: Zheng et al. 2020, arXiv:1911.08287. EIoU and
Focal-EIoU: Zhang et al. 2021, arXiv:2101.08158. SIoU: Gevorgyan 2022, arXiv:2205.12740. WIoU, its version 1: Tong et
al. 2023, arXiv:2301.10051.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

from utils.errors import nearest
from utils.ops.iou import EPS, BoxPairs, box_pairs, ciou, diou, giou

SIOU_THETA = 4.0  # the higher, the less a difference in shape counts; the paper takes 2 to 6, near 4


def eiou_loss(pairs: BoxPairs) -> torch.Tensor:
    """(…, 1) DIoU's loss plus the squared differences in width and height, over those of the enclosing box squared."""
    width2, height2 = pairs.enclosing_w.square() + EPS, pairs.enclosing_h.square() + EPS
    sides = (pairs.w2 - pairs.w1).square() / width2 + (pairs.h2 - pairs.h1).square() / height2
    return 1 - diou(pairs) + sides


def siou_loss(pairs: BoxPairs) -> torch.Tensor:
    """(…, 1) 1 − IoU + (distance + shape) / 2: the distance counts least where the centres lie on a diagonal.

    The paper's angle cost 1 − 2 sin²(arcsin(|dy| / σ) − π/4), σ the distance of the centres, is the sine of twice the
    angle: 2 |dx| |dy| / σ². Written so, it has a gradient where the centres meet.
    """
    angle = 2 * (pairs.dx * pairs.dy).abs() / (pairs.dx.square() + pairs.dy.square() + EPS)
    distance = _saturated((2 - angle) * (pairs.dx / (pairs.enclosing_w + EPS)).square()) + _saturated(
        (2 - angle) * (pairs.dy / (pairs.enclosing_h + EPS)).square()
    )
    wide = (pairs.w1 - pairs.w2).abs() / (pairs.w1.maximum(pairs.w2) + EPS)
    high = (pairs.h1 - pairs.h2).abs() / (pairs.h1.maximum(pairs.h2) + EPS)
    shape = _saturated(wide).pow(SIOU_THETA) + _saturated(high).pow(SIOU_THETA)
    return 1 - pairs.iou + (distance + shape) / 2


def wiou_loss(pairs: BoxPairs) -> torch.Tensor:
    """(…, 1) 1 − IoU, times 1 to e for the distance of the centres; the enclosing box is a constant to autograd."""
    diagonal2 = (pairs.enclosing_w.square() + pairs.enclosing_h.square()).detach() + EPS
    return ((pairs.dx.square() + pairs.dy.square()) / diagonal2).exp() * (1 - pairs.iou)


def _saturated(cost: torch.Tensor) -> torch.Tensor:
    return -torch.expm1(-cost)


# A measure says how well boxes agree and is close to the IoU where they overlap; the loss is 1 minus the measure.
MEASURES: dict[str, Callable[[BoxPairs], torch.Tensor]] = {"giou": giou, "diou": diou, "ciou": ciou}
LOSSES: dict[str, Callable[[BoxPairs], torch.Tensor]] = {"eiou": eiou_loss, "siou": siou_loss, "wiou": wiou_loss}


class BoxTerms(NamedTuple):
    """The loss and the quality of R boxes, (R,) each.

    Attributes:
        loss: 0 where a box is right.
        quality: how well a box fits, from 0 to about 1, without gradient: the target of its objectness.
    """

    loss: torch.Tensor
    quality: torch.Tensor


class BoxLoss:
    """`name` (ciou, giou, diou, eiou, siou, wiou), each box weighted by its IoU to the power `focus` (Focal-EIoU).

    The weight is a constant to autograd. With a gradient, it would push badly placed boxes away from the true ones to
    lower their weight. The quality is the measure itself for giou, diou and ciou, as in YOLOv5, and else the IoU.
    """

    def __init__(self, name: str = "ciou", focus: float = 0.0) -> None:
        known = (*MEASURES, *LOSSES)
        if name not in known:
            raise ValueError(f"unknown box loss '{name}'{nearest(name, known)}; known are {', '.join(known)}")
        self.name = name
        self.focus = focus

    def __call__(self, predicted: torch.Tensor, true: torch.Tensor) -> BoxTerms:
        """Compare boxes (R, 4), xywh in one unit of any kind. Half precision is computed in float32."""
        precision = torch.promote_types(torch.promote_types(predicted.dtype, true.dtype), torch.float32)
        pairs = box_pairs(predicted.to(precision), true.to(precision))
        if self.name in MEASURES:
            quality = MEASURES[self.name](pairs)
            loss = 1 - quality
        else:
            quality, loss = pairs.iou, LOSSES[self.name](pairs)
        if self.focus > 0:
            loss = loss * pairs.iou.detach().clamp(0, 1).pow(self.focus)
        return BoxTerms(loss[..., 0], quality[..., 0].detach().clamp(0))
