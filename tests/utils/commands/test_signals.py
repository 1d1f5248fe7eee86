"""Signals that end a program."""

from __future__ import annotations

import signal
import threading

import pytest

from utils.commands.signals import Terminated, signals_held, signals_raise

pytestmark = pytest.mark.usefixtures("signals_of_a_terminal")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_raised_and_the_handler_put_back(name: str) -> None:
    number = getattr(signal, name)
    before = signal.getsignal(number)
    with pytest.raises(Terminated, match=rf"terminated \({name}\)") as end, signals_raise():
        signal.raise_signal(number)
    assert end.value.number == number
    assert signal.getsignal(number) is before


def test_what_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with signals_raise():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_held_until_the_end_of_the_block(name: str) -> None:
    done = []
    with pytest.raises((Terminated, KeyboardInterrupt)), signals_raise():
        with signals_held():
            signal.raise_signal(getattr(signal, name))
            done.append("the rest of the block")
    assert done


def test_held_signals_outlive_an_error() -> None:
    with pytest.raises(KeyboardInterrupt), signals_held():
        signal.raise_signal(signal.SIGINT)
        raise RuntimeError("what a library makes of it")


def test_other_threads_are_let_alone() -> None:
    found = []

    def work() -> None:
        with signals_raise(), signals_held():
            found.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found
