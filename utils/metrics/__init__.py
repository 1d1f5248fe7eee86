"""Façade: names that scripts written for YOLOv5 import from `utils.metrics`, each fetched on first use.

Code of this project imports the owners (`utils.metrics.matching`, `utils.ops.iou`, …) instead.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_OWNERS = {
    "ConfusionMatrix": "utils.metrics.confusion",
    "ap_per_class": "utils.metrics.average_precision",
    "bbox_iou": "utils.ops.iou",
    "box_iou": "utils.ops.iou",
    "compute_ap": "utils.metrics.average_precision",
    "fitness": "utils.metrics.detection",
    "smooth": "utils.metrics.average_precision",
    "smooth_bce": "utils.losses.focal",
}
__all__ = sorted(_OWNERS)  # noqa: PLE0605, RUF100 (names come from the table)


def __getattr__(name: str) -> Any:
    if name not in _OWNERS:
        raise AttributeError(f"module 'utils.metrics' has no attribute '{name}'")
    return getattr(import_module(_OWNERS[name]), name)


def __dir__() -> list[str]:
    return __all__
