"""The events of a training: the loop emits them, listeners such as loggers subscribe, and neither knows the other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

EVENTS = (  # with the facts that listeners get as keywords
    "train_start",  # session
    "epoch_start",  # session, epoch
    "train_batch_end",  # session, epoch, step, batch
    "epoch_end",  # session, epoch, losses, rates, result
    "train_end",  # session, result
)


class Events:
    """``on(name, listener)`` subscribes, ``emit(name, **facts)`` calls the listeners in the order of subscription."""

    def __init__(self) -> None:
        self._listeners: dict[str, list[Callable[..., None]]] = defaultdict(list)

    def on(self, name: str, listener: Callable[..., None]) -> None:
        """Call `listener(**facts)` at each event `name`."""
        if name not in EVENTS:
            raise ValueError(f"no event '{name}'; there are {', '.join(EVENTS)}")
        self._listeners[name].append(listener)

    def subscribe(self, listener: object) -> None:
        """Subscribe every method of `listener` that has the name of an event."""
        for name in EVENTS:
            if hasattr(listener, name):
                self.on(name, getattr(listener, name))

    def emit(self, name: str, **facts: Any) -> None:
        """Call all listeners of event `name` with `facts`."""
        for listener in self._listeners[name]:
            listener(**facts)
