"""The picture of a confusion matrix: who stands where, and how dark."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from utils.plots.confusion import plot_confusion


def _axes_of(path) -> np.ndarray:
    """The matrix, without its frame: the square that starts at the first long dark row and column."""
    image = cv2.imread(str(path))
    dark = image.max(2) < 60
    rows = np.flatnonzero(dark.sum(1) > 0.4 * dark.shape[1])
    left = np.flatnonzero(dark.sum(0) > 0.4 * dark.shape[0]).min()
    side = rows.max() - rows.min()
    return image[rows.min() + 3 : rows.max() - 2, left + 3 : left + side - 2]


def test_rows_are_predictions_columns_truth(tmp_path):
    matrix = np.zeros((3, 3))
    matrix[0, 0] = 8  # class 0 found
    matrix[2, 1] = 4  # class 1 missed: predicted background
    matrix[0, 2] = 1  # a false alarm of class 0
    area = _axes_of(plot_confusion(matrix, {0: "cat", 1: "dog"}, tmp_path / "confusion_matrix.png"))
    height, width = area.shape[:2]
    corner = lambda r, c: area[int((r + 0.15) * height / 3), int((c + 0.15) * width / 3)].astype(int)  # noqa: E731
    full = [(r, c) for r in range(3) for c in range(3) if corner(r, c)[2] < 60]  # red is low in dark blue
    assert full == [(0, 0), (0, 2), (2, 1)]


def test_counts_instead_of_shares(tmp_path):
    matrix = np.array([[10.0, 5.0], [0.0, 0.0]])
    share = _axes_of(plot_confusion(matrix, ["one"], tmp_path / "share.png"))
    count = _axes_of(plot_confusion(matrix, ["one"], tmp_path / "count.png", normalize=False))
    at = lambda area: area[int(0.1 * area.shape[0]), int(0.6 * area.shape[1])].astype(int)  # noqa: E731
    assert at(share)[2] < 60  # all of the background column
    assert 60 < at(count)[2] < 200  # half of the largest count


@pytest.mark.parametrize("nc", [1, 80, 130])
def test_any_number_of_classes(tmp_path, nc):
    path = plot_confusion(np.zeros((nc + 1, nc + 1)), {i: f"class {i} $" for i in range(nc)}, tmp_path / "c.png")
    assert path.stat().st_size > 5000
