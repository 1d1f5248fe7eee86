"""SIGTERM and a full disk end a training as Ctrl-C does: with what has been saved, and a word on how to go on."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from utils.errors import UserError

_STORAGE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOENT}


class Terminated(BaseException):
    """SIGTERM arrived."""


@contextlib.contextmanager
def resumable(last: Path) -> Iterator[None]:
    """Whatever ends the block early becomes one line that tells how to resume from `last`.

    `last` is written atomically before the first epoch and after each, so nothing need be saved here: the state of
    half an epoch is not worth keeping.
    """
    advice = f"go on with --resume {last.as_posix()}"
    with _sigterm_raises():
        try:
            yield
        except KeyboardInterrupt:
            raise UserError(f"interrupted; {advice}") from None
        except Terminated:
            raise UserError(f"terminated (SIGTERM); {advice}") from None
        except OSError as error:
            if error.errno not in _STORAGE_ERRORS:
                raise
            place = f" at '{error.filename}'" if error.filename else ""
            raise UserError(f"{error.strerror}{place}; mend that, then {advice}") from error


@contextlib.contextmanager
def _sigterm_raises() -> Iterator[None]:
    """SIGTERM raises `Terminated` in this process; workers forked meanwhile still die of it silently."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner = os.getpid()

    def handler(signum: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:
            os._exit(128 + signum)
        raise Terminated

    previous = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
