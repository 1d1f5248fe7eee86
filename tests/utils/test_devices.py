"""Choosing a device, reading the clock."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
import torch

from utils.devices import (
    Profile,
    device_indices,
    select_device,
    select_one_device,
    smart_inference_mode,
    time_sync,
    to_cpu,
    to_numpy,
)
from utils.errors import UserError


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A machine with two GPUs; which of them were made the current one."""
    current: list[int] = []
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    gpu = SimpleNamespace(name="A GPU", total_memory=8 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: gpu)
    return current


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.parametrize(
    ("text", "device", "indices"),
    [
        ("", "cuda:0", [0]),
        (None, "cuda:0", [0]),
        ("0", "cuda:0", [0]),
        (1, "cuda:1", [1]),
        ("cuda", "cuda:0", [0]),
        ("cuda:1", "cuda:1", [1]),
        (" 1, 0 ", "cuda:1", [1, 0]),
        ("cpu", "cpu", []),
        (torch.device("cpu"), "cpu", []),
    ],
)
def test_with_gpus(
    text: object, device: str, indices: list[int], gpus: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert select_device(text) == torch.device(device)  # type: ignore[arg-type]
    assert gpus == indices[:1]  # torch's current one from now on
    assert device_indices(text) == indices  # type: ignore[arg-type]
    said = capsys.readouterr().out
    assert ("CPU" if device == "cpu" else f"{device} A GPU, 8 GiB") in said


@pytest.mark.usefixtures("no_gpu")
def test_without_gpu() -> None:
    assert select_device("") == torch.device("cpu")
    assert device_indices("") == []
    with pytest.raises(UserError, match=r"--device 0: no GPU 0; torch .* sees no CUDA GPU; try --device cpu"):
        select_device("0")


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize(
    ("text", "batch", "said"),
    [
        ("2", 0, "no GPU 2"),
        ("0,0", 0, "'0,0' is not a device"),
        ("gpu", 0, "'gpu' is not a device; use cpu, mps, or GPU numbers"),
        ("0,1", 15, "--batch-size 15 is not divisible by the 2 GPUs"),
    ],
)
def test_mistakes(text: str, batch: int, said: str) -> None:
    with pytest.raises(UserError, match=said):
        select_device(text, batch)


def test_several_gpus_for_one_device(gpus: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError) as caught:
        select_one_device("0,1")
    assert str(caught.value) == "--device 0,1 names 2 GPUs; this command computes on one device: name one"
    assert gpus == []
    assert capsys.readouterr().out == ""  # never "two GPUs", and then one
    assert select_one_device("1") == torch.device("cuda:1")
    assert gpus == [1]


def test_mps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert select_device("mps") == torch.device("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UserError, match="--device mps"):
        select_device("mps")


def test_profile_adds_up() -> None:
    timer = Profile()
    for _ in range(2):
        with timer:
            time.sleep(0.02)
    assert 0.02 <= timer.dt < 0.5
    assert timer.t >= timer.dt + 0.02
    assert time_sync() <= timer.time()


def test_inference_mode_decorator() -> None:
    @smart_inference_mode()
    def double(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    assert not double(torch.ones(2, requires_grad=True)).requires_grad


def test_tensors_on_the_cpu_are_not_copied_but_for_their_type() -> None:
    floats, integers = torch.rand(3, 2), torch.arange(4)
    same, converted = to_cpu([floats, integers])
    assert same.data_ptr() == floats.data_ptr()
    assert converted.dtype == torch.float32
    assert converted.tolist() == [0, 1, 2, 3]


def test_tensors_lists_and_arrays_become_arrays_without_a_copy_where_possible() -> None:
    tensor = torch.rand(3, requires_grad=True)
    array = to_numpy(tensor)
    assert array.ctypes.data == tensor.data_ptr()
    assert to_numpy(array) is array
    assert to_numpy([1, 2]).tolist() == [1, 2]
