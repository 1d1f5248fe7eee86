"""What tests must leave alone: what the user's own work left in the checkout, and the user's home.

A hook of the interpreter sees each file and folder that Python opens, lists or makes while a test runs, and fails the
test where that lies in a place of the user's. Libraries that open files in C, and other processes, go unseen: those
get a home, a folder for data sets and a working directory that are temporary.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
_HOME = Path.home()  # the user's: read before `secluded_environment` gives tests another
FORBIDDEN = tuple(
    str(place)
    for place in (
        *(ROOT / name for name in ("runs", "datasets", "weights")),
        *(_HOME / name for name in (".cache", ".config", ".fonts", ".local/share", ".matplotlib")),
    )
)
_INSTALLED = sys.prefix, sys.base_prefix  # an interpreter may live in a home folder, libraries too
_EVENTS = {  # https://docs.python.org/3/library/audit_events.html: which arguments are paths
    "open": 1, "os.listdir": 1, "os.scandir": 1, "os.mkdir": 1, "os.remove": 1, "os.rmdir": 1, "os.truncate": 1,
    "os.utime": 1, "os.chmod": 1, "os.rename": 2, "os.link": 2, "os.symlink": 2,
}  # fmt: skip


class Guard:
    """Once installed, it stays for the life of the interpreter; it objects only while `active`."""

    def __init__(self) -> None:
        self.active = False
        self.seen: list[str] = []  # also what was caught on its way up, or happened in another thread

    def install(self) -> None:
        """Hear of what the interpreter does from now on."""
        sys.addaudithook(self._hear)

    def _hear(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.active or event not in _EVENTS:
            return
        for path in args[: _EVENTS[event]]:
            if isinstance(path, (str, bytes, os.PathLike)) and is_forbidden(path):
                self.seen.append(f"{event} {os.fsdecode(path)}")
                pytest.fail(f"a test must not touch what is the user's: {self.seen[-1]}")


def is_forbidden(path: str | bytes | os.PathLike[str]) -> bool:
    """True for one of the `FORBIDDEN` places and what lies below, but for what is installed there."""
    given = os.path.abspath(os.fsdecode(path))
    return _is_below(given, FORBIDDEN) and not _is_below(given, _INSTALLED)


def _is_below(path: str, folders: tuple[str, ...]) -> bool:
    return any(path == folder or path.startswith(folder + os.sep) for folder in folders)


def secluded_environment(folder: Path) -> dict[str, str]:
    """The environment variables that lead programs to `folder` instead of the user's own places."""
    places = {
        "HOME": folder,
        "USERPROFILE": folder,  # Windows
        "XDG_CACHE_HOME": folder / "cache",
        "XDG_CONFIG_HOME": folder / "config",
        "XDG_DATA_HOME": folder / "data",
        "MPLCONFIGDIR": folder / "matplotlib",
        "TORCH_HOME": folder / "torch",
        "YOLOv5_DATASETS_DIR": folder / "datasets",
    }
    for place in places.values():
        place.mkdir(parents=True, exist_ok=True)
    return {name: str(place) for name, place in places.items()}
