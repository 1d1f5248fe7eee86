"""Loss gains scaled to the network and the data; class weights from label counts."""

from __future__ import annotations

from typing import Any

import numpy as np


def scale_gains(hyp: dict[str, Any], nl: int, nc: int, imgsz: tuple[int, int]) -> dict[str, Any]:
    """A copy of `hyp` whose gains, given for 3 levels, 80 classes and 640×640, fit this network.

    box · 3/nl, cls · nc/80 · 3/nl, obj · (area / 640²) · 3/nl.
    """
    levels = 3 / nl
    area = imgsz[0] * imgsz[1] / 640**2
    return {
        **hyp,
        "box": hyp["box"] * levels,
        "cls": hyp["cls"] * nc / 80 * levels,
        "obj": hyp["obj"] * area * levels,
    }


def class_weights(classes: np.ndarray, nc: int) -> np.ndarray:
    """Inverse label frequencies (nc,), summing to 1; a class without labels counts as having one."""
    counts = np.bincount(classes.astype(np.int64), minlength=nc).astype(np.float64)
    counts[counts == 0] = 1
    weights = 1 / counts
    return weights / weights.sum()
