"""One colour per class, the same in every image."""

from __future__ import annotations

import colorsys
from functools import lru_cache

Color = tuple[int, int, int]

_TURN = 0.618034  # golden section: each hue lands in the largest gap that its predecessors left
_SHADES = ((0.85, 0.98), (0.60, 0.80), (0.95, 0.70))  # saturation, value; neighbours in hue differ in shade


class Colors:
    """``Colors()(i)`` is the colour of class `i` as (red, green, blue) 0..255, or the reverse with `bgr`."""

    def __call__(self, i: int, bgr: bool = False) -> Color:
        return _color(int(i), bgr)


colors = Colors()


@lru_cache(maxsize=1024)
def _color(i: int, bgr: bool) -> Color:
    saturation, value = _SHADES[i % len(_SHADES)]
    red, green, blue = (round(255 * c) for c in colorsys.hsv_to_rgb((0.02 + i * _TURN) % 1.0, saturation, value))
    return (blue, green, red) if bgr else (red, green, blue)


def contrasting(color: Color) -> Color:
    """Black or white, whichever can be read on `color` (BGR); relative luminance of WCAG 2."""
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in color)]
    luminance = 0.0722 * linear[0] + 0.7152 * linear[1] + 0.2126 * linear[2]
    return (0, 0, 0) if (luminance + 0.05) ** 2 > 1.05 * 0.05 else (255, 255, 255)
