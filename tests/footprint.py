"""Which of the project's files a reader has to follow to see how something is done."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from utils.files import ROOT


def files_called(action: Callable[[], object]) -> set[str]:
    """The project's files of which a function is called during `action`, as `sys.setprofile` reports it.

    Module bodies, libraries and tests do not count.
    """
    found: set[str] = set()

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_name != "<module>":
            found.add(frame.f_code.co_filename)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        action()
    finally:
        sys.setprofile(before)
    ours = [Path(name).relative_to(ROOT) for name in found if Path(name).is_relative_to(ROOT)]
    return {path.as_posix() for path in ours if path.parts[0] in ("utils", "models", "engine", "detect.py")}
