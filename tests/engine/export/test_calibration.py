"""The pictures that 8-bit scales are chosen by."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from engine.export.calibration import CalibrationImages
from utils.errors import UserError


def names_of(images: CalibrationImages) -> list[str]:
    return [Path(path).name for path in images.paths]


def test_pictures_are_spread_over_the_training_split(tiny_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = CalibrationImages.of(str(tiny_data), (96, 96), count=4)
    everything = sorted((tiny_data.parent / "images" / "train").glob("*.png"))
    assert names_of(images) == [everything[i].name for i in (0, 3, 7, 11)]  # thirds of 11, rounded down
    assert len(images) == 4
    assert "has only 4 'train' images for calibration; 100 or more" in capsys.readouterr().err
    assert len(CalibrationImages.of(str(tiny_data), (96, 96))) == 12


def test_the_validation_split_serves_where_there_is_no_other(tiny_data: Path, tmp_path: Path) -> None:
    yaml = tmp_path / "val_only.yaml"
    yaml.write_text(f"path: {tiny_data.parent}\nval: images/val\nnames: [light, dark]\n", encoding="utf-8")
    assert len(CalibrationImages.of(str(yaml), (96, 96))) == 6


def test_pictures_are_what_the_network_sees(tiny_data: Path) -> None:
    path = tiny_data.parent / "images" / "train" / "0.png"
    (image,) = CalibrationImages((str(path),), (96, 128))
    rgb = cv2.imread(str(path))[..., ::-1]
    want = np.full((96, 128, 3), 114, np.uint8)  # 96×96 fits as it is, with 16 columns of grey at either side
    want[:, 16:112] = rgb
    assert (image.shape, image.dtype) == ((1, 3, 96, 128), torch.float32)
    np.testing.assert_allclose(image[0].numpy(), want.transpose(2, 0, 1) / 255, atol=1e-7)


def test_pictures_that_cannot_be_had_are_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"broken\.png: .*; calibration needs images that can be read"):
        list(CalibrationImages((str(broken),), (96, 96)))
    with pytest.raises(UserError, match=r"nowhere\.yaml"):
        CalibrationImages.of("nowhere.yaml", (96, 96))
