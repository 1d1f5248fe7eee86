"""The types of flags: numbers within bounds, and text. They serve `argparse` and ``run(**kwargs)`` alike.

The bounds stand where the flag is declared: ``add("--epochs", type=Whole(1))``. A value outside them raises
`argparse.ArgumentTypeError`, whose text continues the name of the flag: ``must be 1 or more, not 0``.
"""

from __future__ import annotations

import math
import numbers
import os
import sys
from argparse import ArgumentTypeError
from collections.abc import Callable
from typing import Any

LARGEST = 2**31 - 1  # for numbers that take no memory: what every library can count to


class Whole:
    """The type of a whole number from `least` to `most`, or one of `also`, which have a meaning of their own.

    `cost` tells what a number that is too large would take.
    """

    def __init__(
        self,
        least: int,
        most: int = LARGEST,
        also: tuple[int, ...] = (),
        cost: Callable[[int], str] | None = None,
    ) -> None:
        self.least, self.most, self.also, self.cost = least, most, also, cost

    def __call__(self, word: str) -> int:
        try:
            number = int(word)
        except ValueError:
            raise ArgumentTypeError(f"must be a whole number, not '{word}'") from None
        if number not in self.also and not self.least <= number <= self.most:
            raise ArgumentTypeError(f"must be {self._bounds(number)}, not {number}{self._cost(number)}")
        return number

    def _bounds(self, number: int) -> str:
        other = "".join(f", or {value}" for value in self.also)
        return (f"{self.least} or more" if number < self.least else f"{self.most} or less") + other

    def _cost(self, number: int) -> str:
        return f": {self.cost(number)}" if self.cost and number > self.most else ""


class Fraction:
    """The type of a number from `least` to `most`; with `below` it must be less than `most`."""

    def __init__(self, least: float = 0.0, most: float = 1.0, below: bool = False) -> None:
        self.least, self.most, self.below = least, most, below

    def __call__(self, word: str) -> float:
        try:
            number = float(word)
        except ValueError:
            raise ArgumentTypeError(f"must be a number, not '{word}'") from None
        if not self.least <= number <= self.most or (self.below and number == self.most):  # NaN is outside, too
            bounds = f"be at least {self.least:g} and below" if self.below else f"lie between {self.least:g} and"
            raise ArgumentTypeError(f"must {bounds} {self.most:g}, not {word}")
        return number


def text(word: str) -> str:
    """The type of a path or a name, which must not be empty."""
    if not word.strip():
        raise ArgumentTypeError("is empty; give a name or leave the flag out")
    return text_or_nothing(word)


def text_or_nothing(word: str) -> str:
    """The same as `text`, for flags where an empty word has a meaning."""
    if "\0" in word:
        raise ArgumentTypeError(f"holds a NUL character, which no name can have: {word!r}")
    return word


def memory_text(count: int) -> str:
    """A number of bytes for a message: ``1.2 GiB``, ``34 MiB``."""
    if count >= 10**6 << 50:
        return "more than a million PiB"
    for unit, name in ((1 << 50, "PiB"), (1 << 40, "TiB"), (1 << 30, "GiB")):
        if count >= unit:
            return f"{count // unit} {name}" if count >= 100 * unit else f"{count / unit:.1f} {name}"
    return f"{math.ceil(count / (1 << 20))} MiB"


def input_bytes(images: int, height: int, width: int) -> int:
    """Bytes of `images` images of three channels as the float32 input of a network."""
    return images * 3 * height * width * 4


MOST_SIDE = 16384  # pixels; a square image of that side takes 3 GiB before the first layer
image_side = Whole(1, MOST_SIDE, cost=lambda n: f"one image of {n}x{n} takes {memory_text(input_bytes(1, n, n))}")
batch_size = Whole(1, 1 << 16)
found_batch_size = Whole(1, 1 << 16, also=(-1,))  # -1: to be found
processes = Whole(0, 1024)


# --- values from Python -----------------------------------------------------------------------------------------------


def word_of(value: Any) -> str:
    """The word that a user would type for `value`, given to ``run()``. Raises `ArgumentTypeError` if there is none."""
    if isinstance(value, str):
        return value
    if isinstance(value, os.PathLike):
        return os.fsdecode(os.fspath(value))
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return str(int(value))
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        return repr(float(value))
    torch = sys.modules.get("torch")  # not imported here: who has a device in hand has imported it
    if torch is not None and isinstance(value, torch.device):
        return str(value)
    shown = repr(value) if len(repr(value)) <= 80 else f"{repr(value)[:79]}…"
    raise ArgumentTypeError(f"must be text or a number, not {shown} ({type(value).__name__})")
