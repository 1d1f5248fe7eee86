"""Video files: order, stride, rate, and what a truncated one is said to lack."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.media import write_video
from utils.data.sources.video import DEFAULT_FPS, UnreadableVideo, Video, frame_rate


def make_video(path: Path, frames: int = 30, codec: str = "MJPG") -> Path:
    """Frame n (from 1) is uniformly as bright as 5 n."""
    return write_video(path, (np.full((48, 64, 3), 5 * n, np.uint8) for n in range(1, frames + 1)), 10, codec)


def test_every_frame_in_order(tmp_path: Path) -> None:
    video = Video(make_video(tmp_path / "视频.avi"))
    frames = list(video)
    assert len(video) == len(frames) == 30
    assert [f.number for f in frames] == list(range(1, 31))
    assert np.allclose([f.image.mean() / 5 for f in frames], range(1, 31), atol=0.5)
    assert {(f.kind, f.total, f.fps, f.image.shape) for f in frames} == {("video", 30, 10.0, (48, 64, 3))}
    assert video.shortfall() is None


@pytest.mark.parametrize("stride", [2, 7, 40])
def test_stride_takes_the_first_and_every_nth(tmp_path: Path, stride: int) -> None:
    video = Video(make_video(tmp_path / "a.avi"), vid_stride=stride)
    frames = list(video)
    numbers = list(range(1, 31, stride))
    assert [f.number for f in frames] == numbers
    assert len(video) == len(numbers)
    assert np.allclose([f.image.mean() / 5 for f in frames], numbers, atol=0.5)
    assert frames[0].fps == 10 / stride
    assert video.shortfall() is None


def test_truncated_avi_gives_what_it_has_and_says_what_it_lacks(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.avi", frames=50)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    video = Video(path)
    count = sum(1 for _ in video)
    assert 10 < count < 40
    if video.frames >= 50:  # the header still claims them
        assert f"only {count} of 50 frames" in (video.shortfall() or "")


def test_shortfall_tolerates_an_estimate(tmp_path: Path) -> None:
    video = Video(make_video(tmp_path / "a.avi"))
    video.frames = 32
    list(video)
    assert video.shortfall() is None
    video.frames = 33
    assert "only 30 of 33" in (video.shortfall() or "")


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", codec="mp4v")
    path.write_bytes(path.read_bytes()[:-400])  # an MP4 keeps its index at the end
    with pytest.raises(UnreadableVideo, match="truncated"):
        Video(path)
    with pytest.raises(UnreadableVideo, match="no such file"):
        Video(tmp_path / "gone.mp4")


@pytest.mark.parametrize(
    ("said", "used"), [(25.0, 25.0), (0.0, DEFAULT_FPS), (float("nan"), DEFAULT_FPS), (9e4, DEFAULT_FPS)]
)
def test_nonsense_rate_falls_back(said: float, used: float) -> None:
    class Capture:
        def get(self, what: int) -> float:
            assert what == cv2.CAP_PROP_FPS
            return said

    assert frame_rate(Capture()) == used  # type: ignore[arg-type]
