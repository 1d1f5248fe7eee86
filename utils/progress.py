"""Progress as a bar on a terminal, and as a few lines in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

from utils.errors import printable
from utils.logging import LOGGER

T = TypeVar("T")


class Progress(Generic[T]):
    """Iterates over `items` and shows how far it is.

    On a terminal this is a tqdm bar on stderr. Elsewhere a line is logged every `log_every` seconds and one at the end,
    so that a log file holds a few readable lines instead of thousands of carriage returns. `describe` replaces the text
    in front (running losses, for example); a function given to it is called only when there is something to show, so
    it may wait for a GPU.
    """

    def __init__(
        self,
        items: Iterable[T],
        description: str | Callable[[], str] = "",
        total: int | None = None,
        *,
        unit: str = "it",
        enabled: bool = True,
        log_every: float = 30.0,
        refresh_every: float = 0.2,
    ) -> None:
        self._items = items
        self._description = description
        self._total = total if total is not None else _length(items)
        self._unit = unit
        self._enabled = enabled
        self._log_every = log_every
        self._refresh_every = refresh_every
        self._bar = None
        if enabled and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=self._total, desc=self._text(), unit=unit, dynamic_ncols=True, mininterval=0)

    def describe(self, text: str | Callable[[], str]) -> None:
        """Replace the text in front of the bar (of the line)."""
        self._description = text

    def __iter__(self) -> Iterator[T]:
        start = shown = time.monotonic()
        count = 0
        try:
            for item in self._items:
                yield item
                count += 1
                now = time.monotonic()
                if self._bar is not None and now - shown >= self._refresh_every:
                    shown = now
                    self._show(count)
                elif self._bar is None and now - shown >= self._log_every and count != self._total:
                    shown = now
                    self._log(count, now - start)
        finally:
            if self._bar is not None:
                self._show(count)
                self._bar.close()
            else:
                self._log(count, time.monotonic() - start)

    def _show(self, count: int) -> None:
        assert self._bar is not None
        self._bar.set_description_str(self._text(), refresh=False)
        self._bar.update(count - self._bar.n)
        self._bar.refresh()

    def _log(self, count: int, seconds: float) -> None:
        if self._enabled:
            of = f"/{self._total}" if self._total is not None else ""
            rate = f", {count / seconds:.1f} {self._unit}/s" if seconds > 0 else ""
            LOGGER.info(f"{self._text()}  {count}{of} in {seconds:.1f} s{rate}")

    def _text(self) -> str:
        return printable(self._description() if callable(self._description) else self._description)


def _length(items: Iterable[object]) -> int | None:
    try:
        return len(items)  # type: ignore[arg-type]
    except TypeError:
        return None
