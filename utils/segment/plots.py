"""Façade: names that scripts written for YOLOv5 import from ``utils.segment.plots``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from utils.plots.mosaics import plot_images
from utils.plots.results import plot_results as plot_results_with_masks

__all__ = ["plot_images_and_masks", "plot_results_with_masks"]


def plot_images_and_masks(
    images: torch.Tensor, targets: Any, masks: Any, paths: Any = None, fname: Any = "images.jpg", names: Any = None
) -> Path:
    """Call `plot_images` with `masks`: index maps (B, h, w) as for a loss, or (n, h, w), one per row of `targets`."""
    targets, masks = torch.as_tensor(targets), torch.as_tensor(masks)
    owner = targets[:, 0].long()
    counts = owner.bincount(minlength=len(images)).tolist()
    if len(masks) == len(images) and (masks.max() > 1 or len(targets) != len(masks)):
        stacks = [layer == torch.arange(1, n + 1)[:, None, None] for layer, n in zip(masks, counts, strict=True)]
    else:
        stacks = [masks[owner == i] for i in range(len(images))]
    return plot_images(images, targets, paths, fname, names, masks=[stack.numpy() for stack in stacks])
