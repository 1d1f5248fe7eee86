"""What a source on disk means, and how broken members of it are treated."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from tests.media import write_video
from utils.data.sources.files import MediaFiles, find_media
from utils.data.sources.image_io import write_image
from utils.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """a.jpg, b.PNG, notes.md, .hidden.jpg, sub/c.jpg"""
    (tmp_path / "sub").mkdir()
    for i, name in enumerate(("a.jpg", "b.PNG", "sub/c.jpg", ".hidden.jpg")):
        write_image(tmp_path / name, np.full((20, 30 + i, 3), 90, np.uint8))
    (tmp_path / "notes.md").write_text("no picture")
    return tmp_path


def names(paths: list[str]) -> list[str]:
    return [Path(p).name for p in paths]


def test_folder_file_glob(folder: Path) -> None:
    assert names(find_media(folder)) == ["a.jpg", "b.PNG"]
    assert names(find_media(str(folder / "a.jpg"))) == ["a.jpg"]
    assert names(find_media(str(folder / "*.jpg"))) == ["a.jpg"]
    assert names(find_media(str(folder / "**" / "*.jpg"))) == ["a.jpg", "c.jpg"]
    assert names(find_media([folder / "b.PNG", folder / "sub"])) == ["b.PNG", "c.jpg"]


def test_name_with_wildcard_characters_is_a_file_first(folder: Path) -> None:
    write_image(folder / "x[1].jpg", np.zeros((20, 20, 3), np.uint8))
    assert names(find_media(str(folder / "x[1].jpg"))) == ["x[1].jpg"]


def test_list_relative_to_itself_to_the_working_directory_and_with_folders(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "list.txt").write_text("a.jpg\n\n./sub\nsub/*.jpg\n", encoding="utf-8")
    assert names(find_media(folder / "list.txt")) == ["a.jpg", "c.jpg", "c.jpg"]
    (folder / "sub" / "list.txt").write_text("a.jpg\nb.PNG\n", encoding="utf-8")
    monkeypatch.chdir(folder)
    assert names(find_media("sub/list.txt")) == ["a.jpg", "b.PNG"]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("nowhere", "'nowhere' does not exist"),
        ("notes.md", "neither an image nor a video"),
        ("*.xyz", "no image or video in"),
        ("loop.txt", "cannot hold another list"),
    ],
)
def test_mistakes(folder: Path, monkeypatch: pytest.MonkeyPatch, source: str, said: str) -> None:
    monkeypatch.chdir(folder)
    Path("loop.txt").write_text("loop.txt\n")
    with pytest.raises(UserError, match=said) as caught:
        find_media(source)
    assert "\n" not in str(caught.value)


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no image or video in .*known suffixes: bmp"):
        find_media(tmp_path)


def test_broken_members_are_named_counted_and_passed_over(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "broken.jpg").write_bytes(b"not a picture")
    (folder / "broken.mp4").write_bytes(b"not a video")
    (folder / "list.txt").write_text("a.jpg\nbroken.jpg\nbroken.mp4\ngone.jpg\nb.PNG\n")
    media = MediaFiles(find_media(folder / "list.txt"), progress=False)
    frames = [frame for (frame,) in media]
    assert [(Path(f.path).name, f.place, f.kind, f.number) for f in frames] == [
        ("a.jpg", "image 1/5", "image", 0),
        ("b.PNG", "image 5/5", "image", 0),
    ]
    assert [Path(u.path).name for u in media.unreadable] == ["broken.jpg", "broken.mp4", "gone.jpg"]
    said = capsys.readouterr().err
    assert all(f"{folder / name}: " in said for name in ("broken.jpg", "broken.mp4", "gone.jpg"))


@pytest.mark.skipif(os.name == "nt", reason="permissions")
def test_unreadable_list_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"\xff\xfe\x00bad")
    with pytest.raises(UserError, match="not a UTF-8 list"):
        find_media(tmp_path / "list.txt")


def test_images_and_videos_in_one_folder(folder: Path) -> None:
    write_video(folder / "clip.avi", np.zeros((5, 16, 32, 3), np.uint8), 10)
    media = MediaFiles(find_media(folder), vid_stride=2, progress=False)
    frames = [frame for (frame,) in media]
    assert [(f.kind, f.number) for f in frames] == [("image", 0), ("image", 0), *[("video", n) for n in (1, 3, 5)]]
    assert frames[-1].place == "video 3/3"
    assert not media.unreadable
