"""Names of classes, in texts and as names of folders."""

from __future__ import annotations

import re
from collections.abc import Mapping


def class_name(names: Mapping[int, str], index: int) -> str:
    """The name of class `index`, or its number where the model has none."""
    return names.get(index, str(index))


def describe(counts: Mapping[int, int], names: Mapping[int, str]) -> str:
    """How many of each class, in the order of the class numbers: ``'4 persons, 1 bus'``, or ``'(no detections)'``."""
    parts = [f"{n} {_plural(class_name(names, c), n)}" for c, n in sorted(counts.items())]
    return ", ".join(parts) or "(no detections)"


def _plural(name: str, count: int) -> str:
    """English style, for what may be English."""
    return f"{name}s" if count > 1 and name.isascii() else name


def folder_name(text: str) -> str:
    """A class's name as a folder's: no separators, and nothing that Windows forbids."""
    return re.sub(r'[\x00-\x1f<>:"/\\|?*]+', "_", text).strip(". ") or "_"
