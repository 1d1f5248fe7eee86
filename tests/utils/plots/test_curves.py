"""PR, F1, P and R curves."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from utils.metrics.average_precision import ap_per_class
from utils.plots.curves import CurveStyle, draw_lines, plot_curves
from utils.plots.figures import class_lettering


def _result(nc: int, n: int = 40):
    rng = np.random.default_rng(nc)
    classes = np.repeat(np.arange(nc), n)
    confidence = rng.random(nc * n)
    return ap_per_class(rng.random((nc * n, 10)) < confidence[:, None], confidence, classes, classes)


@pytest.mark.parametrize("nc", [1, 4, 80])
def test_four_pictures(tmp_path, nc):
    paths = plot_curves(_result(nc), {i: f"class {i}" for i in range(nc)}, tmp_path)
    assert [p.name for p in paths] == ["PR_curve.png", "F1_curve.png", "P_curve.png", "R_curve.png"]
    for path in paths:
        image = cv2.imread(str(path)).astype(int)
        assert (np.abs(image - (255, 0, 0)).sum(2) < 30).sum() > 500  # the mean line, blue in BGR
        grey = (np.abs(image - 204).sum(2) < 12).sum()
        assert (grey > 5000) == (nc == 80)  # the many classes between the extremes


def test_masks_have_their_own_files(tmp_path):
    assert plot_curves(_result(2), ["a", "b"], tmp_path, prefix="Mask")[0].name == "MaskPR_curve.png"


def test_without_labels_there_is_nothing_to_draw(tmp_path):
    nothing = ap_per_class(np.zeros((0, 10), bool), np.zeros(0), np.zeros(0), np.zeros(0))
    assert plot_curves(nothing, ["a"], tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_a_line_lies_where_its_values_are(tmp_path):
    """A constant 0.5: the blue mean runs through the middle between the axes' frame at 0 and the top at 1.01."""
    x = np.linspace(0, 1, 50)
    style = CurveStyle("x", "y", "")
    path = draw_lines(
        tmp_path / "c.png", x, np.full((1, 50), 0.5), class_lettering(["a"], [0]), np.ones(1), style, "all"
    )
    image = cv2.imread(str(path)).astype(int)
    dark = image.max(2) < 60
    frame = np.flatnonzero(dark.sum(1) > 0.5 * image.shape[1])
    blue = np.abs(image - (255, 0, 0)).sum(2) < 30
    rows = np.flatnonzero(blue.sum(1) > 0.5 * image.shape[1])
    height = (frame.max() - rows.mean()) / (frame.max() - frame.min()) * 1.01
    assert height == pytest.approx(0.5, abs=0.01)
