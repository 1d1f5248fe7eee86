"""Intersection over union, all pairs or pair by pair, and its penalised forms.

GIoU: Rezatofighi et al. 2019, arXiv:1902.09630. DIoU and CIoU: Zheng et al. 2020, arXiv:1911.08287.
"""

from __future__ import annotations

import math

import torch

from utils.ops.boxes import Boxes


def box_iou(box1: Boxes, box2: Boxes, eps: float = 1e-7) -> Boxes:
    """IoU of every pair of xyxy boxes: (n, 4) and (m, 4) to (n, m); tensors or arrays."""
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


def bbox_iou(
    box1: torch.Tensor,
    box2: torch.Tensor,
    xywh: bool = True,
    GIoU: bool = False,  # noqa: N803, RUF100 (YOLOv5's names)
    DIoU: bool = False,  # noqa: N803, RUF100
    CIoU: bool = False,  # noqa: N803, RUF100
    eps: float = 1e-7,
) -> torch.Tensor:
    """IoU, or one of its penalised forms, of boxes pair by pair.

    Args:
        box1: (…, 4); broadcasts against `box2`, so one box against many works.
        box2: (…, 4).
        xywh: centre and size; False for corners.
        GIoU: subtract the empty share of the smallest enclosing box.
        DIoU: subtract the centres' squared distance over the enclosing box's squared diagonal.
        CIoU: DIoU, less a term for the difference in aspect ratio. Its weight is a constant to autograd (the paper).
        eps: keeps the divisions finite.

    Returns:
        (…, 1).
    """
    if xywh:
        (x1, y1, w1, h1), (x2, y2, w2, h2) = box1.chunk(4, -1), box2.chunk(4, -1)
        left1, right1, top1, bottom1 = x1 - w1 / 2, x1 + w1 / 2, y1 - h1 / 2, y1 + h1 / 2
        left2, right2, top2, bottom2 = x2 - w2 / 2, x2 + w2 / 2, y2 - h2 / 2, y2 + h2 / 2
    else:
        (left1, top1, right1, bottom1), (left2, top2, right2, bottom2) = box1.chunk(4, -1), box2.chunk(4, -1)
        w1, h1 = right1 - left1, (bottom1 - top1).clamp(min=eps)
        w2, h2 = right2 - left2, (bottom2 - top2).clamp(min=eps)

    inter = (right1.minimum(right2) - left1.maximum(left2)).clamp(min=0) * (
        bottom1.minimum(bottom2) - top1.maximum(top2)
    ).clamp(min=0)
    union = w1 * h1 + w2 * h2 - inter + eps
    iou = inter / union
    if not (GIoU or DIoU or CIoU):
        return iou

    enclosing_w = right1.maximum(right2) - left1.minimum(left2)
    enclosing_h = bottom1.maximum(bottom2) - top1.minimum(top2)
    if GIoU:
        enclosing = enclosing_w * enclosing_h + eps
        return iou - (enclosing - union) / enclosing
    diagonal2 = enclosing_w.square() + enclosing_h.square() + eps
    distance2 = ((left2 + right2 - left1 - right1).square() + (top2 + bottom2 - top1 - bottom1).square()) / 4
    distance = distance2 / diagonal2
    if not CIoU:
        return iou - distance
    aspect = (4 / math.pi**2) * (torch.atan(w2 / h2) - torch.atan(w1 / h1)).square()
    with torch.no_grad():
        weight = aspect / (aspect - iou + (1 + eps))
    return iou - (distance + aspect * weight)
