"""Whole numbers that networks like: channel counts and image sides divisible by something."""

from __future__ import annotations

import math


def make_divisible(x: float, divisor: int = 8) -> int:
    """The smallest multiple of `divisor` that is not below `x`: ``make_divisible(19.2, 8) == 24``."""
    return math.ceil(x / divisor) * divisor


def check_img_size(imgsz: int | list[int] | tuple[int, ...], s: int = 32, floor: int = 0) -> int | list[int]:
    """`imgsz` (one side, or a list of them) rounded up to multiples of the stride `s`, `floor` at the least."""
    if isinstance(imgsz, int):
        return max(make_divisible(imgsz, int(s)), floor)
    return [max(make_divisible(side, int(s)), floor) for side in imgsz]
