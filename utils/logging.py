"""The project's logger: information to stdout, warnings and errors to stderr."""

from __future__ import annotations

import logging
import os
import re
import sys

LOGGER = logging.getLogger("yolov5")

MOST_CHARACTERS = 1000  # of a warning or an error: what it quotes may be of any length

_COLORS = {"red": 31, "green": 32, "yellow": 33, "blue": 34, "magenta": 35, "cyan": 36, "bold": 1, "underline": 4}


class _StreamByLevel(logging.Handler):
    """Looks the streams up at each record, so that redirection (and pytest's capture) is honoured."""

    def emit(self, record: logging.LogRecord) -> None:
        stream = sys.stderr if record.levelno >= logging.WARNING else sys.stdout
        try:
            print(self.format(record), file=stream, flush=True)
        except Exception:  # the logging protocol: a failing record is reported, never raised
            self.handleError(record)


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if record.levelno >= logging.WARNING:
            return f"{record.levelname.lower()}: {one_line(text)}"
        return text


def one_line(text: str) -> str:
    """`text` without what would end the line or steer a terminal, and without its middle where it is very long.

    A warning or an error is one line, whatever the name of a file or a value in it may hold.
    """
    if len(text) > MOST_CHARACTERS:
        text = f"{text[: MOST_CHARACTERS * 2 // 3]} … {text[-MOST_CHARACTERS // 3 :]}"
    return re.sub(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]", lambda match: repr(match[0])[1:-1], text)


def configure_logging(verbose: bool = True, rank: int = -1) -> None:
    """Attach the handler once; processes other than the first (`rank` above 0) report errors only."""
    if not any(isinstance(h, _StreamByLevel) for h in LOGGER.handlers):
        handler = _StreamByLevel()
        handler.setFormatter(_Formatter())
        LOGGER.addHandler(handler)
        LOGGER.propagate = False
    LOGGER.setLevel(logging.INFO if verbose and rank in (-1, 0) else logging.ERROR)


def use_color() -> bool:
    """True where stdout is a terminal and NO_COLOR is unset."""
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ


def colorstr(*args: str) -> str:
    """``colorstr('red', 'bold', 'text')`` or ``colorstr('text')`` (blue, bold); plain text where colour is unwanted."""
    *styles, text = args if len(args) > 1 else ("blue", "bold", args[0])
    if not use_color():
        return text
    codes = "".join(f"\033[{_COLORS[s]}m" for s in styles)
    return f"{codes}{text}\033[0m"
