"""A frame: one image on its way to the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Kind = Literal["image", "video", "stream"]


@dataclass(frozen=True)
class Frame:
    """A decoded image and where it came from.

    `image` is (H, W, 3) uint8 BGR. `path` is the file, the address of the stream or the name of the screen; all frames
    of one video or stream have the same. `number` counts the frames of the source from 1 and is 0 for a still image.
    `total` is the number of frames that the container claims, 0 if unknown. `fps` is the rate of the frames that are
    yielded, so it depends on the stride. `time` is the moment of capture of a live frame, in seconds of a monotonic
    clock. `place` is how a log line names the frame, such as ``image 3/7``.
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
    """An entry of the source that could not be read, or not completely."""

    path: str
    reason: str
