"""From the text after --source to the source."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.media import served
from utils.data.sources.files import MediaFiles, is_media, is_url, is_video, suffix_of
from utils.data.sources.image_io import write_image
from utils.data.sources.screen import Screen
from utils.data.sources.source import open_source
from utils.data.sources.streams import Streams
from utils.errors import UserError


def test_names() -> None:
    assert suffix_of("https://host/a.JPG?size=1.5#x") == "jpg"
    assert is_video("clip.MP4")
    assert is_media("a.png")
    assert not is_media("rtsp://host/stream")
    assert is_url("RTSP://host/1")
    assert not is_url("a.jpg")


@pytest.mark.parametrize(
    "text", ["0", "rtsp://host/1", "rtmp://host/live", "http://host:8080/video", "https://host/mjpeg?camera=2.1"]
)
def test_streams(text: str) -> None:
    source = open_source(text)
    assert isinstance(source, Streams)
    assert source.paths == [text]


def test_stream_list(tmp_path: Path) -> None:
    (tmp_path / "yard.streams").write_text("rtsp://a\nrtsp://b\n")
    assert len(open_source(tmp_path / "yard.streams")) == 2


def test_screen_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(open_source("screen 0 1 2 3 4"), Screen)
    monkeypatch.chdir(tmp_path)
    for name in ("screen", "0"):  # a file of that name comes first
        (tmp_path / name).mkdir()
        write_image(tmp_path / name / "a.png", np.zeros((20, 20, 3), np.uint8))
        assert isinstance(open_source(name), MediaFiles)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """An HTTP server on this machine with photo.jpg in it."""
    (tmp_path / "served").mkdir()
    write_image(tmp_path / "served" / "photo.jpg", np.full((20, 30, 3), 77, np.uint8))
    with served(tmp_path / "served") as address:
        yield address


def test_address_of_a_file_is_fetched(server: str, tmp_path: Path) -> None:
    source = open_source(f"{server}/photo.jpg?x=1", download_folder=tmp_path / "got")
    [[frame]] = list(source)
    assert frame.path == str(tmp_path / "got" / "photo.jpg")
    assert frame.image.shape == (20, 30, 3)
    with pytest.raises(UserError, match="404"):
        open_source(f"{server}/none.jpg", download_folder=tmp_path / "got")


@pytest.mark.parametrize(
    ("text", "said"), [("", "--source is empty"), ("ftp.jpg", "does not exist"), ("rtsp://host/a.mp4", "http or https")]
)
def test_mistakes(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        open_source(text)


def test_stride_below_one() -> None:
    with pytest.raises(UserError, match="--vid-stride must be 1 or more"):
        open_source("0", vid_stride=0)
