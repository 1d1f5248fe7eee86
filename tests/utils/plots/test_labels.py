"""labels.jpg."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from utils.plots.labels import plot_labels


@pytest.mark.parametrize(("n", "nc"), [(0, 3), (5, 1), (5000, 80)])
def test_draws_any_data_set(tmp_path, n, nc):
    rng = np.random.default_rng(0)
    boxes = np.concatenate([rng.uniform(0.2, 0.8, (n, 2)), rng.uniform(0.02, 0.4, (n, 2))], 1)
    path = plot_labels(rng.integers(0, nc, n), boxes, {i: f"n{i}" for i in range(nc)}, tmp_path)
    assert path == tmp_path / "labels.jpg"
    assert cv2.imread(str(path)).std() > 5


def test_centres_lie_where_the_boxes_are(tmp_path):
    """All objects in the upper left: the bright spot of the middle panel (centres) is in its upper left, too."""
    boxes = np.tile([0.25, 0.1, 0.2, 0.2], (50, 1))
    image = cv2.imread(str(plot_labels(np.zeros(50), boxes, ["x"], tmp_path))).astype(int)
    height, width = image.shape[:2]
    panel = image[height // 2 :, width // 3 : 2 * width // 3]
    purple = (panel[..., 2] - panel[..., 1] > 30) & (panel[..., 0] > 60)  # viridis' zero
    rows, columns = np.flatnonzero(purple.any(1)), np.flatnonzero(purple.any(0))
    yellow = np.argwhere((panel[..., 2] > 200) & (panel[..., 1] > 180) & (panel[..., 0] < 120))
    y, x = yellow.mean(0)
    assert (x - columns.min()) / np.ptp(columns) == pytest.approx(0.25, abs=0.03)
    assert (y - rows.min()) / np.ptp(rows) == pytest.approx(0.1, abs=0.03)
