"""Reading and writing image files of every kind, whole and broken."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from utils.data.sources.image_io import UnreadableImage, read_image, write_image


def scene(height: int = 60, width: int = 80) -> np.ndarray:
    """Smooth and colourful: JPEG keeps it within a few levels; blue rises to the right, green downwards."""
    y, x = np.mgrid[0:height, 0:width]
    return np.dstack([x * 255 // width, y * 255 // height, np.full_like(x, 60)]).astype(np.uint8)


def encoded(suffix: str, image: np.ndarray) -> bytes:
    return cv2.imencode(suffix, image)[1].tobytes()


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff", ".webp", ".jpg"])
@pytest.mark.parametrize("name", ["plain", "图像 é ъ"])
def test_written_and_read_back(tmp_path: Path, suffix: str, name: str) -> None:
    path = write_image(tmp_path / f"{name}{suffix}", scene())
    assert path.is_file()
    tolerance = 0 if suffix in (".png", ".bmp", ".tiff") else 12
    assert np.abs(read_image(path).astype(int) - scene()).max() <= tolerance


def test_unknown_suffix_is_written_as_jpeg(tmp_path: Path) -> None:
    assert write_image(tmp_path / "a.dng", scene()).name == "a.jpg"
    assert read_image(tmp_path / "a.jpg").shape == (60, 80, 3)


@pytest.mark.parametrize(("name", "width"), [("a.jpg", 65501), ("a.webp", 16384), ("a.dng", 65501)])
def test_a_picture_too_wide_for_its_format_is_written_as_png(name: str, width: int, tmp_path: Path) -> None:
    path = write_image(tmp_path / name, np.full((12, width, 3), 7, np.uint8))
    assert path == tmp_path / "a.png"
    assert read_image(path).shape == (12, width, 3)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_grey_alpha_16_bit_palette_float(tmp_path: Path) -> None:
    blue = scene()[..., 0]
    Image.fromarray(blue).save(tmp_path / "grey.png")
    assert np.array_equal(read_image(tmp_path / "grey.png"), np.dstack([blue] * 3))
    Image.fromarray(np.dstack([scene()[..., ::-1], blue])).save(tmp_path / "alpha.png")
    assert np.array_equal(read_image(tmp_path / "alpha.png"), scene())
    (tmp_path / "16.png").write_bytes(encoded(".png", scene().astype(np.uint16) * 257))
    assert np.array_equal(read_image(tmp_path / "16.png"), scene())
    Image.fromarray(blue.astype(np.float32) / 255).save(tmp_path / "float.tiff")
    assert np.abs(read_image(tmp_path / "float.tiff").astype(int) - blue[..., None]).max() <= 1
    Image.fromarray(scene()[..., ::-1].copy()).quantize(64).save(tmp_path / "palette.png")
    assert np.abs(read_image(tmp_path / "palette.png").astype(int) - scene()).mean() < 12


def test_exif_orientation_turns_the_picture_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate 90° clockwise to see it upright
    Image.fromarray(scene()[..., ::-1].copy()).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    upright = np.rot90(scene(), -1)
    image = read_image(tmp_path / "turned.jpg")
    assert image.shape == upright.shape == (80, 60, 3)
    assert np.abs(image.astype(int) - upright).max() <= 16


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".tiff"])
def test_truncated_file_is_refused(tmp_path: Path, suffix: str) -> None:
    data = encoded(suffix, np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8))
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(UnreadableImage):
        read_image(path)


def test_truncated_jpeg_is_refused_where_the_decoder_would_fill_it_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenCV 4 gives a picture with a grey rest; OpenCV 5 gives none."""
    monkeypatch.setattr("utils.data.sources.image_io._decode", lambda data: scene())
    data = encoded(".jpg", scene())
    (tmp_path / "cut.jpg").write_bytes(data[: len(data) - 100])
    with pytest.raises(UnreadableImage, match="truncated"):
        read_image(tmp_path / "cut.jpg")


def test_trailing_bytes_after_a_whole_jpeg_are_ignored(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(encoded(".jpg", scene()) + b"\0" * 20 + b"\xff\xda not a scan")
    assert read_image(tmp_path / "a.jpg").shape == (60, 80, 3)


@pytest.mark.parametrize(("content", "reason"), [(b"", "empty"), (b"hello", "not an image"), (None, "No such file")])
def test_reasons(tmp_path: Path, content: bytes | None, reason: str) -> None:
    if content is not None:
        (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(UnreadableImage, match=reason):
        read_image(tmp_path / "a.jpg")


def test_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_image(tmp_path / "a.png", scene())
    assert not list(tmp_path.iterdir())
