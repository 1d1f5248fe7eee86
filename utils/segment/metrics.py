"""Façade: names that scripts written for YOLOv5 import from ``utils.segment.metrics``."""

from __future__ import annotations

from typing import Any

import numpy as np

from utils.metrics.average_precision import ap_per_class
from utils.metrics.detection import fitness as _fitness

__all__ = ["ap_per_class_box_and_mask", "fitness"]


def fitness(x: Any) -> Any:
    """The sum (n,) of the fitness of boxes and masks; rows (n, 8): P, R, mAP50, mAP50-95 of boxes, then of masks."""
    metrics = np.asarray(x)
    return _fitness(metrics[..., :4]) + _fitness(metrics[..., 4:8])


def ap_per_class_box_and_mask(
    tp_m: Any, tp_b: Any, conf: Any, pred_cls: Any, target_cls: Any, **unused: Any
) -> dict[str, dict[str, np.ndarray]]:
    """Returns p, r, ap, f1 and ap_class for ``boxes`` and for ``masks``. It draws nothing, whatever `plot` says."""
    results = {}
    for name, correct in (("boxes", tp_b), ("masks", tp_m)):
        result = ap_per_class(correct, conf, pred_cls, target_cls)
        results[name] = {"p": result.p, "r": result.r, "ap": result.ap, "f1": result.f1, "ap_class": result.classes}
    return results
