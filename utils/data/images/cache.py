"""Caches of all decoded images of a data set: in RAM, or as files that need no decoding (``--cache ram|disk``)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from utils.data.images.memory import MachineBytes, SharedBytes, available_memory, machine_bytes
from utils.data.images.reader import ImageFiles, Images
from utils.data.indexing.cache import from_npy
from utils.distributed import barrier, machine_gather, rank
from utils.errors import UserError
from utils.files import atomic_write, read_file
from utils.logging import LOGGER
from utils.progress import Progress

MARGIN = 1.1  # bytes that must be free for each byte that is needed
_MIB, _GIB = 2**20, 2**30
_NPY_HEADER = 128  # bytes in front of the pixels of an image in a .npy file


def cached(files: ImageFiles, kind: str, prefix: str = "", shared: bool = False) -> Images:
    """Put the cache `kind` ("ram", "disk" or "" for none) before `files`. Without enough room for it there is none.

    With `shared` all processes that train together call this at once. Those on one machine fill one cache together. If
    they cannot share memory, each has a cache of its own, provided that there is room for all of them.
    """
    if kind in ("", "none", None, False):
        return files
    if kind not in ("ram", "disk", True):
        raise UserError(f"--cache takes ram or disk, not '{kind}'")
    processes = machine_gather(rank()) if shared else [rank()]
    part = slice(processes.index(rank()), None, len(processes))
    if kind == "disk":
        images: Images = DiskCache(files, prefix, part) if _fits_on_disk(files, prefix) else files
    elif shared:
        images = _shared_in_memory(files, prefix, part)
    else:
        images = RamCache(files, prefix) if _fits_in_memory(_needed(files), available_memory(), prefix) else files
    if shared:
        barrier()  # the others have done their parts
    return images


def _shared_in_memory(files: ImageFiles, prefix: str, part: slice) -> Images:
    """A cache of which this process fills `part`. All processes take the same steps, whatever their machines allow."""
    needed = _needed(files)
    available = machine_gather(available_memory())[0]  # measured once, so that all processes of a machine decide alike
    fits = _fits_in_memory(needed, available, prefix)
    block = machine_bytes(needed if fits else 0)
    if block is not None:
        return RamCache(files, prefix, block, part)
    return RamCache(files, prefix) if fits and _fits_in_memory(needed * part.step, available, prefix) else files


class RamCache:
    """All images end to end in one block of memory, which workers share.

    If other processes fill the same `block`, this one fills only its `part` of the images.
    """

    def __init__(
        self, files: ImageFiles, prefix: str = "", block: MachineBytes | None = None, part: slice = slice(None)
    ) -> None:
        self._sizes = files.stored
        self._starts = np.concatenate(([0], np.cumsum(self._sizes.prod(1) * 3)))
        self._bytes = block or SharedBytes(int(self._starts[-1]))

        def fill(i: int) -> None:
            self.read(i)[...] = files.read(i)

        text = f"{prefix}caching images ({self._starts[-1] / _GIB:.1f} GiB RAM)"
        _for_all(fill, range(len(self._sizes))[part], text)

    def read(self, i: int) -> np.ndarray:
        """Image i, as a view."""
        height, width = self._sizes[i].tolist()
        return self._bytes.array[self._starts[i] : self._starts[i + 1]].reshape(height, width, 3)


class DiskCache:
    """Each image as a ``.npy`` file in a hidden folder beside it. It is made anew if the image is younger.

    This process makes `part` of the files, and others make the rest.
    """

    def __init__(self, files: ImageFiles, prefix: str = "", part: slice = slice(None)) -> None:
        self.files = files
        self._folder = f".cache-{'x'.join(map(str, files.imgsz))}-{'train' if files.training else 'val'}"
        _for_all(self._make, range(len(files.index))[part], f"{prefix}caching images (disk)")

    def path(self, i: int) -> Path:
        """The cache file of image i."""
        image = Path(self.files.index.path(i))
        return image.parent / self._folder / f"{image.name}.npy"

    def read(self, i: int) -> np.ndarray:
        """Image i. It is decoded if its cache file is gone or does not fit."""
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


def _needed(files: ImageFiles) -> int:
    return int(files.stored.prod(1).sum()) * 3


def _fits_in_memory(needed: int, available: int | None, prefix: str) -> bool:
    if available is not None and needed * MARGIN > available:
        LOGGER.warning(
            f"{prefix}images are not cached in RAM: they need {needed * MARGIN / _GIB:.1f} GiB, "
            f"{available / _GIB:.1f} GiB are available; try --cache disk"
        )
        return False
    return True


def _fits_on_disk(files: ImageFiles, prefix: str) -> bool:
    needed = _needed(files)
    free = shutil.disk_usage(Path(files.index.path(0)).parent).free
    if needed * MARGIN > free:
        LOGGER.warning(
            f"{prefix}images are not cached on disk: they need up to {needed * MARGIN / _MIB:.0f} MiB, "
            f"{free / _MIB:.0f} MiB are free"
        )
    return needed * MARGIN <= free


def _for_all(work: Callable[[int], None], numbers: range, description: str) -> None:
    """Call `work` for all `numbers` in threads, as decoding releases Python's lock."""
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    try:
        for _ in Progress(pool.map(work, numbers), description, len(numbers), unit="images"):
            pass
    finally:
        pool.shutdown(cancel_futures=True)
