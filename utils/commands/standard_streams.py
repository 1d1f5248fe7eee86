"""Standard input, output and error, whatever state the parent process left them in."""

from __future__ import annotations

import os
import sys
from typing import IO

from utils.errors import UserError


class OutputError(UserError):
    """Standard output cannot be written: the disk behind it is full, or its reader went away."""


def open_standard_streams() -> None:
    """Put the null device in the place of closed streams, and let unprintable letters appear as escapes.

    Without the first, the next file that is opened gets the number of the closed stream, and messages go into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # takes the lowest free number: this one
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115  for as long as the process lives
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115
        if hasattr(stream := getattr(sys, name), "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def write_line(line: str, stream: IO[str] | None) -> None:
    """Print and flush. Raises `OutputError` where standard output is lost; whom could one tell of standard error?"""
    try:
        print(line, file=stream, flush=True)
    except OSError as error:
        abandon(stream)
        if stream is not sys.stderr:
            raise OutputError(f"cannot write to standard output: {error.strerror}") from error


def flush_output() -> None:
    """Write out what `print` left in the buffer. Raises `OutputError`."""
    try:
        sys.stdout.flush()
    except OSError as error:
        abandon(sys.stdout)
        raise OutputError(f"cannot write to standard output: {error.strerror}") from error


def abandon(stream: IO[str] | None) -> None:
    """Lead what is still in the buffer of `stream`, and all that follows, to the null device."""
    if stream is None:
        return
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
    except (OSError, ValueError):  # not a file, or one that is closed
        return
