"""Crops: geometry by hand, colours, file names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from utils.data.sources.image_io import read_image
from utils.plots.crops import crop_box, save_one_box


def coordinates(height: int = 100, width: int = 200) -> np.ndarray:
    """Each pixel holds its own (y, x)."""
    return np.moveaxis(np.mgrid[0:height, 0:width], 0, -1)


@pytest.mark.parametrize(
    ("box", "options", "corners"),  # corners: y1, x1, y2, x2 of the crop (exclusive end)
    [
        ((50, 40, 90, 60), {"gain": 1.0, "pad": 0}, (40, 50, 60, 90)),
        ((50, 40, 90, 60), {"gain": 1.0, "pad": 10}, (35, 45, 65, 95)),
        ((50, 40, 90, 60), {"gain": 1.5, "pad": 0}, (35, 40, 65, 100)),
        ((50, 40, 90, 60), {"gain": 1.0, "pad": 0, "square": True}, (30, 50, 70, 90)),
        ((190, 90, 230, 130), {"gain": 1.0, "pad": 0}, (90, 190, 100, 200)),
        ((-20, -10, 10, 5), {"gain": 1.0, "pad": 4}, (0, 0, 7, 12)),
        ((50, 40, 90, 60), {}, (34, 44, 65, 95)),  # 40·1.02 + 10 = 50.8 wide, 30.4 high about (70, 50), cut to integers
    ],
)
def test_geometry(box: tuple[int, ...], options: dict, corners: tuple[int, ...]) -> None:
    crop = crop_box(coordinates(), box, **options)
    y1, x1, y2, x2 = corners
    assert crop.shape == (y2 - y1, x2 - x1, 2)
    assert crop[0, 0].tolist() == [y1, x1]


def test_box_outside_is_empty(tmp_path: Path) -> None:
    assert crop_box(coordinates(), (300, 300, 320, 320), pad=0).size == 0
    save_one_box((300, 300, 320, 320), np.zeros((10, 10, 3), np.uint8), tmp_path / "a.jpg")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("xyxy", [[10, 10, 30, 30], torch.tensor([[10.0, 10, 30, 30]]), np.array([10, 10, 30, 30])])
def test_saved_colours_and_numbered_names(tmp_path: Path, xyxy: object) -> None:
    bgr = np.zeros((60, 60, 3), np.uint8)
    bgr[..., 0] = 200  # blue
    for _ in range(2):
        crop = save_one_box(xyxy, bgr, tmp_path / "crops" / "bus.png", BGR=True)
        assert (crop == (200, 0, 0)).all()
    crop = save_one_box(xyxy, bgr[..., ::-1], tmp_path / "crops" / "bus.png")  # RGB in, BGR out
    assert (crop == (200, 0, 0)).all()
    assert sorted(p.name for p in (tmp_path / "crops").iterdir()) == ["bus.jpg", "bus2.jpg", "bus3.jpg"]
    for path in (tmp_path / "crops").iterdir():
        blue, green, red = read_image(path).mean((0, 1))
        assert abs(blue - 200) < 5
        assert max(green, red) < 5


def test_nothing_saved_on_request(tmp_path: Path) -> None:
    assert save_one_box([0, 0, 5, 5], np.zeros((9, 9, 3), np.uint8), tmp_path / "a.jpg", save=False).size
    assert not list(tmp_path.iterdir())
