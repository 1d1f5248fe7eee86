"""What the processes of one machine tell each other through a folder of `torchrun`."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from utils import cli
from utils.cli import CommandParser, run_command
from utils.commands import launcher
from utils.errors import Aftermath, UserError


@pytest.fixture
def attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of one start of two processes; this one is the second of them."""
    folder = tmp_path / "none_abc" / "attempt_0"
    (folder / "1").mkdir(parents=True)
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(folder / "1" / "error.json"))
    monkeypatch.setenv("LOCAL_RANK", "1")

    def exit_at_once(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr(launcher.os, "_exit", exit_at_once)
    return folder


def outcome(error: BaseException) -> int:
    """The exit code of a command that fails with `error`."""

    def fail() -> None:
        raise error

    with pytest.raises(SystemExit) as stop:
        run_command(fail)
    assert isinstance(stop.value.code, int)
    return stop.value.code


def test_what_all_have_to_say_is_said_once(attempt: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert [outcome(UserError("no such file")), outcome(UserError("no such file"))] == [1, 1]
    assert capsys.readouterr().err == "error: no such file\n"


def test_who_fails_alone_is_heard(attempt: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("process 0 has no GPU", "process 1 has no GPU"):
        outcome(UserError(text))
    assert capsys.readouterr().err.count("error: process") == 2


def test_the_aftermath_is_told_only_where_nobody_told_the_cause(
    attempt: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert outcome(Aftermath("another process ended")) == 1, "killed: it could not tell"
    outcome(Aftermath("another process ended in other words"))
    outcome(KeyboardInterrupt())
    assert capsys.readouterr().err == "error: another process ended\n"


@pytest.mark.usefixtures("signals_of_a_terminal")
def test_a_signal_does_not_silence_it(
    attempt: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`torchrun` terminates what is left of its processes within a tenth of a second after one was killed."""

    def terminated_meanwhile() -> bool:
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL, "this would end the process"
        signal.raise_signal(signal.SIGTERM)
        return False

    monkeypatch.setattr(cli, "has_anyone_failed", terminated_meanwhile)
    outcome(Aftermath("another process ended"))
    assert capsys.readouterr().err == "error: another process ended\n"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_defect_keeps_its_traceback_and_ends_at_once(attempt: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome(ZeroDivisionError("a defect")) == 1
    assert "ZeroDivisionError: a defect" in capsys.readouterr().err


def test_a_wrong_flag_is_said_once(attempt: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        with pytest.raises(SystemExit):
            CommandParser("demo", prog="demo.py").parse_args(["--wrong"])
    assert capsys.readouterr().err.count("--wrong") == 1


def test_a_later_start_has_its_own_folder_and_the_same_torchrun(attempt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = launcher.agent()
    assert launcher.is_first_to_say("x")
    assert not launcher.is_first_to_say("x")
    later = attempt.with_name("attempt_1")
    later.mkdir()
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(later / "0" / "error.json"))
    assert launcher.agent() == first
    assert launcher.is_first_to_say("x")


@pytest.mark.parametrize("error_file", [None, "", "/nowhere/none_abc/attempt_0/0/error.json"])
def test_without_torchrun_everything_is_said(error_file: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_ERROR_FILE", raising=False)
    if error_file is not None:
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", error_file)
    assert launcher.is_first_to_say("x")
    assert launcher.is_first_to_say("x")
    assert not launcher.has_anyone_failed()
    assert launcher.agent() is None


@pytest.mark.parametrize(("code", "expected"), [(0, 0), (None, 0), (3, 3), ("text", 1)])
def test_leave(attempt: Path, code: object, expected: int) -> None:
    with pytest.raises(SystemExit) as stop:
        launcher.leave(code)
    assert stop.value.code == expected
    sys.stdout.write("")  # logging and the streams still work
