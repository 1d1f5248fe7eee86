"""Masks as pictures that programs read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from engine.prediction.result import Result
from utils.data.sources.image_io import write_image
from utils.files import make_folder


class MaskFiles:
    """``masks/NAME_classes.png`` and ``masks/NAME_instances.png``; for a video ``NAME_FRAME_…``.

    A pixel of the first is 1 + the class, of the second 1 + the place of the detection by falling confidence; 0 is
    background in both, and where masks overlap the surest lies on top. 8 bits, 16 where the model has more than 255
    classes (first) or the picture more than 255 detections (second). A picture without detections has both, all 0.
    """

    def __init__(self, folder: Path, names: Mapping[int, str]) -> None:
        self._folder = make_folder(folder)
        self._class_type = _least_type(1 + max(names, default=0))

    def write(self, result: Result, picture: np.ndarray | None) -> None:
        masks = result.masks or ()
        instances = np.zeros(result.frame.image.shape[:2], _least_type(len(masks)))
        for number in range(len(masks), 0, -1):
            left, top, pixels = masks[number - 1]
            instances[top : top + pixels.shape[0], left : left + pixels.shape[1]][pixels] = number
        values = np.concatenate(([0], result.classes + 1)).astype(self._class_type)
        write_image(self._folder / f"{result.frame_name}_classes.png", values[instances])
        write_image(self._folder / f"{result.frame_name}_instances.png", instances)

    def close(self) -> None:
        """Nothing is kept open."""


def _least_type(largest: int) -> type[np.unsignedinteger]:
    """The smaller of the two pixel types of a PNG that holds `largest`."""
    return np.uint8 if largest <= np.iinfo(np.uint8).max else np.uint16
