"""Façade: names that scripts written for YOLOv5 import from ``utils.loss``."""

from __future__ import annotations

from utils.losses.detection import DetectionLoss as ComputeLoss
from utils.losses.focal import FocalLoss

__all__ = ["ComputeLoss", "FocalLoss"]
