"""The pictures decoded last, kept while they fit."""

from __future__ import annotations

import numpy as np

from utils.data.images.reader import Images

POOL_BYTES = 128 * 2**20  # of each worker: about 140 pictures of 640 x 480


class Pool:
    """Remembers what was read last, up to `max_bytes`; the oldest goes first.

    A mosaic then costs one decode and not four, if its other images are among those read not long ago. Which these
    are is decided by `utils.data.sampling`; a picture asked for that is not here is simply read again.
    """

    def __init__(self, source: Images, max_bytes: int = POOL_BYTES) -> None:
        self.source = source
        self.max_bytes = max_bytes
        self.nbytes = 0
        self.reads = 0  # of the source
        self._kept: dict[int, np.ndarray] = {}  # in the order of reading

    def read(self, i: int) -> np.ndarray:
        """Image i, from memory if it is there."""
        image = self._kept.get(i)
        if image is None:
            image = self.source.read(i)
            self.reads += 1
            self._keep(i, image)
        return image

    def refresh(self, i: int) -> None:
        """Make image i, if it is here, the youngest: the order of the samples is the order of leaving."""
        if (image := self._kept.pop(i, None)) is not None:
            self._kept[i] = image

    def _keep(self, i: int, image: np.ndarray) -> None:
        self._kept[i] = image
        self.nbytes += image.nbytes
        while self.nbytes > self.max_bytes and len(self._kept) > 1:
            self.nbytes -= self._kept.pop(next(iter(self._kept))).nbytes

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_kept": {}, "nbytes": 0}  # a spawned worker starts its own
