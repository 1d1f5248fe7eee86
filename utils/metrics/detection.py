"""The metrics of a validation. They are collected image by image and computed at the end."""

from __future__ import annotations

from typing import Any

import numpy as np

from utils.devices import to_numpy
from utils.metrics.average_precision import APResult, ap_per_class


class DetectionMetrics:
    """Precision, recall and mean average precision of one kind of output: boxes, or masks.

    Args:
        nc: number of classes.

    Means are taken over the classes that occur in the labels; they are 0 if there are none.
    """

    def __init__(self, nc: int) -> None:
        self.nc = nc
        self._images: list[tuple[np.ndarray, ...]] = []
        self._result: APResult | None = None

    def update(self, correct: Any, conf: Any, pred_cls: Any, target_cls: Any) -> None:
        """Add one image. All arguments may be tensors or arrays.

        Args:
            correct: (n, T) bool, whether the detection is right at the threshold; T = 10 for IoU 0.50 to 0.95.
            conf: (n,) confidence.
            pred_cls: (n,) class of each detection.
            target_cls: (m,) class of each label.
        """
        self._images.append(tuple(to_numpy(v) for v in (correct, conf, pred_cls, target_cls)))
        self._result = None

    def compute(self) -> DetectionMetrics:
        """Compute the metrics of all images that were added so far."""
        if self._images:
            correct, conf, pred_cls, target_cls = (np.concatenate(c) for c in zip(*self._images, strict=True))
        else:
            correct, conf, pred_cls, target_cls = np.zeros((0, 10), bool), np.zeros(0), np.zeros(0), np.zeros(0)
        self._result = ap_per_class(correct, conf, pred_cls, target_cls)
        return self

    @property
    def result(self) -> APResult:
        """The figures and curves of each class."""
        if self._result is None:
            self.compute()
        assert self._result is not None
        return self._result

    @property
    def mp(self) -> float:
        """Mean precision at the confidence of the best mean F1."""
        return _mean(self.result.p)

    @property
    def mr(self) -> float:
        """Mean recall at the confidence of the best mean F1."""
        return _mean(self.result.r)

    @property
    def map50(self) -> float:
        """Mean average precision at the first threshold, IoU 0.5."""
        return _mean(self.result.ap[:, 0])

    @property
    def map(self) -> float:
        """Mean average precision over all thresholds, IoU 0.50 to 0.95."""
        return _mean(self.result.ap)

    @property
    def maps(self) -> np.ndarray:
        """(nc,) average precision over all thresholds of each class; `map` for a class without labels."""
        maps = np.full(self.nc, self.map)
        maps[self.result.classes] = self.result.ap.mean(1)
        return maps

    def mean_results(self) -> list[float]:
        """[mp, mr, map50, map]."""
        return [self.mp, self.mr, self.map50, self.map]


def fitness(x: DetectionMetrics | Any) -> Any:
    """The figure by which the best checkpoint is chosen: 0.1 · mAP50 + 0.9 · mAP50-95.

    Args:
        x: metrics; or an array (…, 4+) whose last axis begins with precision, recall, mAP50 and mAP50-95.

    Returns:
        A number for metrics; for an array, one for each row.
    """
    if isinstance(x, DetectionMetrics):
        return 0.1 * x.map50 + 0.9 * x.map
    metrics = np.asarray(x)
    return 0.1 * metrics[..., 2] + 0.9 * metrics[..., 3]


def _mean(scores: np.ndarray) -> float:
    return float(scores.mean()) if scores.size else 0.0
