"""Façade: names that scripts written for YOLOv5 import from ``utils.segment.loss``."""

from __future__ import annotations

from utils.losses.segmentation import SegmentationLoss as ComputeLoss

__all__ = ["ComputeLoss"]
