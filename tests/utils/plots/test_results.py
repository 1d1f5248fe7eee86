"""results.csv → results.png."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from utils.errors import UserError
from utils.plots.results import plot_results, read_results, smooth_curve

HEADER = (
    "               epoch,      train/box_loss,      train/obj_loss,      train/cls_loss,   metrics/precision,"
    "      metrics/recall,     metrics/mAP_0.5,metrics/mAP_0.5:0.95,        val/box_loss,        val/obj_loss,"
    "        val/cls_loss,               x/lr0,               x/lr1,               x/lr2"
)


def _row(epoch: int) -> str:
    return ",".join(
        f"{v:20.5g}" for v in [epoch, *[0.9**epoch] * 3, *[1 - 0.9**epoch] * 4, *[0.9**epoch] * 3, *[0.01] * 3]
    )


def test_draws_every_loss_and_metric_of_yolov5s_columns(tmp_path):
    csv = tmp_path / "results.csv"
    csv.write_text("\n".join([HEADER, *map(_row, range(12))]))
    path = plot_results(csv)
    assert path == tmp_path / "results.png"
    image = cv2.imread(str(path))
    assert image.shape[1] > image.shape[0]  # two rows of five panels
    blue = (abs(image.astype(int) - (180, 119, 31)).sum(2) < 30).astype(np.uint8)  # the curves' colour, BGR
    height, width = blue.shape
    cells = [
        blue[r * height // 2 : (r + 1) * height // 2, c * width // 5 : (c + 1) * width // 5]
        for r in (0, 1)
        for c in range(5)
    ]
    assert all(cell.sum() > 50 for cell in cells)


def test_reads_columns_and_leaves_gaps_for_missing_cells(tmp_path):
    csv = tmp_path / "results.csv"
    csv.write_text("epoch, train/box_loss, metrics/precision\n0, 0.5, \n1, 0.25, 0.75\n2, 0.1\n")
    columns = read_results(csv)
    np.testing.assert_array_equal(columns["epoch"], [0, 1, 2])
    np.testing.assert_array_equal(columns["train/box_loss"], [0.5, 0.25, 0.1])
    np.testing.assert_array_equal(columns["metrics/precision"], [np.nan, 0.75, np.nan])
    assert plot_results(csv, tmp_path / "other.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "expected a header"), ("epoch,train/box_loss\n", "expected a header"), ("a,b\n1,2\n", "expected a header"),
     ("epoch,x/lr0\n0,0.1\n", "nothing to draw")],
)  # fmt: skip
def test_a_file_without_results_is_refused(tmp_path, text, message):
    csv = tmp_path / "results.csv"
    csv.write_text(text)
    with pytest.raises(UserError, match=message):
        plot_results(csv)
    with pytest.raises(UserError, match="cannot read"):
        plot_results(tmp_path / "absent.csv")


def test_smooth_keeps_constants_and_lines_inside():
    np.testing.assert_allclose(smooth_curve(np.full(20, 3.0)), 3.0)
    np.testing.assert_allclose(smooth_curve(np.arange(60.0))[20:40], np.arange(20.0, 40.0))
    assert smooth_curve(np.array([0.0, 0, 0, 10, 0, 0, 0])).max() < 3
