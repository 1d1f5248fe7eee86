"""Where a data set's pixels come from: its files. Caches have the same `read`."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from utils.ops.letterbox import fit_sizes
from utils.data.images.decode import read_for_training, read_for_validation
from utils.data.indexing.index import ImageIndex


class Images(Protocol):
    """Anything that gives image i as (h, w, 3) uint8 BGR, not to be written to."""

    def read(self, i: int) -> np.ndarray:
        """Image i. Raises `UserError` if its file cannot be read."""
        ...


class ImageFiles:
    """Decodes files at the size that fits the network's input.

    For training images are never enlarged (see `read_for_training`); for validation they have exactly that size, by
    YOLOv5's resampling.
    """

    def __init__(self, index: ImageIndex, imgsz: tuple[int, int], training: bool) -> None:
        self.index = index
        self.imgsz = imgsz
        self.training = training
        self.fitted = fit_sizes(index.shapes, imgsz)  # (n, 2): what an image counts as

    @property
    def stored(self) -> np.ndarray:
        """(n, 2) int64: (height, width) of what `read` gives."""
        return np.minimum(self.fitted, self.index.shapes) if self.training else self.fitted

    def read(self, i: int) -> np.ndarray:
        shape, size = tuple(self.index.shapes[i].tolist()), tuple(self.fitted[i].tolist())
        read = read_for_training if self.training else read_for_validation
        return read(self.index.path(i), shape, size)
