"""The iterators of forks of YOLOv5's detect.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.media import write_video
from utils.data.sources.image_io import write_image
from utils.data.sources.legacy import LoadImages, LoadScreenshots, LoadStreams
from utils.data.sources.screen import Screen


def red_left_half(height: int = 90, width: int = 160) -> np.ndarray:
    image = np.zeros((height, width, 3), np.uint8)
    image[:, : width // 2, 2] = 255
    return image


def test_load_images_yields_the_five(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", red_left_half())
    write_video(tmp_path / "b.avi", [red_left_half()] * 3, 10)
    dataset = LoadImages(str(tmp_path), img_size=96, stride=32, auto=True, vid_stride=1)
    assert len(dataset) == dataset.nf == 2
    rows = []
    for path, im, im0, cap, text in dataset:
        rows.append((Path(path).name, im.shape, im0.shape, cap is not None, text, dataset.mode, dataset.frame))
    shape, shape0 = (3, 64, 96), (90, 160, 3)
    image, video = str(tmp_path / "a.png"), str(tmp_path / "b.avi")
    assert rows == [
        ("a.png", shape, shape0, False, f"image 1/2 {image}: ", "image", 0),
        *[("b.avi", shape, shape0, True, f"video 2/2 ({n}/3) {video}: ", "video", n) for n in (1, 2, 3)],
    ]


def test_load_images_transforms(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", red_left_half())
    [(_, im, *_)] = list(LoadImages(tmp_path / "a.png", transforms=lambda image: image.mean()))
    assert im == pytest.approx(red_left_half().mean())


def test_load_streams_batches_the_newest_frames(tmp_path: Path) -> None:
    for name, size in (("a.avi", (90, 160)), ("b.avi", (160, 90))):
        write_video(tmp_path / name, np.zeros((6, *size, 3), np.uint8), 30)
    (tmp_path / "two.streams").write_text(f"{tmp_path / 'a.avi'}\n{tmp_path / 'b.avi'}\n")
    dataset = LoadStreams(str(tmp_path / "two.streams"), img_size=96)
    assert len(dataset) == 2
    assert dataset.mode == "stream"
    both = 0
    for path, im, im0, cap, text in dataset:
        assert im.shape == (len(path), 3, *((96, 96) if len(path) == 2 else im.shape[2:]))
        assert len(im0) == len(path)
        assert (cap, text) == (None, "")
        both += len(path) == 2
    assert both > 0
    assert not dataset.unreadable


def test_load_screenshots(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = LoadScreenshots("screen 0 0 0 160 90", img_size=96)
    dataset._screen = Screen(dataset._screen.area, fps=500, grab=red_left_half)
    path, im, im0, cap, text = next(iter(dataset))
    assert (path, im.shape, im0.shape, cap) == ("screen 0", (3, 64, 96), (90, 160, 3), None)
    assert text == "screen 0: "
