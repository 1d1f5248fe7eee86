"""The detections of one frame, and the file names of what is written about it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.data.sources.files import is_url
from utils.data.sources.frame import Frame
from utils.ops.class_names import describe
from utils.ops.masks import BoxMask


@dataclass(frozen=True)
class FrameResult:
    """The detections of `frame`, by falling confidence.

    `boxes (n, 4) float32` are xyxy in pixels of `frame.image`, `confidences` is (n,) float32, `classes` (n,) int64.
    `masks` are in pixels of `frame.image`, too, or None if the task has none; a mask may be empty. The names of all
    files that are written about the source begin with `name`.
    """

    frame: Frame
    name: str
    boxes: np.ndarray
    confidences: np.ndarray
    classes: np.ndarray
    masks: Sequence[BoxMask] | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def frame_name(self) -> str:
        """`name`, followed by the number of the frame for a video or stream."""
        return self.name if self.frame.kind == "image" else f"{self.name}_{self.frame.number}"

    def summary(self, names: Mapping[int, str]) -> str:
        """``'4 persons, 1 bus'`` in the order of the class numbers."""
        return describe(Counter(self.classes.tolist()), names)


_LONGEST = 100  # characters of a name made from an address, which may contain a long token


class OutputNames:
    """One name per source: files with equal names (in two folders, or ``a.jpg`` and ``a.png``) get different ones."""

    def __init__(self) -> None:
        self._by_path: dict[str, str] = {}
        self._taken: set[str] = set()

    def __getitem__(self, path: str) -> str:
        if path not in self._by_path:
            stem = re.sub(r"[^\w.-]+", "_", path)[-_LONGEST:] if is_url(path) else Path(path).stem
            name, number = stem, 1
            while name.lower() in self._taken:  # some file systems take A and a for the same
                number += 1
                name = f"{stem}-{number}"
            self._taken.add(name.lower())
            self._by_path[path] = name
        return self._by_path[path]
