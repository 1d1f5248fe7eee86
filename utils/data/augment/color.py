"""Random hue, saturation and brightness."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np

_LEVELS = np.arange(256)
_MAX_HUE = 179  # OpenCV's hue, in units of two degrees


def draw_color_gains(hyp: Mapping[str, float], rng: np.random.Generator) -> tuple[float, float, float]:
    """Factors of hue, saturation and value, each in 1 ± gain."""
    hue, saturation, value = (1.0 + rng.uniform(-1.0, 1.0, 3) * (hyp["hsv_h"], hyp["hsv_s"], hyp["hsv_v"])).tolist()
    return hue, saturation, value


def change_color(image: np.ndarray, gains: tuple[float, float, float]) -> np.ndarray:
    """A BGR `image` (h, w, 3) uint8 with hue (a circle), saturation and value (up to 255) multiplied by `gains`."""
    if gains == (1.0, 1.0, 1.0):
        return image
    hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
    if _MAX_HUE * gains[0] <= 255:  # hues of 180 to 255 still come out right, so one pass does all three channels
        changed = cv2.transform(hsv, np.diag(gains))
    else:
        hue = _LEVELS * gains[0] % (_MAX_HUE + 1)
        saturation, value = (np.minimum(_LEVELS * gain, 255) for gain in gains[1:])
        changed = cv2.LUT(hsv, np.stack((hue, saturation, value), 1).astype(np.uint8)[None])
    return cv2.cvtColor(changed, cv2.COLOR_HSV2BGR, dst=hsv)
