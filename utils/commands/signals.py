"""Signals that end a program: they raise an exception, so that files are finished or dropped on the way out."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

_ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Terminated(BaseException):
    """Raised where a signal asks the program to end; `number` is that of the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(f"terminated ({signal.Signals(number).name})")
        self.number = number


@contextlib.contextmanager
def signals_raise() -> Iterator[None]:
    """SIGTERM and SIGHUP raise `Terminated` in the block; workers forked meanwhile still die of them silently.

    A signal that is ignored (``nohup``) stays ignored.
    """
    owner = os.getpid()

    def handler(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:
            os._exit(128 + number)
        raise Terminated(number)

    with _handling(_ENDING, handler):
        yield


@contextlib.contextmanager
def signals_ignored() -> Iterator[None]:
    """SIGTERM and SIGHUP change nothing in the block: for a program that ends anyway, and still has to say why.

    Work inside it that a signal should end is put into a block of `signals_raise`.
    """

    def handler(number: int, frame: FrameType | None) -> None:
        pass

    with _handling(_ENDING, handler):
        yield


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Signals that would end the program wait until the block ends: for what must not be left half done.

    Libraries written in C++ turn an exception in the middle of their work into one of their own.
    """
    waiting: list[int] = []

    def handler(number: int, frame: FrameType | None) -> None:
        waiting.append(number)

    try:
        with _handling([signal.SIGINT, *_ENDING], handler):
            yield
    finally:
        if waiting:
            signal.raise_signal(waiting[0])


@contextlib.contextmanager
def _handling(numbers: list[signal.Signals], handler: object) -> Iterator[None]:
    """`handler` for `numbers` in the block. Only the main thread can handle signals; in others nothing changes."""
    previous = {}
    if threading.current_thread() is threading.main_thread():
        current = {number: signal.getsignal(number) for number in numbers}
        previous = {number: old for number, old in current.items() if old not in (signal.SIG_IGN, None)}
    try:
        for number in previous:
            signal.signal(number, handler)  # type: ignore[arg-type]
        yield
    finally:
        for number, old in previous.items():
            signal.signal(number, old)
