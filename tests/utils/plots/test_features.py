"""Feature maps as pictures."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import torch

from utils.plots.features import FeaturePlotter

ROW = SimpleNamespace(i=3, type="models.common.C3")


def test_writes_numbers_and_a_picture_of_each_channel(tmp_path):
    value = torch.zeros(2, 40, 20, 40)
    value[0, 1, :, 20:] = 5.0  # the second channel is bright on its right half
    FeaturePlotter(tmp_path / "new", channels=16)(ROW, None, value)
    assert np.load(tmp_path / "new" / "stage3_C3_features.npy").shape == (40, 20, 40)
    picture = cv2.imread(str(tmp_path / "new" / "stage3_C3_features.png")).astype(int)
    assert picture.shape == (2 * 82, 8 * 162, 3)
    dark, bright = picture[40, 162 + 40], picture[40, 162 + 120]
    assert bright.sum() > dark.sum() + 100
    assert (picture[40, 20] == dark).all()  # an even map is dark


def test_rows_without_maps_are_left_out(tmp_path):
    plotter = FeaturePlotter(tmp_path)
    for value in (torch.zeros(1, 8, 1, 1), torch.zeros(1, 8), (torch.zeros(1, 2, 3), [])):
        plotter(ROW, None, value)
    assert list(tmp_path.iterdir()) == []
