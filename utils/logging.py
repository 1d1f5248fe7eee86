"""The project's logger: information to stdout, warnings and errors to stderr, each of these one line."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator

from utils.commands.standard_streams import OutputError, write_line
from utils.errors import one_line, printable

LOGGER = logging.getLogger("yolov5")

_COLORS = {"red": 31, "green": 32, "yellow": 33, "blue": 34, "magenta": 35, "cyan": 36, "bold": 1, "underline": 4}


class _StreamByLevel(logging.Handler):
    """Looks the streams up at each record, so that redirection (and pytest's capture) is honoured."""

    def emit(self, record: logging.LogRecord) -> None:
        stream = sys.stderr if record.levelno >= logging.WARNING else sys.stdout
        try:
            write_line(self.format(record), stream)
        except OutputError:
            raise  # nobody reads any more, so the work ends
        except Exception:  # the logging protocol: a failing record is reported, never raised
            self.handleError(record)


_OWN_CODES = re.compile(r"(\033\[\d*m|\n)")  # colours, and the layout of tables


class _Formatter(logging.Formatter):
    """Messages quote names of files and classes, so nothing in them may act on a terminal or begin another line."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        if record.levelno >= logging.WARNING:
            return f"{record.levelname.lower()}: {one_line(record.message)}"
        parts = _OWN_CODES.split(record.message)
        return "".join(part if i % 2 else printable(part) for i, part in enumerate(parts))


def configure_logging(verbose: bool = True, rank: int = -1) -> None:
    """Attach the handler once; processes other than the first (`rank` above 0) report errors only."""
    if not any(isinstance(h, _StreamByLevel) for h in LOGGER.handlers):
        handler = _StreamByLevel()
        handler.setFormatter(_Formatter())
        LOGGER.addHandler(handler)
        LOGGER.propagate = False
    LOGGER.setLevel(logging.INFO if verbose and rank in (-1, 0) else logging.ERROR)


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Within the block, hide standard output, standard error, warnings and log entries up to WARNING."""
    logging.disable(logging.WARNING)
    try:
        hidden = io.StringIO()
        with warnings.catch_warnings(), contextlib.redirect_stdout(hidden), contextlib.redirect_stderr(hidden):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


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
