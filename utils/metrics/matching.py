"""Decides which detections are right: at most one for each label, at several IoU thresholds at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from utils.devices import to_numpy
from utils.ops.iou import box_iou


def match_detections(detections: Any, labels: Any, iou_thresholds: Any) -> torch.Tensor:
    """Match the boxes of one image with its labels.

    Args:
        detections: (n, 6) xyxy, confidence, class, by falling confidence (as NMS gives them); tensor or array.
        labels: (m, 5) class, xyxy in the same pixels.
        iou_thresholds: (T,).

    Returns:
        (n, T) bool on the CPU: whether the detection is right at the threshold.
    """
    detections, labels = to_numpy(detections), to_numpy(labels)
    iou = box_iou(labels[:, 1:5], detections[:, :4])
    return match_by_iou(iou, labels[:, 0], detections[:, 5], iou_thresholds)


def match_by_iou(iou: Any, label_classes: Any, detection_classes: Any, iou_thresholds: Any) -> torch.Tensor:
    """Match detections with labels by their overlap, that of boxes or of masks.

    Each detection is assigned to the label of its class that it overlaps most. Of the detections assigned to one label
    with enough overlap, the most confident one is right, and the others are duplicates. (This is YOLOv5's rule.
    pycocotools goes by falling confidence and gives a detection its second-best label if the best one is taken.)

    Args:
        iou: (m, n) labels × detections, the latter by falling confidence.
        label_classes: (m,)
        detection_classes: (n,)
        iou_thresholds: (T,); an overlap of exactly the threshold suffices.

    Returns:
        (n, T) bool on the CPU.
    """
    iou, thresholds = to_numpy(iou), to_numpy(iou_thresholds)
    m, n = iou.shape
    if m == 0 or n == 0:
        return torch.zeros((n, len(thresholds)), dtype=torch.bool)
    iou = np.where(to_numpy(label_classes)[:, None] == to_numpy(detection_classes), iou, -1.0)
    label = iou.argmax(0)  # (n,) the label that each detection is assigned to
    enough = iou.max(0)[:, None] >= thresholds  # (n, T)

    # sort by label, keeping the order of confidence, and number the candidates of each label from its first row on
    order = label.argsort(kind="stable")
    candidate = enough[order]
    counted = candidate.cumsum(0)
    starts = np.searchsorted(label[order], label[order])  # (n,) the first row of the row's label
    before = np.where(starts[:, None] > 0, counted[starts - 1], 0)
    correct = np.empty_like(enough)
    correct[order] = candidate & (counted - before == 1)
    return torch.from_numpy(correct)
