"""The one exception that stands for a user's mistake."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake that its author can mend, told in one line.

    The text says what was wrong, where (``file:line`` for files), and what would mend it. Commands print it as
    ``error: …`` and exit non-zero; nothing else is caught on the way, so a traceback always means a defect of ours.
    """


def nearest(name: str, known: Iterable[str]) -> str:
    """A ready-made hint for an unknown `name`: `` (did you mean 'x'?)``, or an empty string if nothing is close."""
    match = difflib.get_close_matches(str(name), [str(k) for k in known], n=1, cutoff=0.6)
    return f" (did you mean '{match[0]}'?)" if match else ""
