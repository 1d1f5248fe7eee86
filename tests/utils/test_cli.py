"""The command-line plumbing."""

from __future__ import annotations

import argparse
import errno
import sys

import pytest

from utils.cli import CommandParser, apply_overrides, image_size, run_command, torchrun_command
from utils.errors import UserError


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


def test_overrides() -> None:
    options = argparse.Namespace(imgsz=640)
    assert apply_overrides(options, {"imgsz": 320}).imgsz == 320
    with pytest.raises(UserError, match="unknown option 'imgsize' .*'imgsz'"):
        apply_overrides(options, {"imgsize": 320})


def test_image_size() -> None:
    assert image_size(640) == (640, 640)
    assert image_size([480, 640]) == (480, 640)
    for bad in ([1, 2, 3], [0], [-5, 5]):
        with pytest.raises(UserError, match="--imgsz"):
            image_size(bad)


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
