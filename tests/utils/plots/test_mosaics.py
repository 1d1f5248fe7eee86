"""Batches as pictures: every box where its label says, in its class's colour."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from utils.plots.annotator import colors
from utils.plots.mosaics import plot_images


def _outline(picture: np.ndarray, class_id: int) -> tuple[int, int, int, int]:
    """x1, y1, x2, y2 of the pixels in the colour of `class_id`."""
    near = np.abs(picture.astype(int) - colors(class_id, True)).sum(2) < 12
    y, x = np.nonzero(near)
    return int(x.min()), int(y.min()), int(x.max()), int(y.max())


def test_boxes_lie_where_the_labels_say(tmp_path):
    images = torch.full((3, 3, 128, 192), 114, dtype=torch.uint8)
    targets = torch.tensor([[0, 0, 0.5, 0.5, 0.5, 0.5], [2, 1, 0.25, 0.75, 0.25, 0.25]])
    path = plot_images(images, targets, ["a/b.jpg", "c.jpg", "d.jpg"], tmp_path / "grid.png", {0: "", 1: ""})
    picture = cv2.imread(str(path))
    assert picture.shape == (256, 384, 3)  # two by two tiles
    assert _outline(picture, 0) == pytest.approx((48, 32, 144, 96), abs=2)
    assert _outline(picture, 1) == pytest.approx((24, 128 + 80, 72, 128 + 112), abs=2)
    assert (picture[130:250, 195:] == 255).all()  # no fourth image


def test_detections_above_the_confidence_in_pixels_of_the_input(tmp_path):
    images = torch.full((1, 3, 64, 64), 0.5)
    found = torch.tensor([[8.0, 16, 40, 48, 0.9, 2], [1, 1, 60, 60, 0.2, 3]])
    picture = cv2.imread(str(plot_images(images, [found], None, tmp_path / "one.png", {2: ""})))
    assert picture.shape == (64, 64, 3)
    box = _outline(picture, 2)
    assert box[0] == pytest.approx(8, abs=2)  # the label " 0.90" widens the plate to the right
    assert box[3] == pytest.approx(48, abs=2)
    assert not (np.abs(picture.astype(int) - colors(3, True)).sum(2) < 12).any()
    assert abs(int(picture[60, 4, 0]) - 128) <= 2  # 0..1 floats are scaled


def test_large_batches_are_scaled_down_and_cut(tmp_path):
    images = np.zeros((20, 3, 640, 640), np.uint8)
    images[:, 0] = 200  # red
    targets = np.array([[0, 0, 0.5, 0.5, 0.5, 0.25, 0.8], [19, 0, 0.5, 0.5, 0.1, 0.1, 0.9]])
    path = plot_images(images, targets, None, tmp_path / "täglich.jpg", ["x"])
    picture = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (1920, 1920, 3)
    assert picture[470, 470, 2] > 180
    assert picture[470, 470, 0] < 20
    near = np.abs(picture.astype(int) - colors(0, True)).sum(2) < 60  # a JPEG
    x, y = np.flatnonzero(near.sum(0) > 60), np.flatnonzero(near.sum(1) > 120)
    assert (x.min(), x.max()) == pytest.approx((120, 360), abs=2)
    assert y.max() == pytest.approx(300, abs=2)


@pytest.mark.parametrize("targets", [torch.zeros((0, 6)), [torch.zeros((0, 6))] * 2, np.zeros((0, 7))])
def test_no_boxes(tmp_path, targets):
    picture = cv2.imread(str(plot_images(np.full((2, 3, 32, 32), 9, np.uint8), targets, None, tmp_path / "n.png")))
    assert (picture[:30, :30] == 9).all()


def test_masks_of_any_resolution_lie_over_their_objects(tmp_path):
    """Two images, 128 × 192, masks at a quarter: the second of the first image, and the only one of the third."""
    images = torch.full((3, 3, 128, 192), 114, dtype=torch.uint8)
    targets = torch.tensor([[0, 0, 0.2, 0.2, 0.1, 0.1], [0, 1, 0.5, 0.5, 0.5, 0.5], [2, 2, 0.5, 0.5, 0.25, 0.5]])
    stacks = [torch.zeros(2, 32, 48, dtype=torch.uint8), torch.zeros(0, 32, 48), torch.zeros(1, 64, 96, dtype=bool)]
    stacks[0][1, 8:24, 12:36] = 1
    stacks[2][0, 16:48, 36:60] = True
    path = plot_images(images, targets, None, tmp_path / "m.png", {0: "", 1: "", 2: ""}, masks=stacks)
    picture = cv2.imread(str(path))

    def blended(tile, class_id):
        expected = (114 + np.array(colors(class_id, True))) / 2
        ys, xs = np.nonzero(np.abs(tile - expected).sum(2) < 4)
        return int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1

    assert blended(picture[:128, :192], 1) == pytest.approx((48, 32, 144, 96), abs=3)  # within rim and box
    assert blended(picture[128:], 2) == pytest.approx((72, 32, 120, 96), abs=3)
    assert (picture[20:30, 60:180] == 114).all()


def test_masks_of_unsure_detections_are_left_out(tmp_path):
    images = torch.full((1, 3, 64, 64), 114, dtype=torch.uint8)
    found = torch.tensor([[8.0, 8, 30, 30, 0.2, 2], [34, 34, 60, 60, 0.9, 3]])
    stack = np.zeros((2, 64, 64), bool)
    stack[0, 8:30, 8:30] = stack[1, 34:60, 34:60] = True
    picture = cv2.imread(str(plot_images(images, [found], None, tmp_path / "u.png", masks=[stack])))
    assert (picture[8:30, 8:16] == 114).all()  # left of the other one's label
    assert (picture[50, 50] == np.rint((114 + np.array(colors(3, True))) / 2)).all()


def test_letters_of_any_script(tmp_path):
    """Names that are not ASCII leave ink on their plate, more than a bare plate would have."""
    images, targets = torch.full((1, 3, 200, 300), 114, dtype=torch.uint8), torch.tensor([[0, 0, 0.5, 0.5, 0.6, 0.4]])
    with_name = cv2.imread(str(plot_images(images, targets, ["日.jpg"], tmp_path / "a.png", ["тест"])))
    without = cv2.imread(str(plot_images(images, targets, None, tmp_path / "b.png", [""])))
    assert (with_name != without).any(2).sum() > 300
