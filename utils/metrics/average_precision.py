"""Average precision, and precision, recall and F1 as functions of the confidence, for each class."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from utils.devices import to_numpy

_CURVE_POINTS = 1000  # points of the curves, along confidence or recall
_RECALL_POINTS = np.linspace(0, 1, 101)  # at which average precision is computed, as in COCO


@dataclass(frozen=True)
class APResult:
    """The figures of the k classes that occur in the labels, at T thresholds, curves, p, r and f1 at the first one.

    `p`, `r` and `f1` (k,) are those at `best_confidence`, where the smoothed mean F1 over classes is highest. The
    result unpacks into what YOLOv5's `ap_per_class` returns: tp, fp, p, r, f1, ap, classes.
    """

    classes: np.ndarray  # (k,) int64
    labels: np.ndarray  # (k,) int64, number of labels of each
    p: np.ndarray  # (k,)
    r: np.ndarray  # (k,)
    f1: np.ndarray  # (k,)
    ap: np.ndarray  # (k, T)
    best_confidence: float
    confidences: np.ndarray  # (1000,) 0..1
    p_curve: np.ndarray  # (k, 1000) over confidences
    r_curve: np.ndarray  # (k, 1000) over confidences
    f1_curve: np.ndarray  # (k, 1000) over confidences
    recalls: np.ndarray  # (1000,) 0..1
    pr_curve: np.ndarray  # (k, 1000) precision over recalls

    @property
    def tp(self) -> np.ndarray:
        """(k,) true positives at `best_confidence`."""
        return (self.r * self.labels).round()

    @property
    def fp(self) -> np.ndarray:
        """(k,) false positives at `best_confidence`."""
        return (self.tp / (self.p + 1e-16) - self.tp).round()

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter((self.tp, self.fp, self.p, self.r, self.f1, self.ap, self.classes))


def ap_per_class(tp: Any, conf: Any, pred_cls: Any, target_cls: Any, eps: float = 1e-16) -> APResult:
    """Compute the figures of the detections of a whole data set.

    Args:
        tp: (n, T) bool, whether the detection is right at the threshold (see `match_detections`).
        conf: (n,) confidence.
        pred_cls: (n,) class of the detection.
        target_cls: (m,) class of every label.
        eps: keeps the divisions finite.
    """
    tp, conf, pred_cls = to_numpy(tp), to_numpy(conf), to_numpy(pred_cls)
    classes, labels = np.unique(to_numpy(target_cls).astype(np.int64), return_counts=True)
    order = np.lexsort((-conf, pred_cls))  # by class, then by falling confidence
    tp, conf, pred_cls = tp[order], conf[order], pred_cls[order]
    starts, ends = np.searchsorted(pred_cls, classes, "left"), np.searchsorted(pred_cls, classes, "right")

    axis = np.linspace(0, 1, _CURVE_POINTS)
    ap = np.zeros((len(classes), tp.shape[1]))
    p_curve, r_curve, pr_curve = np.zeros((3, len(classes), _CURVE_POINTS))
    for k, (start, end, count) in enumerate(zip(starts, ends, labels, strict=True)):
        if start == end:
            continue
        right = tp[start:end].cumsum(0)
        recall = right / (count + eps)
        precision = right / np.arange(1, end - start + 1)[:, None]
        confidence = -conf[start:end]  # rises, as interp needs it
        r_curve[k] = np.interp(-axis, confidence, recall[:, 0], left=0)  # above every confidence nothing is found
        p_curve[k] = np.interp(-axis, confidence, precision[:, 0], left=1)
        for j in range(tp.shape[1]):
            ap[k, j], at, envelope = compute_ap(recall[:, j], precision[:, j])
            if j == 0:
                pr_curve[k] = np.interp(axis, at, envelope)

    f1_curve = 2 * p_curve * r_curve / (p_curve + r_curve + eps)
    best = int(smooth(f1_curve.mean(0), 0.1).argmax()) if len(classes) else 0
    return APResult(
        classes, labels, p_curve[:, best], r_curve[:, best], f1_curve[:, best], ap, float(axis[best]),
        axis, p_curve, r_curve, f1_curve, axis, pr_curve,
    )  # fmt: skip


def compute_ap(recall: np.ndarray, precision: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """The area below a precision-recall curve, and the curve made monotone.

    The curve is extended to recall 0 at precision 1 and to recall 1 at precision 0. Each precision is replaced by the
    highest one at this or a higher recall, and the area is the sum of trapezoids between 101 recall points.
    (pycocotools averages the precision at 101 points without connecting them; the two differ by a few thousandths.)

    Args:
        recall: (n,) in the order of falling confidence, so it rises.
        precision: (n,)

    Returns:
        The area, and the (n + 2,) recall and precision of the curve.
    """
    recall = np.concatenate(([0.0], recall, [1.0]))
    precision = np.concatenate(([1.0], precision, [0.0]))
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    at_points = np.interp(_RECALL_POINTS, recall, precision)
    area = (at_points.sum() - (at_points[0] + at_points[-1]) / 2) / (len(_RECALL_POINTS) - 1)
    return float(area), recall, precision


def smooth(y: np.ndarray, f: float = 0.05) -> np.ndarray:
    """The moving average of `y` (n,) over a share `f` of its length (an odd number of points), the ends repeated."""
    width = round(len(y) * f * 2) // 2 + 1
    padded = np.pad(y, width // 2, mode="edge")
    return np.convolve(padded, np.full(width, 1 / width), mode="valid")
