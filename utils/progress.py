"""A progress bar on a terminal; a few plain lines in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from utils.logging import LOGGER

T = TypeVar("T")


class Progress(Generic[T]):
    """Iterates over `items` and shows how far it is.

    On a terminal this is a tqdm bar on stderr. Elsewhere a line is logged every `log_every` seconds and one at the end,
    so that a log file holds a few readable lines instead of thousands of carriage returns. `describe` replaces the text
    in front (running losses, for example).
    """

    def __init__(
        self,
        items: Iterable[T],
        description: str = "",
        total: int | None = None,
        *,
        unit: str = "it",
        enabled: bool = True,
        log_every: float = 30.0,
    ) -> None:
        self._items = items
        self._description = description
        self._total = total if total is not None else _length(items)
        self._unit = unit
        self._enabled = enabled
        self._log_every = log_every
        self._bar = None
        if enabled and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=self._total, desc=description, unit=unit, dynamic_ncols=True, leave=True)

    def describe(self, text: str) -> None:
        """Replace the text in front of the bar (of the line)."""
        self._description = text
        if self._bar is not None:
            self._bar.set_description_str(text, refresh=False)

    def __iter__(self) -> Iterator[T]:
        start = last = time.monotonic()
        count = 0
        try:
            for item in self._items:
                yield item
                count += 1
                if self._bar is not None:
                    self._bar.update()
                elif self._enabled and time.monotonic() - last >= self._log_every and count != self._total:
                    last = time.monotonic()
                    self._log(count, last - start)
        finally:
            if self._bar is not None:
                self._bar.close()
            elif self._enabled:
                self._log(count, time.monotonic() - start)

    def _log(self, count: int, seconds: float) -> None:
        of = f"/{self._total}" if self._total is not None else ""
        rate = f", {count / seconds:.1f} {self._unit}/s" if seconds > 0 else ""
        LOGGER.info(f"{self._description}  {count}{of} in {seconds:.1f} s{rate}")


def _length(items: Iterable[object]) -> int | None:
    try:
        return len(items)  # type: ignore[arg-type]
    except TypeError:
        return None
