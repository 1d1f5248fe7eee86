"""The parser that all command lines share, and how they end: a user's mistake becomes one line here."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from utils.commands.launcher import has_anyone_failed, is_first_to_say, leave, local_rank
from utils.commands.signals import Terminated, signals_ignored, signals_raise
from utils.commands.standard_streams import OutputError, flush_output, open_standard_streams
from utils.commands.values import word_of
from utils.errors import Aftermath, UserError, nearest, one_line, refusal
from utils.logging import LOGGER, configure_logging

if TYPE_CHECKING:
    from utils.commands.options import CommandOptions

_Options = TypeVar("_Options", bound="CommandOptions")


class CommandParser(argparse.ArgumentParser):
    """An `ArgumentParser` whose errors are one line, with the nearest known flag for an unknown one.

    `keywords` takes the same options from Python, through the same types and choices.
    """

    def __init__(self, description: str | None, **kwargs: Any) -> None:
        kwargs.setdefault("formatter_class", argparse.ArgumentDefaultsHelpFormatter)
        super().__init__(description=description, exit_on_error=False, **kwargs)
        self._refused: dict[str, str] = {}
        self._objects: dict[str, tuple[type, ...]] = {}

    def refuse(self, flag: str, reason: str) -> None:
        """Refuse `flag`, which YOLOv5 has and this project does not take, with `reason` instead of 'unknown flag'."""
        self._refused[flag] = reason

    def take_objects(self, name: str, *types: type) -> None:
        """Let Python give option `name` as an object of one of `types`, which no command line can hold."""
        self._objects[name] = types

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

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def, override]
        try:
            return super().parse_known_args(args, namespace)
        except argparse.ArgumentError as error:
            flag = (error.argument_name or "").split("/")[0]  # the first of its spellings
            self.error(f"{flag}: {error.message}" if flag else error.message)

    def given(self, args: list[str] | None = None) -> set[str]:
        """Names of the options that `args` (the command line) sets itself, whatever their values."""
        unset = object()
        probe = argparse.Namespace(**{action.dest: unset for action in self._actions})
        self.parse_known_args(sys.argv[1:] if args is None else args, probe)
        return {name for name, value in vars(probe).items() if value is not unset}

    def keywords(self, values: Mapping[str, Any]) -> argparse.Namespace:
        """The options of a ``run(**kwargs)`` call: `values` where they are given and not None, else the defaults.

        Types, ranges and choices are the command line's. Raises `UserError` that names the keyword.
        """
        options = self.parse_args([])
        actions = {action.dest: action for action in reversed(self._actions) if action.dest != "help"}
        for name, value in values.items():
            if name not in actions:
                raise UserError(f"unknown option '{name}'{nearest(name, actions)}")
            if value is not None:
                try:
                    setattr(options, name, self._value(actions[name], value))
                except argparse.ArgumentTypeError as error:
                    raise UserError(f"{name}: {error}") from None
        return options

    def _value(self, action: argparse.Action, value: Any) -> Any:
        """`value`, an object of Python, as what the flag of `action` would have given."""
        if isinstance(value, self._objects.get(action.dest, ())):
            return value
        if action.nargs == 0:  # a switch
            if isinstance(value, (bool, int)) and value in (0, 1):
                return bool(value)
            raise argparse.ArgumentTypeError(f"must be True or False, not {value!r}")
        if action.nargs == "?" and isinstance(value, bool):  # the flag alone, or not at all
            return action.const if value else action.default
        if action.nargs == "+":
            several = value if isinstance(value, (list, tuple)) else [value]
            if not several:
                raise argparse.ArgumentTypeError("is an empty list; give a value or leave it out")
            return [_single(action, one) for one in several]
        return _single(action, value)

    def error(self, message: str) -> NoReturn:
        text = f"error: {one_line(message)}; {self.prog} --help lists the flags\n"
        self.exit(2, text if is_first_to_say(text) else None)


def _single(action: argparse.Action, value: Any) -> Any:
    word = word_of(value)
    converted = action.type(word) if callable(action.type) else word
    if action.choices is not None and converted not in action.choices:
        known = ", ".join(repr(choice) for choice in action.choices)
        raise argparse.ArgumentTypeError(f"must be one of {known}, not {value!r}")
    return converted


def options_of(kind: type[_Options], namespace: argparse.Namespace) -> _Options:
    """What a parser gave, as an object of `kind`; only fields with a default may be missing from `namespace`.

    Where a list of words is wanted, a script may have set one word, a path, or None.
    """
    from dataclasses import MISSING, fields

    values = {}
    for field in fields(kind):
        if field.default is MISSING or hasattr(namespace, field.name):
            value = getattr(namespace, field.name)
            values[field.name] = _list_of_words(value) if field.type == "list[str]" else value
    return kind(**values)


def _list_of_words(value: Any) -> list[str]:
    return [str(value)] if isinstance(value, (str, os.PathLike)) else [str(word) for word in value or ()]


def image_size(value: int | Sequence[int]) -> tuple[int, int]:
    """The (height, width) that ``--imgsz 640`` or ``--imgsz 480 640`` means."""
    sizes = [value] if isinstance(value, int) else list(value)
    if len(sizes) not in (1, 2) or any(s < 1 for s in sizes):
        raise UserError(f"--imgsz takes one size or height and width, both positive, not {sizes}")
    return sizes[0], sizes[-1]


def network_size(imgsz: int | Sequence[int], stride: int, minimum: int = 0) -> tuple[int, int]:
    """The (height, width) that --imgsz means for a network of `stride`: multiples of it, none below `minimum`.

    Logs a warning if that is not the size given.
    """
    from utils.ops.letterbox import make_divisible

    given = image_size(imgsz)
    rounded = [make_divisible(side, stride) for side in given]
    height, width = (max(side, minimum) for side in rounded)
    if (height, width) != given:
        reason = f"no multiple of the stride {stride}" if min(rounded) >= minimum else f"below {minimum} on a side"
        LOGGER.warning(f"--imgsz {given[0]}x{given[1]} is {reason}; using {height}x{width}")
    return height, width


def command_of(script: str) -> str:
    """The command that a user types to run `script` (``segment/val.py``), in a checkout or with the installed wheel."""
    if "yolov5_mobilenetv2" in sys.modules:  # docs/packaging.md
        return f"yolov5-mobilenet {script.removesuffix('.py').replace('/', ' ')}"
    return f"python {script}"


def torchrun_command(processes: int) -> str:
    """The command that a user types to run this command line with so many processes on this machine."""
    words = sys.argv if sys.argv[0].endswith(".py") else ["train.py", "..."]  # from Python it is for the user to say
    return f"torchrun --nproc_per_node {processes} {shlex.join(words)}"


def run_command(main: Callable[[], Any]) -> NoReturn:
    """Run `main` and exit with one line on stderr where it does not end well.

    0 (or the integer that `main` returns); 1 after a user's mistake, or where the machine refused memory, space or
    permission, or where standard output is lost; 128 and the number of the signal (130: Ctrl-C). What several processes
    of a machine have to say alike is said once. A signal that comes after `main` changes nothing: `torchrun` ends the
    others as soon as one process is gone, and they have to say how to go on.
    """
    open_standard_streams()
    configure_logging()
    with signals_ignored():
        code = _outcome(main)
        try:
            flush_output()
        except OutputError as error:
            LOGGER.error(error)
            code = code or 1
        leave(code)


def _outcome(main: Callable[[], Any]) -> Any:
    """The exit code of `main`, told why where it is not 0. What is no one's mistake but ours is raised."""
    try:
        with signals_raise():
            result = main()
        return result if type(result) is int else 0
    except SystemExit as end:  # --help, a wrong flag
        return end.code
    except Aftermath as error:
        return 1 if has_anyone_failed() else _say(error, 1)
    except UserError as error:
        return _say(error, 1)
    except KeyboardInterrupt:
        return 130 if has_anyone_failed() else _say("interrupted", 130)
    except Terminated as error:
        return 128 + error.number if has_anyone_failed() else _say(error, 128 + error.number)
    except Exception as error:
        if (reason := refusal(error)) is not None:
            return _say(reason, 1)
        if local_rank() < 0:
            raise
        import traceback

        if is_first_to_say(text := traceback.format_exc()):
            sys.stderr.write(text)
        return 1


def _say(what: object, code: int) -> int:
    """Log `what` unless another process of this machine has; returns `code`."""
    if is_first_to_say(str(what)):
        LOGGER.error(what)
    return code
