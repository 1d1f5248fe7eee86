"""Videos on disk: whole or not there."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.prediction.video_file import VideoFile
from utils.errors import UserError


def frames_of(path: Path) -> list[np.ndarray]:
    capture = cv2.VideoCapture(str(path))
    frames = []
    while (got := capture.read())[0]:
        frames.append(got[1])
    return frames


def test_video_bears_its_name_only_when_it_is_whole(tmp_path: Path) -> None:
    video = VideoFile(tmp_path / "a.mp4", 10, (64, 48))
    for size in ((48, 64), (96, 128)):  # a stream may change its size
        video.write(np.full((*size, 3), 100, np.uint8))
    assert not (tmp_path / "a.mp4").exists()
    video.close()
    assert [f.shape for f in frames_of(tmp_path / "a.mp4")] == [(48, 64, 3)] * 2
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_live_video_runs_as_fast_as_the_world_did(tmp_path: Path) -> None:
    video = VideoFile(tmp_path / "a.mp4", 10, (64, 48))
    counts = []
    for time in (5.0, 5.1, 5.5, 5.51, 5.7, 105.7, 105.8):
        before = video._written
        video.write(np.zeros((48, 64, 3), np.uint8), time)
        counts.append(video._written - before)
    video.close()
    assert counts == [1, 1, 4, 0, 2, 100, 1]  # a gap of 100 s is cut to 10 s
    assert len(frames_of(tmp_path / "a.mp4")) == 109


def test_no_encoder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot write video .* use --nosave"):
        VideoFile(tmp_path / "missing" / "a.mp4", 10, (64, 48))


def filled_with(text: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full: what OpenCV leaves behind is `text`, and it says nothing."""

    class Full:
        def __init__(self, path: str, *how: object) -> None:
            self.path = path

        def isOpened(self) -> bool:
            return True

        def write(self, picture: np.ndarray) -> None:
            pass

        def release(self) -> None:
            Path(self.path).write_bytes(text)

    monkeypatch.setattr("engine.prediction.video_file.cv2.VideoWriter", type("W", (Full,), {"fourcc": lambda *c: 0}))


@pytest.mark.parametrize("left", [b"", b"\0" * 4000])
def test_a_video_that_a_full_disk_cut_short(left: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.mp4").write_bytes(b"an earlier video")
    filled_with(left, monkeypatch)
    video = VideoFile(tmp_path / "a.mp4", 10, (64, 48))
    for _ in range(3):
        video.write(np.zeros((48, 64, 3), np.uint8))
    with pytest.raises(UserError, match=r"cannot write video '.*a\.mp4': 0 of 3 frames were stored"):
        video.close()
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]
    assert (tmp_path / "a.mp4").read_bytes() == b"an earlier video"


def test_a_video_without_a_frame_is_no_file(tmp_path: Path) -> None:
    VideoFile(tmp_path / "a.mp4", 10, (64, 48)).close()
    assert not list(tmp_path.iterdir())
