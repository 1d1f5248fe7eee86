"""Names of classes, in texts and as names of folders."""

from __future__ import annotations

import re
from collections.abc import Mapping

from utils.errors import printable

MOST_CLASSES = 100_000
LONGEST_NAME = 300  # characters


def class_name(names: Mapping[int, str], index: int) -> str:
    """The name of class `index`, or its number where the model has none."""
    return names.get(index, str(index))


def check_class_names(names: Mapping[int, str]) -> None:
    """Raise `ValueError` for names that cannot be printed as they are, too long ones, and too many.

    Control characters and those that turn the direction of the text would let a file write into the lines that a
    command prints; half a surrogate pair cannot be written to any file. Whatever else people call things is welcome.
    """
    if len(names) > MOST_CLASSES:
        raise ValueError(f"{len(names)} classes are more than the {MOST_CLASSES} that a network may have")
    for index, name in names.items():
        if len(name) > LONGEST_NAME:
            raise ValueError(f"the name of class {index} has {len(name)} characters, at most {LONGEST_NAME} are read")
        if printable(name) != name:
            raise ValueError(f"the name of class {index}, {name!a}, has a character that cannot be printed")


def describe(counts: Mapping[int, int], names: Mapping[int, str]) -> str:
    """The number of objects of each class, by class number: ``'4 persons, 1 bus'``, or ``'(no detections)'``."""
    parts = [f"{n} {_plural(class_name(names, c), n)}" for c, n in sorted(counts.items())]
    return ", ".join(parts) or "(no detections)"


def _plural(name: str, count: int) -> str:
    """The plural in English, for names that may be English."""
    return f"{name}s" if count > 1 and name.isascii() else name


_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f-\x9f<>:"/\\|?*\u2028\u2029\ud800-\udfff]+')
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)  # names of devices on Windows
_LONGEST = 200  # bytes of a folder's name; systems allow 255


def folder_name(text: str) -> str:
    """The name of a class as the name of a folder: without separators, control characters and what Windows forbids.

    Class names may come from files of others, so that ``../../x`` becomes ``_.._x``.
    """
    name = _FORBIDDEN.sub("_", text).encode()[:_LONGEST].decode(errors="ignore").strip(". ") or "_"
    return f"_{name}" if _RESERVED.match(name) else name
