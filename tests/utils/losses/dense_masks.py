"""The mask term of the segmentation loss as its formula reads: each pair's mask over the whole image at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from benchmarks.baseline import matched_pairs


def dense_mask_loss(
    predictions: Sequence[torch.Tensor],
    prototypes: torch.Tensor,
    targets: torch.Tensor,
    masks: torch.Tensor,
    head: Any,
    anchor_t: float,
) -> torch.Tensor:
    """What `SegmentationLoss.mask_term` gives; `masks` (n, h, w) float, one per object."""
    height, width = prototypes.shape[2:]
    row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    numbered = torch.cat((targets, torch.arange(len(targets))[:, None]), 1)  # a seventh column passes through
    total = prototypes.sum() * 0
    for prediction, anchors in zip(predictions, head.anchors, strict=True):
        matched, anchor, x, y = matched_pairs(prediction.shape, numbered, anchors, anchor_t)
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
