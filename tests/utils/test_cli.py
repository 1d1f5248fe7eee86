"""The command-line plumbing."""

from __future__ import annotations

import argparse
import errno
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from utils.cli import CommandParser, command_of, image_size, network_size, run_command, torchrun_command
from utils.commands.values import Fraction, Whole, text
from utils.errors import UserError
from utils.logging import LOGGER


def parser() -> CommandParser:
    p = CommandParser("demo", prog="demo.py")
    p.add_argument("--batch-size", "--batch", type=int, default=16)
    p.add_argument("--half", action="store_true")
    p.refuse("--bucket", "no cloud storage")
    return p


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--batchsize", "3"], "unknown argument '--batchsize' (did you mean '--batch-size'?)"),
        (["--bucket", "x"], "--bucket is not supported: no cloud storage"),
        (["--bucket=x"], "--bucket is not supported: no cloud storage"),
        (["--batch", "many"], "invalid int value: 'many'"),
    ],
)
def test_mistakes_are_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        parser().parse_args(words)
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1


def test_given_names_only_what_was_typed() -> None:
    p = parser()
    assert p.given(["--batch", "16"]) == {"batch_size"}
    assert p.given([]) == set()
    assert p.given(["--half"]) == {"half"}


def full_parser() -> CommandParser:
    p = CommandParser("demo")
    p.add_argument("--imgsz", nargs="+", type=Whole(1, 100), default=[64])
    p.add_argument("--data", type=text, default="a.yaml")
    p.add_argument("--iou", type=Fraction(), default=0.5)
    p.add_argument("--dtype", choices=["fp16", "bf16"], default="fp16")
    p.add_argument("--resume", type=text, nargs="?", const=True, default=False)
    p.add_argument("--cache", nargs="?", const="ram", default="", choices=["", "ram", "disk"])
    p.add_argument("--half", action="store_true")
    p.add_argument("--amp", action=argparse.BooleanOptionalAction, default=True)
    p.add_argument("--verify", action="store_true", default=True)
    p.add_argument("--no-verify", dest="verify", action="store_false")
    p.take_objects("data", dict)
    return p


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ({"imgsz": 32}, [32]),
        ({"imgsz": (32, 64)}, [32, 64]),
        ({"imgsz": np.int64(32)}, [32]),
        ({"data": Path("b.yaml")}, "b.yaml"),
        ({"data": torch.device("cpu")}, "cpu"),
        ({"data": {"nc": 1}}, {"nc": 1}),
        ({"data": None}, "a.yaml"),
        ({"iou": np.float32(0.25)}, 0.25),
        ({"iou": 1}, 1.0),
        ({"dtype": "bf16"}, "bf16"),
        ({"resume": True}, True),
        ({"resume": Path("last.pt")}, "last.pt"),
        ({"cache": True}, "ram"),
        ({"cache": False}, ""),
        ({"cache": ""}, ""),
        ({"half": 1}, True),
        ({"amp": False}, False),
        ({"verify": False}, False),
    ],
    ids=str,
)
def test_keywords_mean_what_the_flags_mean(given: dict[str, Any], taken: object) -> None:
    (name,) = given
    assert getattr(full_parser().keywords(given), name) == taken


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"imgsize": 32}, r"unknown option 'imgsize' \(did you mean 'imgsz'\?\)"),
        ({"imgsz": 0}, "imgsz: must be 1 or more, not 0"),
        ({"imgsz": [32, 101]}, "imgsz: must be 100 or less, not 101"),
        ({"imgsz": []}, "imgsz: is an empty list"),
        ({"imgsz": 3.5}, "imgsz: must be a whole number, not '3.5'"),
        ({"imgsz": True}, r"imgsz: must be text or a number, not True \(bool\)"),
        ({"imgsz": [[1]]}, r"imgsz: must be text or a number, not \[1\] \(list\)"),
        ({"data": ["a", "b"]}, "data: must be text or a number"),
        ({"data": b"a"}, r"data: .*\(bytes\)"),
        ({"data": "a\0"}, "data: holds a NUL"),
        ({"data": "  "}, "data: is empty"),
        ({"iou": math.nan}, "iou: must lie between 0 and 1, not nan"),
        ({"iou": "high"}, "iou: must be a number, not 'high'"),
        ({"dtype": "fp8"}, "dtype: must be one of 'fp16', 'bf16', not 'fp8'"),
        ({"resume": ""}, "resume: is empty"),
        ({"cache": "tape"}, "cache: must be one of '', 'ram', 'disk'"),
        ({"half": "yes"}, "half: must be True or False, not 'yes'"),
        ({"amp": 2}, "amp: must be True or False, not 2"),
        ({"verify": object}, "verify: must be True or False"),
        ({"help": True}, "unknown option 'help'"),
    ],
    ids=str,
)
def test_wrong_keywords_name_themselves(given: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        full_parser().keywords(given)


def test_image_size() -> None:
    assert image_size(640) == (640, 640)
    assert image_size([480, 640]) == (480, 640)
    for bad in ([1, 2, 3], [0], [-5, 5]):
        with pytest.raises(UserError, match="--imgsz"):
            image_size(bad)


@pytest.mark.parametrize(
    ("given", "size", "told"),
    [
        ([64, 96], (64, 96), ""),
        ([60, 70], (64, 96), "--imgsz 60x70 is no multiple of the stride 32; using 64x96"),
        ([32, 96], (64, 96), "--imgsz 32x96 is below 64 on a side; using 64x96"),
    ],
)
def test_network_size(given: list[int], size: tuple[int, int], told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[str] = []
    monkeypatch.setattr(LOGGER, "warning", warnings.append)  # whatever other tests have configured
    assert network_size(given, 32, minimum=64) == size
    assert warnings == ([told] if told else [])


def fail(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("what, where, how"), 1, "error: what, where, how\n"),
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
        (OSError(errno.ENOSPC, "No space left on device", "x.pt"), 1, "error: No space left on device: 'x.pt'\n"),
    ],
)
def test_run_command_exit_codes(error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        run_command(lambda: fail(error))
    assert stop.value.code == code
    assert capsys.readouterr().err == line


def test_a_defect_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        run_command(lambda: 1 / 0)
    with pytest.raises(SystemExit) as stop:
        run_command(lambda: 3)
    assert stop.value.code == 3


def test_what_to_type_for_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["segment/train.py", "--data", "my data.yaml", "--device", "0,1"])
    assert torchrun_command(2) == "torchrun --nproc_per_node 2 segment/train.py --data 'my data.yaml' --device 0,1"
    monkeypatch.setattr(sys, "argv", ["-c"])
    assert torchrun_command(4) == "torchrun --nproc_per_node 4 train.py ..."


def test_what_to_type_for_another_command(monkeypatch: pytest.MonkeyPatch) -> None:
    assert command_of("segment/val.py") == "python segment/val.py"
    monkeypatch.setitem(sys.modules, "yolov5_mobilenetv2", sys)
    assert command_of("segment/val.py") == "yolov5-mobilenet segment val"
