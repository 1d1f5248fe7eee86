"""``--device`` in every command, on a machine that is said to have two GPUs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import detect
import export
import hubconf
import train
import val
from segment import predict as segment_predict
from segment import train as segment_train
from segment import val as segment_val
from tests.engine.training.step import make_trainer
from utils.errors import UserError

COMMANDS: dict[str, Callable[[str, str], Any]] = {
    "val.py": lambda weights, device: val.run(weights=weights, device=device),
    "segment/val.py": lambda weights, device: segment_val.run(weights=weights, device=device),
    "detect.py": lambda weights, device: detect.run(weights=weights, device=device),
    "segment/predict.py": lambda weights, device: segment_predict.run(weights=weights, device=device),
    "export.py": lambda weights, device: export.run(weights=weights, device=device),
    "torch.hub": lambda weights, device: hubconf.custom(weights, device=device),
    "torch.hub, a name": lambda weights, device: hubconf.yolov5n_MobileNetv2(device=device),  # type: ignore[attr-defined]
}


@pytest.fixture(autouse=True)
def current(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Which of the two GPUs were made torch's current one."""
    chosen: list[int] = []
    gpu = SimpleNamespace(name="A GPU", total_memory=8 * 2**30)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: gpu)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    return chosen


@pytest.mark.parametrize("command", COMMANDS)
def test_two_gpus_are_refused_where_one_computes(
    command: str, make_weights: Callable[..., Path], current: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match=r"^--device 0,1 names 2 GPUs; this command computes on one device: name one$"):
        COMMANDS[command](str(make_weights()), "0,1")
    assert current == []
    assert "A GPU" not in capsys.readouterr().out


@pytest.mark.parametrize("command", [train, segment_train])
def test_training_on_two_gpus_names_the_command_to_type(
    command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = ["train.py", "--device", "0,1", "--name", "two words"]
    monkeypatch.setattr(sys, "argv", typed)
    with pytest.raises(UserError) as caught:
        command.main(command.parse_opt(typed[1:]))
    assert str(caught.value) == (
        "--device 0,1 names 2 GPUs; each needs a process of its own: "
        "torchrun --nproc_per_node 2 train.py --device 0,1 --name 'two words'"
    )
    assert "A GPU" not in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_the_status_line_has_the_memory_of_its_own_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: {1: 3e9}[torch.device(device).index])
    trainer = make_trainer("detect", tmp_path, "cpu")
    losses, batch = trainer.train_epoch(0), trainer.session.train_loader[0]
    trainer.session.device = torch.device("cuda", 1)
    assert trainer.status(0, SimpleNamespace(mean=losses), batch)().split()[1] == "3G"  # type: ignore[arg-type]
