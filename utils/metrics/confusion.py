"""The confusion matrix of a detector: which classes were confused, missed, or detected where there is nothing."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from utils.devices import to_numpy
from utils.files import atomic_write
from utils.ops.iou import box_iou


class ConfusionMatrix:
    """Counts pairs of detections and labels that overlap, whatever their classes are.

    ``matrix[i, j]``, (nc + 1, nc + 1): objects of class `j` detected as `i`. The last row holds the objects that were
    missed, the last column the detections at which there is no object.

    Args:
        nc: number of classes.
        conf: detections at or below this confidence do not count.
        iou_thres: a pair overlaps by more than this.
    """

    def __init__(self, nc: int, conf: float = 0.25, iou_thres: float = 0.45) -> None:
        self.nc = nc
        self.conf = conf
        self.iou_thres = iou_thres
        self.matrix: np.ndarray = np.zeros((nc + 1, nc + 1))

    def process_batch(self, detections: Any, labels: Any) -> None:
        """Count the detections and labels of one image.

        Args:
            detections: (n, 6) xyxy, confidence, class; None where there are none.
            labels: (m, 5) class, xyxy.
        """
        found = np.zeros((0, 6), np.float32) if detections is None else to_numpy(detections)
        known = to_numpy(labels).reshape(-1, 5)
        found = found[found[:, 4] > self.conf]
        true, predicted = known[:, 0].astype(np.int64), found[:, 5].astype(np.int64)
        match = _match(box_iou(known[:, 1:], found[:, :4]), self.iou_thres)  # (m,) detection of each label, or -1
        seen = match >= 0
        background = self.nc
        alone = np.setdiff1d(np.arange(len(found)), match[seen])
        rows = np.concatenate((np.where(seen, np.append(predicted, background)[match], background), predicted[alone]))
        columns = np.concatenate((true, np.full(len(alone), background)))
        np.add.at(self.matrix, (rows, columns), 1)

    def tp_fp(self) -> tuple[np.ndarray, np.ndarray]:
        """(nc,) true and (nc,) false positives of each class."""
        right = self.matrix.diagonal()
        return right[:-1].copy(), (self.matrix.sum(1) - right)[:-1]

    def csv(self, path: str | Path, names: Mapping[int, str] | Sequence[str] | None = None) -> Path:
        """Write the counts with labelled axes, a row for each predicted class and a column for each true one."""
        axis = [str(i if names is None else names[i]) for i in range(self.nc)] + ["background"]
        with atomic_write(path, "w") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(["predicted \\ true", *axis])
            rows.writerows([name, *counts] for name, counts in zip(axis, self.matrix.astype(np.int64), strict=True))
        return Path(path)


def _match(iou: np.ndarray, iou_thres: float) -> np.ndarray:
    """For each label the detection that it is paired with, or −1, from the overlaps `iou` (m, n).

    Each detection chooses the label that it overlaps most. Of the detections that chose it, a label keeps the one that
    overlaps it most.
    """
    m, n = iou.shape
    if m == 0 or n == 0:
        return np.full(m, -1)
    choice = iou.argmax(0)  # (n,)
    taken = np.where(np.arange(m)[:, None] == choice, iou, -1.0)
    return np.where(taken.max(1) > iou_thres, taken.argmax(1), -1)
