"""Façade: names that scripts written for YOLOv5 import from ``utils.augmentations``."""

from __future__ import annotations

from utils.data.legacy import random_perspective
from utils.ops.letterbox import letterbox

__all__ = ["letterbox", "random_perspective"]
