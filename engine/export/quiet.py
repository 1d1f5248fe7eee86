"""Without what the toolchains say about themselves: what they wrote is checked, and its figures are reported."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No bars of progress, no log entries and no warnings of other people's code."""
    logging.disable(logging.WARNING)
    try:
        unseen = io.StringIO()
        with warnings.catch_warnings(), contextlib.redirect_stdout(unseen), contextlib.redirect_stderr(unseen):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
