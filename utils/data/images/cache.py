"""All pictures of a data set, decoded once: in RAM or as files that need no decoding (``--cache ram|disk``)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from utils.data.images.memory import SharedBytes, available_memory
from utils.data.images.reader import ImageFiles, Images
from utils.data.indexing.cache import from_npy
from utils.errors import UserError
from utils.files import atomic_write, read_file
from utils.logging import LOGGER
from utils.progress import Progress

MARGIN = 1.1  # memory that must be free, for each byte needed
_MIB, _GIB = 2**20, 2**30
_NPY_HEADER = 128  # bytes in front of the pixels of a picture in a .npy file


def cached(files: ImageFiles, kind: str, prefix: str = "") -> Images:
    """`files` behind the cache `kind`: "ram", "disk" or "" (none). Not enough room is told and means no cache."""
    if kind in ("", "none", None, False):
        return files
    if kind not in ("ram", "disk", True):
        raise UserError(f"--cache takes ram or disk, not '{kind}'")
    if kind == "disk":
        return DiskCache(files, prefix) if _fits_on_disk(files, prefix) else files
    needed, available = int(files.stored.prod(1).sum()) * 3, available_memory()
    if available is not None and needed * MARGIN > available:
        LOGGER.warning(
            f"{prefix}images are not cached in RAM: they need {needed * MARGIN / _GIB:.1f} GiB, "
            f"{available / _GIB:.1f} GiB are available; try --cache disk"
        )
        return files
    return RamCache(files, prefix)


class RamCache:
    """All images end to end in one block of memory, which workers share."""

    def __init__(self, files: ImageFiles, prefix: str = "") -> None:
        self._sizes = files.stored
        self._starts = np.concatenate(([0], np.cumsum(self._sizes.prod(1) * 3)))
        self._bytes = SharedBytes(int(self._starts[-1]))

        def fill(i: int) -> None:
            self.read(i)[...] = files.read(i)

        _for_all(fill, len(self._sizes), f"{prefix}caching images ({self._starts[-1] / _GIB:.1f} GiB RAM)")

    def read(self, i: int) -> np.ndarray:
        """Image i, a view."""
        height, width = self._sizes[i].tolist()
        return self._bytes.array[self._starts[i] : self._starts[i + 1]].reshape(height, width, 3)


class DiskCache:
    """Each image as a ``.npy`` file in a hidden folder beside it, made anew when the image is younger."""

    def __init__(self, files: ImageFiles, prefix: str = "") -> None:
        self.files = files
        self._folder = f".cache-{'x'.join(map(str, files.imgsz))}-{'train' if files.training else 'val'}"
        _for_all(self._make, len(files.index), f"{prefix}caching images (disk)")

    def path(self, i: int) -> Path:
        """The file of image i."""
        image = Path(self.files.index.path(i))
        return image.parent / self._folder / f"{image.name}.npy"

    def read(self, i: int) -> np.ndarray:
        """Image i; decoded if the cache file is gone or does not fit."""
        try:
            image = from_npy(read_file(self.path(i)))
        except (OSError, ValueError):
            return self.files.read(i)
        fits = image.dtype == np.uint8 and image.shape == (*self.files.stored[i], 3)
        return image if fits else self.files.read(i)

    def _make(self, i: int) -> None:
        path = self.path(i)
        try:
            if os.path.isfile(path) and path.stat().st_mtime >= os.stat(self.files.index.path(i)).st_mtime:
                if path.stat().st_size == _NPY_HEADER + int(self.files.stored[i].prod()) * 3:
                    return
                LOGGER.info(f"{path} is damaged and is made anew")
            path.parent.mkdir(exist_ok=True)
            with atomic_write(path) as file:
                np.save(file, self.files.read(i))
        except OSError as error:
            raise UserError(f"cannot cache images in '{path.parent}': {error.strerror}; leave out --cache") from error


def _fits_on_disk(files: ImageFiles, prefix: str) -> bool:
    needed = int(files.stored.prod(1).sum()) * 3
    free = shutil.disk_usage(Path(files.index.path(0)).parent).free
    if needed * MARGIN > free:
        LOGGER.warning(
            f"{prefix}images are not cached on disk: they need up to {needed * MARGIN / _MIB:.0f} MiB, "
            f"{free / _MIB:.0f} MiB are free"
        )
    return needed * MARGIN <= free


def _for_all(work: Callable[[int], None], count: int, description: str) -> None:
    """`work` for 0 to `count`, in threads (decoding lets go of Python's lock)."""
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    try:
        for _ in Progress(pool.map(work, range(count)), description, count, unit="images"):
            pass
    finally:
        pool.shutdown(cancel_futures=True)
