"""A window that shows images, where this system can open one."""

from __future__ import annotations

import os
import sys

import cv2
import numpy as np

from utils.logging import LOGGER


def has_display() -> bool:
    """Whether windows can be opened here. On Linux this takes a display in the environment."""
    named = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return bool(named) or not sys.platform.startswith("linux")


def check_imshow(warn: bool = False) -> bool:
    """Whether images can be shown: there is a display, and this OpenCV has windows. `warn` logs the reason if not."""
    if not has_display():
        reason = "there is no display (DISPLAY is not set)"
    else:
        try:
            cv2.imshow("test", np.zeros((1, 1, 3), np.uint8))
            cv2.waitKey(1)
            cv2.destroyAllWindows()
            return True
        except cv2.error:
            reason = "this OpenCV has no windows (opencv-python has, opencv-python-headless does not)"
    if warn:
        LOGGER.warning(f"images cannot be shown: {reason}")
    return False


class Window:
    """Shows images under their names; `show` returns False once the user has typed q or Escape."""

    def show(self, name: str, picture: np.ndarray, milliseconds: int = 1) -> bool:
        """Put `picture` (H, W, 3) uint8 BGR on the screen and wait so long for a key; 0 waits for one."""
        cv2.imshow(name, picture)
        return cv2.waitKey(milliseconds) & 0xFF not in (ord("q"), 27)

    def close(self) -> None:
        cv2.destroyAllWindows()
