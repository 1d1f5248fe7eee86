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
    # as one row, since OpenCV does the end of each row pixel by pixel, at a fraction of the speed
    hsv = cv2.cvtColor(image.reshape(1, -1, 3), cv2.COLOR_BGR2HSV).reshape(image.shape)
    if _MAX_HUE * gains[0] <= 255:  # hues of 180 to 255 still come out right, so one pass does all three channels
        hue, saturation, value = gains
        matrix = np.array(((hue, 0.0, 0.0), (0.0, saturation, 0.0), (0.0, 0.0, value)))  # np.diag is slow to begin
        changed = cv2.transform(hsv, matrix, dst=hsv)
    else:
        hues = _LEVELS * gains[0] % (_MAX_HUE + 1)
        saturations, values = (np.minimum(_LEVELS * gain, 255) for gain in gains[1:])
        changed = cv2.LUT(hsv, np.stack((hues, saturations, values), 1).astype(np.uint8)[None])
    return cv2.cvtColor(changed, cv2.COLOR_HSV2BGR, dst=hsv)
