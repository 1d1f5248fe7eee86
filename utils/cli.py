"""What every command line shares: a parser that explains itself; a user's mistake becomes one line here."""

from __future__ import annotations

import argparse
import errno
import os
import shlex
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from utils.errors import UserError, nearest
from utils.logging import LOGGER, configure_logging

_ENVIRONMENT_ERRORS = {errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT, errno.EPERM, errno.ENOTDIR}


class CommandParser(argparse.ArgumentParser):
    """An `ArgumentParser` whose errors are one line, with the nearest known flag for an unknown one."""

    def __init__(self, description: str, **kwargs: Any) -> None:
        super().__init__(
            description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter, **kwargs
        )  # fmt: skip
        self._refused: dict[str, str] = {}

    def refuse(self, flag: str, reason: str) -> None:
        """A flag of YOLOv5 that this project does not take; naming it gives `reason` instead of 'unknown flag'."""
        self._refused[flag] = reason

    def parse_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def, override]
        words = sys.argv[1:] if args is None else list(args)
        for word in words:
            if (name := word.split("=")[0]) in self._refused:
                self.error(f"{name} is not supported: {self._refused[name]}")
        options, unknown = self.parse_known_args(words, namespace)
        if unknown:
            known = [flag for action in self._actions for flag in action.option_strings]
            self.error(f"unknown argument '{unknown[0]}'{nearest(unknown[0].split('=')[0], known)}")
        return options

    def given(self, args: list[str] | None = None) -> set[str]:
        """Names of the options that `args` (the command line) sets itself, whatever their values."""
        unset = object()
        probe = argparse.Namespace(**{action.dest: unset for action in self._actions})
        self.parse_known_args(sys.argv[1:] if args is None else args, probe)
        return {name for name, value in vars(probe).items() if value is not unset}

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; {self.prog} --help lists the flags\n")


def apply_overrides(options: argparse.Namespace, overrides: dict[str, Any]) -> argparse.Namespace:
    """`options` with the keywords of a ``run(**kwargs)`` call put in; an unknown keyword is a `UserError`."""
    for key, value in overrides.items():
        if not hasattr(options, key):
            raise UserError(f"unknown option '{key}'{nearest(key, vars(options))}")
        setattr(options, key, value)
    return options


def image_size(value: int | list[int] | tuple[int, ...]) -> tuple[int, int]:
    """The (height, width) that ``--imgsz 640`` or ``--imgsz 480 640`` means."""
    sizes = [value] if isinstance(value, int) else list(value)
    if len(sizes) not in (1, 2) or any(s < 1 for s in sizes):
        raise UserError(f"--imgsz takes one size or height and width, both positive, not {sizes}")
    return sizes[0], sizes[-1]


def check_numbers(options: argparse.Namespace, **least: int) -> None:
    """Raise `UserError` for a ``--conf-thres`` or ``--iou-thres`` outside 0..1, or an option below its `least`."""
    for name in ("conf_thres", "iou_thres"):
        if not 0 <= getattr(options, name) <= 1:
            flag = name.replace("_", "-")
            raise UserError(f"--{flag} is {getattr(options, name)}, but a threshold lies between 0 and 1")
    for name, value in least.items():
        if getattr(options, name) < value:
            raise UserError(f"--{name.replace('_', '-')} must be {value} or more, not {getattr(options, name)}")


def torchrun_command(processes: int) -> str:
    """What to type to have this command line run by so many processes on this machine."""
    words = sys.argv if sys.argv[0].endswith(".py") else ["train.py", "..."]  # from Python it is for the user to say
    return f"torchrun --nproc_per_node {processes} {shlex.join(words)}"


def run_command(main: Callable[[], Any]) -> NoReturn:
    """Run `main` and exit: 0 (or the integer it returns), 1 with one line after a user's mistake, 130 after Ctrl-C."""
    configure_logging()
    try:
        result = main()
        code = result if type(result) is int else 0
    except UserError as error:
        LOGGER.error(error)
        code = 1
    except KeyboardInterrupt:
        LOGGER.error("interrupted")
        code = 130
    except BrokenPipeError:  # the reader of our output went away (`… | head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:
        if error.errno not in _ENVIRONMENT_ERRORS:
            raise
        LOGGER.error(f"{error.strerror}: '{error.filename}'" if error.filename else str(error.strerror))
        code = 1
    sys.exit(code)
