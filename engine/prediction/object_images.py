"""Images of single objects: crops, and masks as images that programs read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from utils.data.sources.image_io import write_image
from utils.files import make_folder
from utils.ops.class_names import class_name, folder_name
from utils.ops.masks import BoxMask, paste_mask
from utils.plots.crops import crop_region

if TYPE_CHECKING:
    from engine.prediction.outputs import FrameResult


class CropFiles:
    """Writes ``crops/CLASS/NAME.jpg`` for every detection; the second one of a name is ``NAME2``, and so on.

    A number is skipped if it gives a name that was written for another frame: ``clip_12`` is frame 12 as well as the
    second crop of frame 1. With masks, crops are ``NAME.png`` with the mask as alpha channel. An empty mask has none.
    """

    def __init__(self, folder: Path, names: Mapping[int, str]) -> None:
        self._folder = folder
        self._names = names
        self._written: set[Path] = set()

    def write(self, result: FrameResult, annotated: np.ndarray | None) -> None:
        suffix = ".jpg" if result.masks is None else ".png"
        for i, cls in enumerate(result.classes.tolist()):
            crop = _crop(result, i)
            if crop is None:
                continue
            folder = self._folder / folder_name(class_name(self._names, cls))
            path, number = folder / f"{result.frame_name}{suffix}", 1
            while path in self._written:
                number += 1
                path = folder / f"{result.frame_name}{number}{suffix}"
            self._written.add(path)
            make_folder(folder)
            write_image(path, np.ascontiguousarray(crop))

    def close(self) -> None:
        """Nothing is kept open."""


def _crop(result: FrameResult, index: int) -> np.ndarray | None:
    """(h, w, 3) uint8 BGR around detection `index`, (h, w, 4) with its mask; None if it would show nothing."""
    image = result.frame.image
    region = crop_region((image.shape[0], image.shape[1]), result.boxes[index])
    crop = region.of(image)
    if result.masks is None:
        return crop if crop.size else None
    left, top, pixels = result.masks[index]
    if not pixels.any():
        return None
    seen = paste_mask(BoxMask(left - region.left, top - region.top, pixels), (crop.shape[0], crop.shape[1]))
    return np.dstack([crop, seen * np.uint8(255)])


class MaskFiles:
    """Writes ``masks/NAME_classes.png`` and ``masks/NAME_instances.png``; for a video, ``NAME_FRAME_…``.

    A pixel of the first is 1 + the class, a pixel of the second is 1 + the rank of the detection by falling confidence,
    and 0 is background in both. Where masks overlap, the most confident one is on top. Pixels have 8 bits, or 16 if the
    model has more than 255 classes (first file) or the frame more than 255 detections (second file). A frame without
    detections gets both files, filled with 0.
    """

    def __init__(self, folder: Path, names: Mapping[int, str]) -> None:
        self._folder = make_folder(folder)
        self._class_type = _least_type(1 + max(names, default=0))

    def write(self, result: FrameResult, annotated: np.ndarray | None) -> None:
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
    """The smaller of the two pixel types of a PNG that can hold `largest`."""
    return np.uint8 if largest <= np.iinfo(np.uint8).max else np.uint16
