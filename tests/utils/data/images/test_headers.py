"""Sizes from headers agree with the decoder; a header that claims too much is refused before anything is decoded."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.utils.data.images.image_bytes import bmp, chunk, encoded, png
from utils.data.images.decode import decode
from utils.data.images.headers import HEAD, BrokenImageError, check_png, most_pixels, read_header
from utils.data.images.reader import read_reduced
from utils.errors import UserError


def size_of(data: bytes) -> tuple[int, int] | None:
    return read_header(io.BytesIO(data), data[:HEAD]).size


def jpeg_of(width: int, height: int) -> bytes:
    data = bytearray(encoded(".jpg"))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def tiff(width: int, height: int) -> bytes:
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in ((256, width), (257, height)))
    return b"II*\0" + struct.pack("<IH", 8, 2) + entries + bytes(500)


BOMBS = {
    "png": png(60000, 60000),
    "small.png": png(30000, 30000),
    "jpg": jpeg_of(60000, 60000),
    "bmp": bmp(60000, 60000),
    "upside_down.bmp": bmp(60000, -60000),
    "tif": tiff(60000, 60000),
    "pfm": b"PF\n60000 60000\n-1.0\n" + bytes(500),
    "webp": b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\xff\xff\x00\xff\xff\x00" + bytes(100),
    "ppm": b"P6\n60000 60000\n255\n" + bytes(500),
    "wide.png": png(2**31 - 1, 1),
}


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp", ".tif", ".pgm"])
def test_size_agrees_with_the_decoder(suffix: str) -> None:
    for shape in ((40, 60, 3), (61, 33, 3)):
        data = encoded(suffix, shape=shape[:2] if suffix == ".pgm" else shape)
        assert size_of(data) == decode(data).shape[:2] == shape[:2]


def test_size_of_other_kinds() -> None:
    from PIL import Image

    picture = Image.fromarray(np.zeros((40, 60, 3), np.uint8))
    for form, options in (("WEBP", {"lossless": True}), ("WEBP", {"quality": 50}), ("TIFF", {"big_tiff": True}),
                          ("TIFF", {"compression": "tiff_deflate"}), ("MPO", {}), ("GIF", {})):  # fmt: skip
        stream = io.BytesIO()
        picture.save(stream, form, **options)
        assert size_of(stream.getvalue()) == (40, 60), form
    big_endian = b"MM\0*" + struct.pack(">IHHHIHHHHIHH", 8, 2, 256, 3, 1, 60, 0, 257, 3, 1, 40, 0) + bytes(20)
    assert size_of(big_endian) == (40, 60)
    assert size_of(b"PF\n60 40\n-1.0\n" + bytes(60 * 40 * 12)) == (40, 60)
    assert size_of(bmp(60, -40)) == (40, 60)


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_not_decoded(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(BrokenImageError, match=r"claims \d+x\d+ pixels, more than 180000000|too many pixels"):
        decode(BOMBS[name])
    path = tmp_path / f"a.{name}"
    path.write_bytes(BOMBS[name])
    with pytest.raises(UserError, match=f"cannot decode image '{path}': it claims"):
        read_reduced(str(path))


@pytest.mark.parametrize(
    "data",
    [b"", b"<html>", png(0, 0), png(0, 5), jpeg_of(60, 40)[:30], bmp(0, 5), tiff(60, 40)[:12], b"PF\nnan 60\n-1.0\n",
     b"RIFF\0\0\0\0WEBPJUNK" + bytes(50), b"II*\0\xff\xff\xff\xff", b"GIF89a" + bytes(100), b"\x89PNG\r\n\x1a\n"],
)  # fmt: skip
def test_no_header(data: bytes) -> None:
    with pytest.raises(BrokenImageError):
        decode(data)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.webp", "a.pfm"])
def test_what_the_decoder_refuses_is_named_without_its_noise(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = {"a.png": b"\x89PNG\r\n\x1a\n" + png(60, 40)[8:40], "a.pfm": b"PF\n60 40\nx\n" + bytes(50)}
    path = tmp_path / name
    path.write_bytes(data.get(name) or encoded(path.suffix)[:1500])
    with pytest.raises(UserError, match="cannot decode image"):
        read_reduced(str(path))
    if name != "a.png":  # the PNG library writes to the terminal itself
        assert capfd.readouterr().err == ""


def test_checksums_of_a_png() -> None:
    good = encoded(".png")
    check_png(good)
    check_png(good + b"appended")
    damaged = bytearray(good)
    damaged[len(damaged) // 2] ^= 1
    with pytest.raises(BrokenImageError, match="checksum of its chunk IDAT"):
        check_png(bytes(damaged))
    remark = good[:33] + chunk(b"tEXt", b"a\0b")[:-1] + b"?" + good[33:]
    check_png(remark)  # decoders pass over it
    assert decode(remark).shape == (40, 60, 3)
    for end in (20, 40, len(good) - 1):
        with pytest.raises(BrokenImageError):
            check_png(good[:end])


def test_the_limit_is_raised_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YOLOv5_MAX_IMAGE_PIXELS", "4000000000")
    assert most_pixels() == 4_000_000_000
    assert size_of(BOMBS["png"]) == (60000, 60000)
    with pytest.raises(BrokenImageError, match="cannot be decoded"):  # OpenCV has a limit of its own
        decode(BOMBS["png"])
    monkeypatch.setenv("YOLOv5_MAX_IMAGE_PIXELS", "many")
    with pytest.raises(UserError, match="YOLOv5_MAX_IMAGE_PIXELS is a number of pixels, not 'many'"):
        most_pixels()
