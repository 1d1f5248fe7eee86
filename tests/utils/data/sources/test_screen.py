"""The screen as a source, without one."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from utils.data.sources.screen import Screen, ScreenArea, parse_screen
from utils.errors import UserError


@pytest.mark.parametrize(
    ("text", "area", "box"),
    [
        ("screen", ScreenArea(0), None),
        ("screen 2", ScreenArea(2), None),
        ("screen 100 50 512 256", ScreenArea(0, 100, 50, 512, 256), (100, 50, 612, 306)),
        ("screen 1 100 50 512 256", ScreenArea(1, 100, 50, 512, 256), (100, 50, 612, 306)),
    ],
)
def test_text(text: str, area: ScreenArea, box: tuple[int, int, int, int] | None) -> None:
    assert parse_screen(text) == area
    assert parse_screen(text).box == box


@pytest.mark.parametrize("text", ["screen x", "screen 1 2", "screen 0 0 0 0", "screen -1", "screen 1 2 3 4 5 6"])
def test_mistakes_show_the_usage(text: str) -> None:
    with pytest.raises(UserError, match=f"--source '{text}'"):
        parse_screen(text)


def test_frames_are_numbered_and_timed() -> None:
    screen = Screen(ScreenArea(), fps=200, grab=lambda: np.zeros((4, 6, 3), np.uint8))
    frames = [group[0] for group in itertools.islice(screen, 3)]
    assert [f.number for f in frames] == [1, 2, 3]
    times = [f.time or 0.0 for f in frames]
    assert 0.008 < times[2] - times[0] < 1.0
    assert screen.live


def test_no_display_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import ImageGrab

    def no_display(**kwargs: object) -> None:
        raise OSError("X connection failed: error 5")

    monkeypatch.setitem(__import__("sys").modules, "mss", None)
    monkeypatch.setattr(ImageGrab, "grab", no_display)
    with pytest.raises(UserError, match="no display to take the image from"):
        next(iter(Screen(ScreenArea())))
    with pytest.raises(UserError, match="pip install mss"):
        next(iter(Screen(ScreenArea(1))))
