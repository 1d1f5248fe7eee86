"""All pictures of a data set, decoded once: in RAM or as files that need no decoding (``--cache ram|disk``)."""

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

MARGIN = 1.1  # memory that must be free, for each byte needed
_MIB, _GIB = 2**20, 2**30
_NPY_HEADER = 128  # bytes in front of the pixels of a picture in a .npy file


def cached(files: ImageFiles, kind: str, prefix: str = "", shared: bool = False) -> Images:
    """`files` behind the cache `kind`: "ram", "disk" or "" (none). Not enough room is told and means no cache.

    `shared`: all processes that train together call this at once. Those of a machine fill one cache, each a part of it;
    where they cannot share memory, each has its own, if there is room for all of these.
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
    """A cache of which this process fills `part`. All take the same steps, whatever is true of each machine."""
    needed = _needed(files)
    available = machine_gather(available_memory())[0]  # of one moment, so that a machine's processes decide alike
    fits = _fits_in_memory(needed, available, prefix)
    block = machine_bytes(needed if fits else 0)
    if block is not None:
        return RamCache(files, prefix, block, part)
    return RamCache(files, prefix) if fits and _fits_in_memory(needed * part.step, available, prefix) else files


class RamCache:
    """All images end to end in one block of memory, which workers share.

    `block` is memory that other processes fill too, all but this process's `part` of the images.
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
        """Image i, a view."""
        height, width = self._sizes[i].tolist()
        return self._bytes.array[self._starts[i] : self._starts[i + 1]].reshape(height, width, 3)


class DiskCache:
    """Each image as a ``.npy`` file in a hidden folder beside it, made anew when the image is younger.

    This process makes `part` of them, others the rest.
    """

    def __init__(self, files: ImageFiles, prefix: str = "", part: slice = slice(None)) -> None:
        self.files = files
        self._folder = f".cache-{'x'.join(map(str, files.imgsz))}-{'train' if files.training else 'val'}"
        _for_all(self._make, range(len(files.index))[part], f"{prefix}caching images (disk)")

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
    """`work` for all `numbers`, in threads (decoding lets go of Python's lock)."""
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    try:
        for _ in Progress(pool.map(work, numbers), description, len(numbers), unit="images"):
            pass
    finally:
        pool.shutdown(cancel_futures=True)
