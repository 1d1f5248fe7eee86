"""Façade: names that scripts written for YOLOv5 import from ``utils.segment.augmentations``."""

from __future__ import annotations

from utils.data.legacy import random_perspective_of_segments as random_perspective

__all__ = ["random_perspective"]
