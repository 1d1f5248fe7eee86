from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from utils.metrics.confusion import ConfusionMatrix


def test_reference_figures(golden: Path) -> None:
    file = np.load(golden / "confusion.npz")
    matrix = ConfusionMatrix(4, float(file["conf_thres"]), float(file["iou_thres"]))
    for detections, labels in zip(file["detections"], file["labels"], strict=True):
        matrix.process_batch(torch.tensor(detections), torch.tensor(labels))
    np.testing.assert_array_equal(matrix.matrix, file["matrix"])


def _count(detections: list, labels: list, **options) -> np.ndarray:
    matrix = ConfusionMatrix(2, **options)
    matrix.process_batch(np.array(detections).reshape(-1, 6), np.array(labels).reshape(-1, 5))
    return matrix.matrix


BOX = [0, 0, 10, 10]
ELSEWHERE = [50, 50, 60, 60]


def test_right_wrong_missed_invented() -> None:
    assert _count([[*BOX, 0.9, 0]], [[0, *BOX]]).tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert _count([[*BOX, 0.9, 1]], [[0, *BOX]]).tolist() == [[0, 0, 0], [1, 0, 0], [0, 0, 0]]
    assert _count([[*ELSEWHERE, 0.9, 1]], [[0, *BOX]]).tolist() == [[0, 0, 0], [0, 0, 1], [1, 0, 0]]


def test_no_labels_count_as_background() -> None:
    assert _count([[*BOX, 0.9, 0], [*BOX, 0.8, 0]], []).tolist() == [[0, 0, 2], [0, 0, 0], [0, 0, 0]]


def test_no_detections_count_as_missed() -> None:
    assert _count([], [[1, *BOX]]).tolist() == [[0, 0, 0], [0, 0, 0], [0, 1, 0]]
    matrix = ConfusionMatrix(2)
    matrix.process_batch(None, torch.tensor([[1.0, *BOX]]))
    assert matrix.matrix[2, 1] == 1


def test_nothing_at_all() -> None:
    assert _count([], []).sum() == 0


def test_a_duplicate_is_invented_and_the_best_overlap_wins() -> None:
    detections = [[0, 0, 10, 8, 0.9, 0], [*BOX, 0.5, 1]]
    assert _count(detections, [[0, *BOX]]).tolist() == [[0, 0, 1], [1, 0, 0], [0, 0, 0]]


def test_thresholds_are_exclusive() -> None:
    half = [0, 0, 10, 5]
    assert _count([[*BOX, 0.25, 0]], [[0, *BOX]])[2, 0] == 1
    assert _count([[*half, 0.9, 0]], [[0, *BOX]], iou_thres=0.5)[2, 0] == 1
    assert _count([[*half, 0.9, 0]], [[0, *BOX]], iou_thres=0.49)[0, 0] == 1


def test_every_label_and_every_confident_detection_is_counted_once() -> None:
    rng = np.random.default_rng(0)
    matrix = ConfusionMatrix(3)
    labelled, detected = np.zeros(3), np.zeros(3)
    for _ in range(50):
        n, m = rng.integers(0, 8, 2)
        corner = rng.uniform(0, 20, (n + m, 2))
        boxes = np.concatenate((corner, corner + rng.uniform(5, 20, (n + m, 2))), 1)
        detections = np.concatenate((boxes[:n], rng.random((n, 1)), rng.integers(0, 3, (n, 1))), 1)
        labels = np.concatenate((rng.integers(0, 3, (m, 1)), boxes[n:]), 1)
        matrix.process_batch(detections, labels)
        labelled += np.bincount(labels[:, 0].astype(int), minlength=3)
        detected += np.bincount(detections[detections[:, 4] > 0.25, 5].astype(int), minlength=3)
    np.testing.assert_array_equal(matrix.matrix.sum(0)[:3], labelled)
    np.testing.assert_array_equal(matrix.matrix.sum(1)[:3], detected)
    assert matrix.matrix[3, 3] == 0
    tp, fp = matrix.tp_fp()
    np.testing.assert_array_equal(tp + fp, detected)


@pytest.mark.parametrize("names", [{0: "cat", 1: "dog, small"}, ["cat", "dog, small"]])
def test_table_with_labelled_axes(tmp_path: Path, names) -> None:
    matrix = ConfusionMatrix(2)
    matrix.process_batch(np.array([[*BOX, 0.9, 1]]), np.array([[0, *BOX], [1, *ELSEWHERE]]))
    lines = matrix.csv(tmp_path / "confusion.csv", names).read_text().splitlines()
    assert lines == [
        'predicted \\ true,cat,"dog, small",background',
        "cat,0,0,0",
        '"dog, small",1,0,0',
        "background,0,1,0",
    ]
