"""Where the pixels of a data set come from: its files, at the size that fits the network, and the images read last."""

from __future__ import annotations

from typing import Protocol

import cv2
import numpy as np

from utils.data.images.decode import decode_file
from utils.data.images.headers import BrokenImageError
from utils.data.indexing.index import ImageIndex
from utils.errors import UserError
from utils.ops.letterbox import fit_sizes

POOL_BYTES = 128 * 2**20  # of each worker: about 140 images of 640 x 480
_REDUCED = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}
_JPEG = ("jpg", "jpeg", "mpo")  # only for these does decoding at reduced scale save work


class Images(Protocol):
    """Anything that returns image i as (h, w, 3) uint8 BGR, not to be written to: files, a cache, recent images."""

    def read(self, i: int) -> np.ndarray:
        """Image i. Raises `UserError` if its file cannot be read."""
        ...


class RecentImages:
    """Keeps the images that were read last from `source`, up to `max_bytes`; the oldest is dropped first.

    A mosaic then costs one decode and not four, if its other images are among those read not long ago.
    `utils.data.sampling` chooses them so. An image that is not here is simply read again.
    """

    def __init__(self, source: Images, max_bytes: int = POOL_BYTES) -> None:
        self.source = source
        self.max_bytes = max_bytes
        self.nbytes = 0
        self.reads = 0  # from the source
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
        """Make image i, if it is here, the youngest: images are dropped in the order of the samples made of them."""
        if (image := self._kept.pop(i, None)) is not None:
            self._kept[i] = image

    def _keep(self, i: int, image: np.ndarray) -> None:
        self._kept[i] = image
        self.nbytes += image.nbytes
        while self.nbytes > self.max_bytes and len(self._kept) > 1:
            self.nbytes -= self._kept.pop(next(iter(self._kept))).nbytes

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_kept": {}, "nbytes": 0}  # a spawned worker begins with none


class ImageFiles:
    """Reads the images of `index` from their files, at the size that fits the network's input `imgsz`.

    Images for training are never enlarged (see `read_for_training`). Images for validation have exactly that size, by
    YOLOv5's resampling.
    """

    def __init__(self, index: ImageIndex, imgsz: tuple[int, int], training: bool) -> None:
        self.index = index
        self.imgsz = imgsz
        self.training = training
        self.fitted = fit_sizes(index.shapes, imgsz)  # (n, 2): the size that each image stands for

    @property
    def stored(self) -> np.ndarray:
        """(n, 2) int64: (height, width) of the images that `read` returns."""
        return np.minimum(self.fitted, self.index.shapes) if self.training else self.fitted

    def read(self, i: int) -> np.ndarray:
        shape, size = tuple(self.index.shapes[i].tolist()), tuple(self.fitted[i].tolist())
        read = read_for_training if self.training else read_for_validation
        return read(self.index.path(i), shape, size)


def read_for_training(path: str, shape: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """Read an image at `size`, or at the `shape` (height, width) of its file if that is smaller.

    Large JPEGs are decoded at reduced scale. Nothing is enlarged, because the warp that follows does that in passing.
    """
    reduction = 1
    if path.rpartition(".")[2].lower() in _JPEG:
        reduction = next((r for r in (8, 4, 2) if shape[0] >= r * size[0] and shape[1] >= r * size[1]), 1)
    image = read_reduced(path, reduction)
    if reduction == 1 and image.shape[:2] != shape:
        raise UserError(_changed(path, image.shape, shape))
    return shrink(image, size) if shape[0] > size[0] or shape[1] > size[1] else image


def read_for_validation(path: str, shape: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """Read an image, whose file has `shape`, at `size`: resampled by area to shrink it, else bilinearly (YOLOv5)."""
    image = read_reduced(path)
    if image.shape[:2] != shape:
        raise UserError(_changed(path, image.shape, shape))
    if shape == size:
        return image
    smaller = size[0] < shape[0] or size[1] < shape[1]
    interpolation = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    return cv2.resize(image, (size[1], size[0]), interpolation=interpolation)


def read_reduced(path: str, reduction: int = 1) -> np.ndarray:
    """Read an image as (h, w, 3) uint8 BGR, with its sides divided by `reduction` (1, 2, 4 or 8) while decoding.

    The EXIF orientation is applied. Raises `UserError` with the file's name if it is gone or broken.
    """
    try:
        return decode_file(path, _REDUCED.get(reduction, cv2.IMREAD_COLOR))
    except OSError as error:
        raise UserError(f"cannot read image '{path}': {error.strerror}") from error
    except BrokenImageError as error:
        raise UserError(
            f"cannot decode image '{path}': it {error}; mend or remove it, and delete the label cache"
        ) from error


def shrink(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resample `image` to the smaller `size`, fast and without aliasing: halve it while possible, then bilinearly."""
    height, width = image.shape[:2]
    while height >= 2 * size[0] and width >= 2 * size[1]:
        height, width = height // 2, width // 2
        image = cv2.resize(image[: height * 2, : width * 2], (width, height), interpolation=cv2.INTER_AREA)
    return image if (height, width) == size else cv2.resize(image, (size[1], size[0]))


def _changed(path: str, found: tuple[int, ...], expected: tuple[int, int]) -> str:
    return (
        f"image '{path}' is {found[1]}x{found[0]} pixels, but was {expected[1]}x{expected[0]} when it was indexed; "
        "delete the label cache and start again"
    )
