"""Extrapolation of GPU memory, by hand; the measurement itself needs a GPU."""

from __future__ import annotations

import pytest
from torch import nn

from engine.training.autobatch import FALLBACK, LARGEST, extrapolate, find_batch_size

G = 1e9


@pytest.mark.parametrize(
    ("sizes", "used", "budget", "expected"),
    [
        ([1, 2, 4, 8, 16], [1 * G, 1.5 * G, 2.5 * G, 4.5 * G, 8.5 * G], 20 * G, 39),  # 0.5 + 0.5 n
        ([1, 2, 4], [2 * G, 4 * G, 8 * G], 40 * G, 7),  # 8 did not fit, whatever the line says
        ([1, 2, 4, 8, 16], [3 * G, 3 * G, 3 * G, 3 * G, 3 * G], 20 * G, FALLBACK),  # says nothing
        ([1, 2, 4, 8, 16], [5 * G, 4 * G, 6 * G, 7 * G, 8 * G], 20 * G, FALLBACK),
        ([1, 2, 4, 8, 16], [1, 2, 3, 4, 5], 80 * G, LARGEST),
        ([1], [9 * G], 1 * G, 1),
        ([], [], 1 * G, FALLBACK),
    ],
)
def test_extrapolate(sizes: list[int], used: list[float], budget: float, expected: int) -> None:
    assert extrapolate(sizes, [int(u) for u in used], budget) == expected


def test_cpu_takes_the_fallback(capsys: pytest.CaptureFixture[str]) -> None:
    assert find_batch_size(nn.Conv2d(3, 3, 1), (64, 64), None) == FALLBACK
    assert "on cpu it means 16" in capsys.readouterr().out
