"""Extrapolation of GPU memory, by hand; the measurement itself needs a GPU, and is stood in for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from engine.training import autobatch
from engine.training.autobatch import FALLBACK, LARGEST, extrapolate, find_batch_size, largest_size

G = 1e9


@pytest.mark.parametrize(
    ("sizes", "used", "budget", "expected"),
    [
        ([1, 2, 4, 8, 16], [1 * G, 1.5 * G, 2.5 * G, 4.5 * G, 8.5 * G], 20 * G, 39),  # 0.5 + 0.5 n
        ([1, 2, 4], [2 * G, 4 * G, 8 * G], 40 * G, 7),  # 8 did not fit, whatever the line says
        ([1, 2, 4, 8, 16], [3 * G, 3 * G, 3 * G, 3 * G, 3 * G], 20 * G, FALLBACK),  # says nothing
        ([1, 2, 4, 8, 16], [5 * G, 4 * G, 6 * G, 7 * G, 8 * G], 20 * G, 65),
        ([1, 2, 4, 8, 16], [8 * G, 7 * G, 6 * G, 5 * G, 4 * G], 20 * G, FALLBACK),
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


MB, WEIGHTS = 10**6, 30 * 10**6  # bytes; those of the network's weights


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, tuple[int, int]]]:
    """GPU 1 with 8000 MB, of which others hold 3000 and this process 100; a step takes 60 + 40 n MB at 64 pixels."""
    asked: list[tuple[int, tuple[int, int]]] = []

    def peak(net: Any, batch_size: int, imgsz: tuple[int, int], amp_dtype: Any, device: torch.device) -> int:
        assert device == torch.device("cuda", 1)
        asked.append((batch_size, imgsz))
        return round((60 + 40 * batch_size * imgsz[0] * imgsz[1] / 64**2) * MB)

    monkeypatch.setattr(autobatch, "_peak_memory", peak)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (4900 * MB, 8000 * MB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 100 * MB)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    return asked


def network() -> Any:
    weight = SimpleNamespace(device=torch.device("cuda", 1), nbytes=WEIGHTS, requires_grad=True)
    frozen = SimpleNamespace(device=torch.device("cuda", 1), nbytes=9 * WEIGHTS, requires_grad=False)
    return SimpleNamespace(parameters=lambda: iter([weight, frozen]), stride=torch.tensor([8.0, 16.0, 32.0]))


@pytest.mark.parametrize(
    ("optimizer", "expected"), [("SGD", (4000 - 60 - 30) // 40), ("AdamW", (4000 - 60 - 60) // 40)]
)
def test_memory_of_others_and_of_the_optimiser_counts(gpu: list[Any], optimizer: str, expected: int) -> None:
    assert find_batch_size(network(), (64, 64), None, optimizer) == expected
    assert [size for size, _ in gpu] == [1, 2, 4, 8, 16]


def test_multi_scale_is_measured_at_its_largest(gpu: list[Any]) -> None:
    assert largest_size((64, 96), 32) == (96, 160)
    assert find_batch_size(network(), (64, 64), None, multi_scale=True) == (4000 - 60 - 30) // 90
    assert {size for _, size in gpu} == {(96, 96)}


def test_running_out_of_memory_ends_the_measurement(gpu: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = autobatch._peak_memory

    def small(net: Any, batch_size: int, *more: Any) -> int:
        if batch_size > 4:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return whole(net, batch_size, *more)

    monkeypatch.setattr(autobatch, "_peak_memory", small)
    assert find_batch_size(network(), (64, 64), None) == 7
    monkeypatch.setattr(autobatch, "_peak_memory", lambda *_: network().nothing)
    with pytest.raises(AttributeError):
        find_batch_size(network(), (64, 64), None)
