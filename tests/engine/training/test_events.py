"""The event bus."""

from __future__ import annotations

import pytest

from engine.training.events import Events


class Listener:
    def __init__(self) -> None:
        self.heard: list[tuple[str, dict]] = []

    def epoch_start(self, **facts: object) -> None:
        self.heard.append(("epoch_start", facts))

    def train_end(self, **facts: object) -> None:
        self.heard.append(("train_end", facts))


def test_listeners_hear_their_events_only() -> None:
    events, listener = Events(), Listener()
    events.subscribe(listener)
    events.emit("train_start", session=None)
    events.emit("epoch_start", session=None, epoch=1)
    events.emit("train_end", session=None, result=2)
    assert [name for name, _ in listener.heard] == ["epoch_start", "train_end"]
    assert listener.heard[0][1] == {"session": None, "epoch": 1}


def test_unknown_event() -> None:
    with pytest.raises(ValueError, match="no event 'epoch_begin'"):
        Events().on("epoch_begin", print)
