"""The straightforward losses, as yardsticks: level by level, dense targets, filtering, plain autograd."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from utils.ops.iou import bbox_iou

_CELLS = ((0.0, 0.0), (0.5, 0.0), (0.0, 0.5), (-0.5, 0.0), (0.0, -0.5))  # own, left, above, right, below


def plain_loss(
    predictions: Sequence[torch.Tensor], targets: torch.Tensor, head: Any, hyp: Mapping[str, float]
) -> torch.Tensor:
    """The loss (1,) that `DetectionLoss` gives (no focal loss, no label smoothing, three levels)."""
    weights = {name: torch.tensor([hyp[name]], device=targets.device) for name in ("cls_pw", "obj_pw")}
    total = torch.zeros(1, device=targets.device)
    for prediction, anchors, balance in zip(predictions, head.anchors, (4.0, 1.0, 0.4), strict=True):
        objectness = torch.zeros_like(prediction[..., 0])
        matched, anchor, column, row = _matched(prediction.shape, targets, anchors, hyp["anchor_t"])
        if len(matched):
            image = matched[:, 0].long()
            predicted = prediction[image, anchor, row, column]
            scaled = predicted[:, :4].sigmoid() * 2
            box = torch.cat((scaled[:, :2] - 0.5, scaled[:, 2:] ** 2 * anchors[anchor]), 1)
            cell = torch.stack((column, row), 1)
            iou = bbox_iou(box, torch.cat((matched[:, 2:4] - cell, matched[:, 4:6]), 1), CIoU=True).squeeze(1)
            total = total + hyp["box"] * (1 - iou).mean()
            objectness[image, anchor, row, column] = iou.detach().clamp(0)
            if head.nc > 1:
                true = torch.zeros_like(predicted[:, 5:])
                true[range(len(matched)), matched[:, 1].long()] = 1.0
                total = total + hyp["cls"] * bce(predicted[:, 5:], true, pos_weight=weights["cls_pw"])
        total = total + hyp["obj"] * balance * bce(prediction[..., 4], objectness, pos_weight=weights["obj_pw"])
    return total * len(predictions[0])


def plain_mask_loss(
    predictions: Sequence[torch.Tensor],
    prototypes: torch.Tensor,
    targets: torch.Tensor,
    masks: torch.Tensor,
    head: Any,
    anchor_t: float,
) -> torch.Tensor:
    """The masks' term, before its gain, of `SegmentationLoss`; `masks` (n, h, w) float, one an object.

    Every pair's mask over the whole picture at once, as the formula reads.
    """
    height, width = prototypes.shape[2:]
    row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    numbered = torch.cat((targets, torch.arange(len(targets))[:, None]), 1)  # a seventh column passes through
    total = prototypes.sum() * 0
    for prediction, anchors in zip(predictions, head.anchors, strict=True):
        matched, anchor, x, y = _matched(prediction.shape, numbered, anchors, anchor_t)
        image, which = matched[:, 0].long(), matched[:, 6].long()
        rows = prediction[image, anchor, y, x][:, 5 + head.nc :]
        for i in image.unique():
            own, of = rows[image == i], which[image == i]
            logits = (own @ prototypes[i].flatten(1)).view(-1, height, width)
            centre_x, centre_y = targets[of, 2] * width, targets[of, 3] * height
            half_x, half_y = targets[of, 4] * width / 2, targets[of, 5] * height / 2
            inside = (column >= (centre_x - half_x)[:, None, None]) & (column < (centre_x + half_x)[:, None, None])
            inside &= (row >= (centre_y - half_y)[:, None, None]) & (row < (centre_y + half_y)[:, None, None])
            each = (bce(logits, masks[of], reduction="none") * inside).mean((1, 2)) / targets[of, 4:6].prod(1)
            total = total + each.mean() / len(prototypes)
    return total


def _matched(
    shape: Sequence[int], targets: torch.Tensor, anchors: torch.Tensor, anchor_t: float
) -> tuple[torch.Tensor, ...]:
    """Of each pair: the object (image, class, xywh in grid units), and the prediction's anchor, column and row."""
    size = torch.tensor([shape[3], shape[2]], device=targets.device)
    scaled = targets.clone()
    scaled[:, 2:6] *= size.repeat(2)
    ratio = scaled[None, :, 4:6] / anchors[:, None]
    anchor, which = (torch.maximum(ratio, 1 / ratio).amax(2) < anchor_t).nonzero(as_tuple=True)
    centre = scaled[which, 2:4]
    found = []
    for dx, dy in _CELLS:
        move = torch.tensor([dx, dy], device=targets.device)
        side = centre if dx + dy >= 0 else size - centre  # distance to the edge that the move goes to
        near = (((side % 1 < 0.5) & (side > 1)) | (move == 0)).all(1)
        cell = (centre[near] - move).long()
        found.append((which[near], anchor[near], cell[:, 0].clamp(0, shape[3] - 1), cell[:, 1].clamp(0, shape[2] - 1)))
    which, anchor, column, row = (torch.cat(parts) for parts in zip(*found, strict=True))
    return scaled[which], anchor, column, row
