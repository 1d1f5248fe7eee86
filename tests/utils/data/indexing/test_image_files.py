"""Listing of pictures and their sizes from the header, against OpenCV's decoder."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from utils.data.indexing.image_files import (
    BrokenImageError,
    is_image,
    is_pattern,
    list_images,
    read_image_size,
    read_list,
)
from utils.errors import UserError


def picture(h: int = 40, w: int = 60) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (h, w, 3)).astype(np.uint8)


def write(path: Path, h: int = 40, w: int = 60, *options: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture(h, w), list(options))
    return path


def exif(orientation: int, order: str, filler: int = 0) -> bytes:
    """An APP1 segment with an orientation entry behind another one."""
    mark = "<" if order == "II" else ">"
    entries = struct.pack(f"{mark}HHIHH", 0x0100, 3, 1, 640, 0) + struct.pack(
        f"{mark}HHIHH", 0x0112, 3, 1, orientation, 0
    )
    tiff = order.encode() + struct.pack(f"{mark}HIH", 42, 8, 2) + entries + struct.pack(f"{mark}I", 0) + bytes(filler)
    content = b"Exif\0\0" + tiff
    return b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "webp", "tif"])
def test_size_of_each_format(tmp_path: Path, suffix: str) -> None:
    assert read_image_size(write(tmp_path / f"a.{suffix}")) == (40, 60)


def test_progressive_and_grey_jpeg(tmp_path: Path) -> None:
    assert read_image_size(write(tmp_path / "p.jpg", 40, 60, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)) == (40, 60)
    cv2.imwrite(str(tmp_path / "g.jpg"), picture()[..., 0])
    assert read_image_size(tmp_path / "g.jpg") == (40, 60)


@pytest.mark.parametrize("order", ["II", "MM"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_agrees_with_the_decoder(tmp_path: Path, orientation: int, order: str) -> None:
    plain = write(tmp_path / "a.jpg").read_bytes()
    turned = tmp_path / "b.jpg"
    turned.write_bytes(plain[:2] + exif(orientation, order, filler=5000) + plain[2:])  # size beyond the first read
    image = cv2.imread(str(turned))
    assert read_image_size(turned) == image.shape[:2]
    assert (image.shape[:2] == (60, 40)) == (orientation >= 5)


def test_malformed_exif_is_passed_over(tmp_path: Path) -> None:
    plain = write(tmp_path / "a.jpg").read_bytes()
    for number, block in enumerate((b"II*\0\xff\xff\xff\xff", b"XX", b"MM\0*\0\0\0\x08\xff\xff", b"")):
        content = b"Exif\0\0" + block
        file = tmp_path / f"{number}.jpg"
        file.write_bytes(plain[:2] + b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content + plain[2:])
        assert read_image_size(file) == (40, 60)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_truncated_at_any_place(tmp_path: Path, suffix: str) -> None:
    whole = write(tmp_path / f"a.{suffix}", 120, 160).read_bytes()
    cut = tmp_path / f"cut.{suffix}"
    for length in (3, 10, 30, 200, len(whole) // 2, len(whole) - 100, len(whole) - 20):
        cut.write_bytes(whole[:length])
        with pytest.raises(BrokenImageError):
            read_image_size(cut)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_bytes_behind_the_end_do_no_harm(tmp_path: Path, suffix: str) -> None:
    file = write(tmp_path / f"a.{suffix}")
    file.write_bytes(file.read_bytes() + b"appended by a camera")
    assert read_image_size(file) == (40, 60)


@pytest.mark.parametrize(
    ("content", "why"), [(b"", "empty"), (b"<html>not found</html>", "known format"), (b"\xff\xd8", "truncated")]
)
def test_no_pictures(tmp_path: Path, content: bytes, why: str) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(BrokenImageError, match=why):
        read_image_size(tmp_path / "a.jpg")


def test_tiny_and_absent(tmp_path: Path) -> None:
    with pytest.raises(BrokenImageError, match="9x40 pixels"):
        read_image_size(write(tmp_path / "a.png", 40, 9))
    with pytest.raises(BrokenImageError, match="No such file"):
        read_image_size(tmp_path / "b.png")


def test_photographs(shared_data) -> None:
    files = list_images([shared_data / "data" / "coco128" / "images", shared_data / "data" / "photos"])
    assert len(files) == 130
    for file in files[::5]:
        assert read_image_size(file) == cv2.imread(file).shape[:2]


def test_folders_patterns_lists_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b/2.JPG", "b/deep/1.png", "a/3.jpeg", "b/.hidden.jpg", "b/.cache/4.jpg"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    (tmp_path / "b" / "notes.md").touch()

    def names(*sources: str) -> list[str]:
        return [os.path.relpath(p, tmp_path) for p in list_images([tmp_path / s for s in sources])]

    assert names("b") == ["b/2.JPG", "b/deep/1.png"]
    assert names("b", "a") == ["a/3.jpeg", "b/2.JPG", "b/deep/1.png"]
    assert names("*/*.jp*g") == ["a/3.jpeg"]
    assert names("a/3.jpeg") == ["a/3.jpeg"]
    (tmp_path / "list.txt").write_text("./b/2.JPG\n\na/3.jpeg\n./b/2.JPG\n")
    assert names("list.txt") == ["a/3.jpeg", "b/2.JPG", "b/2.JPG"]  # named twice, there twice
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "list.txt").write_text("a/3.jpeg\n")  # not beside the list: from the working directory
    monkeypatch.chdir(tmp_path)
    assert read_list("sub/list.txt") == [str(tmp_path / "a" / "3.jpeg")]
    assert is_pattern("b/*.jpg")
    assert not is_pattern("b")


def test_linked_folders_and_loops(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "1.jpg").touch()
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "link").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "loop").symlink_to(tmp_path / "set")
    assert [Path(p).name for p in list_images([tmp_path / "set"])] == ["1.jpg"]


def test_sources_without_images(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no images in .*known suffixes: bmp"):
        list_images([tmp_path])
    with pytest.raises(UserError, match="does not exist; a split is a folder"):
        list_images([tmp_path / "absent"])
    with pytest.raises(UserError, match="no images in"):
        list_images([tmp_path / "*.jpg"])
    (tmp_path / "list.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not a UTF-8 list"):
        list_images([tmp_path / "list.txt"])


def test_suffixes() -> None:
    assert is_image("a.JPG")
    assert is_image(Path("x/y.webp"))
    assert not is_image("a.txt")
    assert not is_image("README")
