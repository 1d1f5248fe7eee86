"""Every early end tells how to go on."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import pytest

from engine.training.safeguards.interruption import resumable
from utils.commands.standard_streams import OutputError
from utils.errors import UserError

pytestmark = pytest.mark.usefixtures("signals_of_a_terminal")

LAST = Path("runs/train/exp/weights/last.pt")


@pytest.fixture(autouse=True)
def _saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    LAST.parent.mkdir(parents=True)
    LAST.touch()


def test_before_anything_was_saved() -> None:
    LAST.unlink()
    with pytest.raises(UserError, match="interrupted; start again, nothing was saved yet"):
        with resumable(LAST):
            raise KeyboardInterrupt


def test_a_dead_worker() -> None:
    with pytest.raises(UserError, match=r"loads data died \(Killed\).*--workers \(0: none\).*; go on with --resume"):
        with resumable(LAST):
            raise RuntimeError("DataLoader worker (pid 17) is killed by signal: Killed. ")
    with pytest.raises(UserError, match=r"loads data died \(unexpectedly\)"), resumable(LAST):
        raise RuntimeError("DataLoader worker (pid(s) 17) exited unexpectedly")
    with pytest.raises(RuntimeError, match="shape"), resumable(LAST):
        raise RuntimeError("shape")


def test_ctrl_c() -> None:
    with pytest.raises(UserError, match=r"interrupted; go on with --resume runs/train/exp/weights/last\.pt"):
        with resumable(LAST):
            raise KeyboardInterrupt


def test_sigterm_is_caught_and_the_handler_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(UserError, match=r"terminated \(SIGTERM\).*--resume"), resumable(LAST):
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_lost_output_and_a_closed_terminal() -> None:
    with pytest.raises(UserError, match=r"cannot write to standard output; go on with --resume"), resumable(LAST):
        raise OutputError("cannot write to standard output")
    with pytest.raises(UserError, match=r"terminated \(SIGHUP\); go on with --resume"), resumable(LAST):
        os.kill(os.getpid(), signal.SIGHUP)


def test_full_disk() -> None:
    with pytest.raises(UserError, match=r"No space left on device at 'last\.pt'; mend that, then go on with --resume"):
        with resumable(LAST):
            raise OSError(errno.ENOSPC, "No space left on device", "last.pt")


def test_other_errors_are_not_touched() -> None:
    with pytest.raises(ValueError, match="x"), resumable(LAST):
        raise ValueError("x")
    with pytest.raises(ConnectionError), resumable(LAST):
        raise ConnectionError(errno.ECONNRESET, "reset")
