"""Signals and a full disk end a training like Ctrl-C: what was saved stays, and one line tells how to resume."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from utils.commands.signals import Terminated, signals_ignored, signals_raise
from utils.commands.standard_streams import OutputError
from utils.distributed import is_lost_peer
from utils.errors import STORAGE_ERRORS, Aftermath, UserError, dead_worker


@contextlib.contextmanager
def resumable(last: Path) -> Iterator[None]:
    """Turn whatever ends the block early into one line that tells how to resume from `last`.

    `last` is written atomically before the first epoch and after each, so nothing need be saved here: the state of
    half an epoch is not worth keeping.
    """

    def advice() -> str:
        return f"go on with --resume {last.as_posix()}" if last.is_file() else "start again, nothing was saved yet"

    with signals_ignored():  # while it is found out how to go on
        try:
            with signals_raise():
                yield
        except KeyboardInterrupt:
            raise Aftermath(f"interrupted; {advice()}") from None
        except Terminated as error:
            raise Aftermath(f"{error}; {advice()}") from None
        except OutputError as error:
            raise UserError(f"{error}; {advice()}") from None
        except RuntimeError as error:
            if death := dead_worker(error):
                raise UserError(f"{death}; {advice()}") from error
            if is_lost_peer(error):
                raise Aftermath(f"another process ended; {advice()}") from error
            raise
        except OSError as error:
            if error.errno not in STORAGE_ERRORS:
                raise
            place = f" at '{error.filename}'" if error.filename else ""
            raise UserError(f"{error.strerror}{place}; mend that, then {advice()}") from error
