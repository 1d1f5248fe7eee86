"""Whole numbers that networks like: channel counts and image sides divisible by something."""

from __future__ import annotations

import math


def make_divisible(x: float, divisor: int = 8) -> int:
    """The smallest multiple of `divisor` that is not below `x`: ``make_divisible(19.2, 8) == 24``."""
    return math.ceil(x / divisor) * divisor
