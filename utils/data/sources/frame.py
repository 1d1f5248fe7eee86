"""One picture on its way to the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Kind = Literal["image", "video", "stream"]


@dataclass(frozen=True)
class Frame:
    """A decoded picture and where it came from.

    `image` is (H, W, 3) uint8 BGR. `path` is the file, the address of the stream or the name of the screen; frames of
    one video or stream share it. `number` counts the source's own frames from 1 and is 0 for a still image, `total` is
    what the container claims, 0 where unknown. `fps` is the rate at which the frames that are *yielded* follow each
    other (the stride is in it). `time` is the moment of capture of a live frame, in seconds of a monotonic clock.
    `place` is what a log line calls it, such as ``image 3/7``.
    """

    path: str
    image: np.ndarray
    kind: Kind = "image"
    number: int = 0
    total: int = 0
    fps: float = 30.0
    time: float | None = None
    place: str = ""


@dataclass(frozen=True)
class Unreadable:
    """Something named by the source that could not be read, or not in full."""

    path: str
    reason: str
