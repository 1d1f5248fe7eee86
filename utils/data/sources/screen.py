"""The screen as a live source."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from utils.data.sources.frame import Frame, Unreadable
from utils.errors import UserError

_USAGE = "use 'screen', 'screen N', 'screen LEFT TOP WIDTH HEIGHT' or 'screen N LEFT TOP WIDTH HEIGHT'"


@dataclass(frozen=True)
class ScreenArea:
    """Screen `number` (0: all of them, as one picture), and the part of it in pixels; None for the whole."""

    number: int = 0
    left: int | None = None
    top: int | None = None
    width: int | None = None
    height: int | None = None

    @property
    def box(self) -> tuple[int, int, int, int] | None:
        """(left, top, right, bottom), None for the whole screen."""
        if self.left is None or self.top is None or self.width is None or self.height is None:
            return None
        return self.left, self.top, self.left + self.width, self.top + self.height


def parse_screen(source: str) -> ScreenArea:
    """``'screen 1 100 100 512 256'`` and its shorter forms; anything else raises `UserError`."""
    _, *words = source.split()
    try:
        numbers = [int(word) for word in words]
    except ValueError as error:
        raise UserError(f"--source '{source}': {_USAGE}, in whole numbers") from error
    if len(numbers) not in (0, 1, 4, 5):
        raise UserError(f"--source '{source}': {_USAGE}")
    number = numbers[0] if len(numbers) in (1, 5) else 0
    area = ScreenArea(number, *numbers[-4:]) if len(numbers) >= 4 else ScreenArea(number)
    if number < 0 or (area.box is not None and min(area.width or 0, area.height or 0) < 1):
        raise UserError(f"--source '{source}': the screen's number cannot be negative, nor its part be empty")
    return area


class Screen:
    """Yields what the screen shows whenever it is asked, at most `fps` times per second. It ends only by interruption.

    Raises `UserError` at the first image if there is no display.
    """

    live = True

    def __init__(self, area: ScreenArea, fps: float = 30.0, grab: Callable[[], np.ndarray] | None = None) -> None:
        self.area = area
        self.paths = [f"screen {area.number}"]
        self.unreadable: list[Unreadable] = []
        self._fps = fps
        self._grab = grab

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[list[Frame]]:
        grab = self._grab or _grabber(self.area)
        number = 0
        due = time.monotonic()
        while True:
            time.sleep(max(0.0, due - time.monotonic()))
            now = time.monotonic()
            due = now + 1 / self._fps
            number += 1
            yield [Frame(self.paths[0], grab(), "stream", number, 0, self._fps, now, "live")]


def _grabber(area: ScreenArea) -> Callable[[], np.ndarray]:
    """A function that returns the screen as (H, W, 3) uint8 BGR: by mss if it is installed, else by Pillow."""
    try:
        import mss  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        return _pillow_grabber(area)
    try:
        camera = mss.mss()
        monitors = camera.monitors  # [0] is the whole desktop
    except Exception as error:  # mss has its own exception classes for each platform
        raise UserError(f"--source screen: no display to take the image from ({error})") from error
    if area.number >= len(monitors):
        raise UserError(f"--source screen {area.number}: there are {len(monitors) - 1} screens (0: all of them)")
    region = dict(monitors[area.number])
    if area.box is not None:
        region = {"left": region["left"] + (area.left or 0), "top": region["top"] + (area.top or 0),
                  "width": area.width, "height": area.height}  # fmt: skip
    return lambda: np.ascontiguousarray(np.asarray(camera.grab(region))[..., :3])


def _pillow_grabber(area: ScreenArea) -> Callable[[], np.ndarray]:
    from PIL import ImageGrab

    if area.number:
        raise UserError(f"--source screen {area.number}: choosing one of several screens needs 'pip install mss'")

    def grab() -> np.ndarray:
        try:
            picture = ImageGrab.grab(bbox=area.box).convert("RGB")
        except Exception as error:  # OSError, XError text, missing helper: by platform
            raise UserError(f"--source screen: no display to take the image from ({error})") from error
        return np.ascontiguousarray(np.asarray(picture)[..., ::-1])

    return grab
