"""Inputs of every kind become the same pixels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from models.hub.image_inputs import read_images
from tests.media import served
from utils.errors import UserError


@pytest.fixture
def rgb() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


@pytest.fixture
def file(rgb: np.ndarray, tmp_path: Path) -> Path:
    """The same pixels, as OpenCV writes them (it takes BGR)."""
    cv2.imwrite(str(tmp_path / "photo.png"), rgb[..., ::-1])
    return tmp_path / "photo.png"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of an HTTP server on `tmp_path`."""
    with served(tmp_path) as address:
        yield address


def test_all_kinds_are_the_same_pixels(rgb: np.ndarray, file: Path, server: str) -> None:
    chw = rgb.transpose(2, 0, 1)
    kinds = {
        "path": file,
        "text": str(file),
        "address": f"{server}/photo.png?size=large",
        "PIL": Image.open(file),
        "array": rgb,
        "channels first": chw,
        "with alpha": np.dstack([rgb, np.zeros_like(rgb[..., :1])]),
        "OpenCV's, turned": cv2.imread(str(file))[..., ::-1],
        "float array": rgb.astype(np.float32),
        "wide integers": rgb.astype(np.int64),
        "float tensor": torch.from_numpy(chw.copy()).float() / 255,
        "byte tensor": torch.from_numpy(chw.copy()),
    }
    for name, image in zip(kinds, read_images(list(kinds.values())), strict=True):
        assert image.pixels.dtype == np.uint8, name
        assert image.pixels.flags.c_contiguous, name
        assert np.array_equal(image.pixels, rgb), name
    (alone,) = read_images(kinds["PIL"])
    assert np.array_equal(alone.pixels, rgb)


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 1), (1, 20, 30)])
def test_grey_is_three_equal_channels(rgb: np.ndarray, shape: tuple[int, ...]) -> None:
    grey = rgb[..., 0]
    (image,) = read_images(grey.reshape(shape))
    assert np.array_equal(image.pixels, np.dstack([grey] * 3))


def test_black_in_floats_is_black() -> None:
    (image,) = read_images(np.zeros((4, 6, 3)))
    assert image.pixels.shape == (4, 6, 3)
    assert not image.pixels.any()


def test_files_and_pil_images_are_upright(rgb: np.ndarray, tmp_path: Path) -> None:
    """EXIF orientation 6: the camera was turned, and the image is to be turned a quarter clockwise."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(rgb).save(tmp_path / "turned.png", exif=exif)
    for image in read_images([tmp_path / "turned.png", Image.open(tmp_path / "turned.png")]):
        assert np.array_equal(image.pixels, np.rot90(rgb, -1))


def test_file_names(rgb: np.ndarray, file: Path, server: str, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / "Photo.jpg"
    Image.fromarray(rgb).save(other)
    given = [file, other, rgb, Image.open(file), Image.fromarray(rgb), f"{server}/photo.png?a=/b.jpg"]
    names = [image.file for image in read_images(given)]
    assert names == ["photo.jpg", "Photo-2.jpg", "image2.jpg", "photo-3.jpg", "image4.jpg", "photo-4.jpg"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("nowhere.jpg", "nowhere.jpg: No such file or directory"),
        (np.zeros((2, 20, 30, 3)), "image 0 is an array of shape (2, 20, 30, 3); expected (height, width, 3), RGB"),
        (np.zeros((0, 30, 3)), "image 0 is an array of shape (0, 30, 3)"),
        (np.full((8, 8, 3), 0.5), "image 0 holds numbers from 0.5 to 0.5; multiply by 255"),
        (np.full((8, 8, 3), -1), "image 0 holds numbers from -1 to -1; expected pixels of 0 to 255"),
        (np.full((8, 8, 3), np.nan), "image 0 holds numbers from nan to nan"),
        ([np.zeros((8, 8, 3)), np.full((8, 8, 3), 999)], "image 1 holds numbers from 999 to 999"),
        (3, "image 0 is a int; give a path"),
    ],
)
def test_mistakes_are_one_line(given: Any, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        read_images(given)
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


def test_addresses_that_give_no_picture(server: str, tmp_path: Path) -> None:
    (tmp_path / "page.jpg").write_text("<html>")
    with pytest.raises(UserError, match="page.jpg: is not an image"):
        read_images(f"{server}/page.jpg")
    with pytest.raises(UserError, match=r"cannot fetch http://.*/gone.jpg \(HTTP 404 File not found\)$"):
        read_images(f"{server}/gone.jpg")
    with pytest.raises(UserError, match=r"cannot fetch http://127.0.0.1:1/a.jpg \(.*refused\)$"):
        read_images("http://127.0.0.1:1/a.jpg")
