"""Bounds of numbers, words that are no words, and what Python objects would be on a command line."""

from __future__ import annotations

import math
from argparse import ArgumentTypeError
from pathlib import PurePosixPath

import pytest

from utils.commands.values import Fraction, Whole, batch_size, image_side, memory_text, text, text_or_nothing, word_of


@pytest.mark.parametrize(
    ("kind", "word", "told"),
    [
        (Whole(1), "0", "must be 1 or more, not 0"),
        (Whole(1), "-" + "9" * 50, "must be 1 or more"),
        (Whole(1), "9" * 5000, "must be a whole number"),
        (Whole(1), "1" + "0" * 30, "must be 2147483647 or less"),
        (Whole(1), "3.0", "must be a whole number, not '3.0'"),
        (Whole(1), "1e3", "must be a whole number"),
        (Whole(1), "", "must be a whole number, not ''"),
        (Whole(1), "0x10", "must be a whole number"),
        (Whole(1, 9, also=(-1,)), "-2", "must be 1 or more, or -1, not -2"),
        (Whole(1, 9, cost=lambda n: f"costs {n}"), "10", "must be 9 or less, not 10: costs 10"),
        (Whole(1, 9, cost=lambda n: f"costs {n}"), "0", "must be 1 or more, not 0$"),
        (image_side, "1000000000", "one image of 1000000000x1000000000 takes 10658 PiB"),
        (image_side, "20000", "takes 4.5 GiB"),
        (batch_size, str(10**15), "must be 65536 or less"),
        (Fraction(), "nan", "must lie between 0 and 1, not nan"),
        (Fraction(), "inf", "must lie between 0 and 1, not inf"),
        (Fraction(), "-1e-9", "must lie between 0 and 1"),
        (Fraction(), "1e999", "must lie between 0 and 1"),
        (Fraction(), "0,5", "must be a number, not '0,5'"),
        (Fraction(below=True), "1", "must be at least 0 and below 1, not 1"),
        (text, "", "is empty"),
        (text, " \t", "is empty"),
        (text, "a\0b", "holds a NUL character"),
        (text_or_nothing, "\0", "holds a NUL character"),
    ],
)
def test_what_no_flag_takes(kind: object, word: str, told: str) -> None:
    with pytest.raises(ArgumentTypeError, match=told):
        kind(word)  # type: ignore[operator]


def test_the_ends_of_a_range_belong_to_it() -> None:
    assert (Whole(1, 9)("1"), Whole(1, 9)("9"), Whole(1, 9, also=(-1,))("-1")) == (1, 9, -1)
    assert (Fraction()("0"), Fraction()("1"), Fraction(below=True)("0.999")) == (0.0, 1.0, 0.999)
    assert text_or_nothing("") == ""


def test_objects_as_words() -> None:
    assert word_of(PurePosixPath("a/b")) == "a/b"
    assert (word_of(3), word_of(0.1)) == ("3", "0.1")
    for value in (True, None, b"a", [1], {}, object(), math, "x" * 0 or [0] * 500):
        with pytest.raises(ArgumentTypeError, match="must be text or a number, not ") as error:
            word_of(value)
        assert len(str(error.value)) < 200


def test_memory_in_words() -> None:
    assert memory_text(1) == "1 MiB"
    assert memory_text(3 << 29) == "1.5 GiB"
    assert memory_text(500 << 40) == "500 TiB"
    assert memory_text(10**300) == "more than a million PiB"
