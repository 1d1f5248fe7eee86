"""Pictures and lists that detect.py cannot read: what is wrong is told in a line, and the others are looked at."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.mistakes import Place, check_mistake, detection, files_below, place, run
from tests.utils.data.images.image_bytes import BROKEN

__all__ = ["place"]  # the fixture


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_picture_is_passed_over(name: str, place: Place, capfd: pytest.CaptureFixture[str]) -> None:
    content, told = BROKEN[name]
    Path("s").mkdir()
    Path("s", name).write_bytes(content)
    shutil.copy(place.image, "s/good.png")
    code, err = run([*detection(place), "--source", "s"], capfd)
    assert code == 1
    assert len(err) == 2, err
    assert err[0].startswith("warning: s/")
    assert told in err[0]
    assert err[1].startswith("error: 1 of 2 sources could not be read")
    assert not any(p.suffix in (".tmp", ".part") for p in files_below(place.folder))


@pytest.mark.parametrize(
    ("name", "shape"),
    [("tall.png", (10000, 1)), ("wide.png", (10, 20000)), ("wide.bmp", (1, 3000)), ("long.png", (65000, 10)),
     ("wide.jpg", (12, 65500)), ("grey.tif", (40, 60)), ("16.png", (40, 60))],
)  # fmt: skip
def test_an_odd_picture_is_good(
    name: str, shape: tuple[int, int], place: Place, capfd: pytest.CaptureFixture[str]
) -> None:
    image = np.zeros(shape, np.uint16 if name == "16.png" else np.uint8)
    Path(name).write_bytes(cv2.imencode(Path(name).suffix, image)[1].tobytes())
    assert run([*detection(place), "--source", name, "--name", "odd"], capfd) == (0, [])
    assert Path("runs/detect/odd", name).is_file()


def pipe_as_picture(place: Place) -> str:
    os.mkfifo("s.png")
    return "s.png"


def device_as_picture(place: Place) -> str:
    Path("s.png").symlink_to("/dev/zero")
    return "s.png"


def list_with_nul(place: Place) -> str:
    return place.write("l.txt", "a.png\nb\0.png\n")


def list_with_long_names(place: Place) -> str:
    return place.write("l.txt", "x" * 5000 + ".png\n")


def list_in_utf16(place: Place) -> str:
    Path("l.txt").write_bytes("a.png\n".encode("utf-16"))
    return "l.txt"


def list_of_a_list(place: Place) -> str:
    place.write("m.txt", "a.png\n")
    return place.write("l.txt", "m.txt\n")


def list_of_pipes(place: Place) -> str:
    os.mkfifo("p.png")
    return place.write("l.txt", "p.png\n")


def list_of_folders(place: Place) -> str:
    Path("folder.png").mkdir()
    return place.write("l.txt", "folder.png\n")


def link_to_itself(place: Place) -> str:
    Path("s.png").symlink_to("s.png")
    return "s.png"


def home_of_nobody(place: Place) -> str:
    return "~nobody-of-this-name/a.png"


SOURCES: dict[Callable[[Place], str], str] = {
    pipe_as_picture: "source 's.png' is neither a file nor a folder",
    device_as_picture: "source 's.png' is neither a file nor a folder",
    list_with_nul: "l.txt:2: not a list of image paths",
    list_with_long_names: "1 of 1 sources could not be read",
    list_in_utf16: "l.txt: not a UTF-8 list",
    list_of_a_list: "a list cannot hold another list",
    list_of_pipes: "1 of 1 sources could not be read",
    list_of_folders: "no image or video in",
    link_to_itself: "source 's.png' does not exist",
    home_of_nobody: "source '~nobody-of-this-name/a.png' does not exist",
}


@pytest.mark.parametrize("source", SOURCES, ids=lambda f: f.__name__)
def test_bad_sources(source: Callable[[Place], str], place: Place, capfd: pytest.CaptureFixture[str]) -> None:
    words = [*detection(place), "--source", source(place)]
    assert check_mistake(words, SOURCES[source], place, capfd) == 1
