"""The calibration images, from which converters choose the scales of 8-bit numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from utils.data.indexing.image_files import list_images
from utils.data.sources.image_io import UnreadableImage, read_image
from utils.data.spec import load_dataset
from utils.errors import UserError
from utils.logging import LOGGER
from utils.ops.letterbox import letterbox

COUNT = 200  # images that are used; more change the scales little
LEAST = 100  # fewer images cause a warning


@dataclass(frozen=True)
class CalibrationImages:
    """Images of a data set, letterboxed to the fixed `size` (height, width) of a network, and read one at a time."""

    paths: tuple[str, ...]
    size: tuple[int, int]

    @classmethod
    def of(cls, data: str, size: tuple[int, int], count: int = COUNT) -> CalibrationImages:
        """Take up to `count` images at even distances from the training split of the data set YAML `data`.

        Without a training split they come from the validation split. Raises `UserError` for a data set that is missing.
        """
        spec = load_dataset(data, need=())
        split = "train" if spec.splits.get("train") else "val"
        found = list_images(spec.split(split))
        chosen = np.linspace(0, len(found) - 1, min(count, len(found))).astype(int)
        if len(chosen) < LEAST:
            LOGGER.warning(
                f"{data} has only {len(chosen)} '{split}' images for calibration; {LEAST} or more are advised"
            )
        return cls(tuple(found[i] for i in chosen), size)

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[Tensor]:
        """Images (1, 3, H, W), float RGB 0..1, letterboxed."""
        for path in self.paths:
            try:
                image = letterbox(read_image(path), self.size, auto=False).image
            except UnreadableImage as error:
                raise UserError(f"{path}: {error}; calibration needs images that can be read") from error
            yield torch.from_numpy(image[..., ::-1].transpose(2, 0, 1).copy()).float().div_(255)[None]
