"""Intersection over union of all pairs of boxes or pair by pair, and its penalised forms.

GIoU: Rezatofighi et al. 2019, arXiv:1902.09630. DIoU and CIoU: Zheng et al. 2020, arXiv:1911.08287.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from utils.ops.boxes import Boxes

EPS = 1e-7  # keeps the divisions finite


def box_iou(box1: Boxes, box2: Boxes, eps: float = EPS) -> Boxes:
    """The IoU (n, m) of all pairs of xyxy boxes (n, 4) and (m, 4); tensors or arrays."""
    a1, a2 = box1[:, None, :2], box1[:, None, 2:4]
    b1, b2 = box2[None, :, :2], box2[None, :, 2:4]
    if isinstance(box1, torch.Tensor):
        sides = (torch.minimum(a2, b2) - torch.maximum(a1, b1)).clamp_(min=0)
    else:
        import numpy as np

        sides = (np.minimum(a2, b2) - np.maximum(a1, b1)).clip(0)
    inter = sides[..., 0] * sides[..., 1]
    area1 = (a2 - a1)[..., 0] * (a2 - a1)[..., 1]
    area2 = (b2 - b1)[..., 0] * (b2 - b1)[..., 1]
    return inter / (area1 + area2 - inter + eps)


class BoxPairs(NamedTuple):
    """What all forms of IoU are computed from, for each pair: (…, 1) each, in the unit of the boxes (areas squared).

    Attributes:
        iou: intersection over union.
        union: area of the union.
        w1: width of the first box; `h1` its height, `w2` and `h2` those of the second.
        enclosing_w: width of the smallest box around both; `enclosing_h` its height.
        dx: from the first box's centre to the second's; `dy` likewise.
    """

    iou: torch.Tensor
    union: torch.Tensor
    w1: torch.Tensor
    h1: torch.Tensor
    w2: torch.Tensor
    h2: torch.Tensor
    enclosing_w: torch.Tensor
    enclosing_h: torch.Tensor
    dx: torch.Tensor
    dy: torch.Tensor


def box_pairs(box1: torch.Tensor, box2: torch.Tensor, xywh: bool = True, eps: float = EPS) -> BoxPairs:
    """Compare boxes (…, 4) with boxes (…, 4), as centre and size or (`xywh` False) corners; they broadcast."""
    if xywh:
        (x1, y1, w1, h1), (x2, y2, w2, h2) = box1.chunk(4, -1), box2.chunk(4, -1)
        (half_w1, half_h1), (half_w2, half_h2) = ((box[..., 2:] / 2).chunk(2, -1) for box in (box1, box2))
        left1, right1, top1, bottom1 = x1 - half_w1, x1 + half_w1, y1 - half_h1, y1 + half_h1
        left2, right2, top2, bottom2 = x2 - half_w2, x2 + half_w2, y2 - half_h2, y2 + half_h2
    else:
        (left1, top1, right1, bottom1), (left2, top2, right2, bottom2) = box1.chunk(4, -1), box2.chunk(4, -1)
        w1, h1 = right1 - left1, (bottom1 - top1).clamp(min=eps)
        w2, h2 = right2 - left2, (bottom2 - top2).clamp(min=eps)

    inter = (right1.minimum(right2) - left1.maximum(left2)).clamp(min=0) * (
        bottom1.minimum(bottom2) - top1.maximum(top2)
    ).clamp(min=0)
    union = w1 * h1 + w2 * h2 - inter + eps
    return BoxPairs(
        iou=inter / union,
        union=union,
        w1=w1,
        h1=h1,
        w2=w2,
        h2=h2,
        enclosing_w=right1.maximum(right2) - left1.minimum(left2),
        enclosing_h=bottom1.maximum(bottom2) - top1.minimum(top2),
        dx=(left2 + right2 - left1 - right1) / 2,
        dy=(top2 + bottom2 - top1 - bottom1) / 2,
    )


def giou(pairs: BoxPairs, eps: float = EPS) -> torch.Tensor:
    """(…, 1) IoU minus the empty share of the smallest enclosing box; in −1..1."""
    enclosing = pairs.enclosing_w * pairs.enclosing_h + eps
    return pairs.iou - (enclosing - pairs.union) / enclosing


def diou(pairs: BoxPairs, eps: float = EPS) -> torch.Tensor:
    """(…, 1) IoU minus the squared distance of the centres over the squared diagonal of the enclosing box; in −1..1."""
    return pairs.iou - _distance(pairs, eps)


def ciou(pairs: BoxPairs, eps: float = EPS) -> torch.Tensor:
    """(…, 1) DIoU minus a term for the difference in aspect ratio. Its weight is a constant to autograd (paper)."""
    # Without the limits, the gradient of a height of 0 would not be a number. Neither would that of equal boxes whose
    # IoU is rounded to the float above 1.
    angle1, angle2 = (torch.atan(w / h.clamp(min=eps)) for w, h in ((pairs.w1, pairs.h1), (pairs.w2, pairs.h2)))
    aspect = (4 / math.pi**2) * (angle2 - angle1).square()
    with torch.no_grad():
        weight = aspect / (aspect - pairs.iou + (1 + eps)).clamp(min=eps)
    return pairs.iou - (_distance(pairs, eps) + aspect * weight)


def _distance(pairs: BoxPairs, eps: float) -> torch.Tensor:
    diagonal2 = pairs.enclosing_w.square() + pairs.enclosing_h.square() + eps
    return (pairs.dx.square() + pairs.dy.square()) / diagonal2


def bbox_iou(
    box1: torch.Tensor,
    box2: torch.Tensor,
    xywh: bool = True,
    GIoU: bool = False,  # noqa: N803, RUF100 (YOLOv5's names)
    DIoU: bool = False,  # noqa: N803, RUF100
    CIoU: bool = False,  # noqa: N803, RUF100
    eps: float = EPS,
) -> torch.Tensor:
    """IoU, or one of its penalised forms, of boxes pair by pair.

    Args:
        box1: (…, 4); broadcasts against `box2`, so one box against many works.
        box2: (…, 4).
        xywh: centre and size; False for corners.
        GIoU: see `giou`; it goes before the others where several are asked for.
        DIoU: see `diou`.
        CIoU: see `ciou`; it goes before DIoU.
        eps: keeps the divisions finite.

    Returns:
        (…, 1).
    """
    pairs = box_pairs(box1, box2, xywh, eps)
    if GIoU:
        return giou(pairs, eps)
    if CIoU:
        return ciou(pairs, eps)
    return diou(pairs, eps) if DIoU else pairs.iou
