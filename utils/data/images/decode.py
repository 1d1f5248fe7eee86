"""Image files to pixels, at the size that training or validation wants."""

from __future__ import annotations

import contextlib
import io
import threading
from pathlib import Path

import cv2
import numpy as np

from utils.data.images.headers import HEAD, BrokenImageError, read_header
from utils.errors import UserError
from utils.files import read_file

_REDUCED = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}
_JPEG = ("jpg", "jpeg", "mpo")  # only these decode at reduced scale for less work
_LARGE = 2**24  # pixels
_one_large = threading.Lock()  # threads decode one large picture at a time, so that their memory does not add up


def decode(data: bytes, flags: int = cv2.IMREAD_COLOR) -> np.ndarray:
    """The picture in `data`, as `cv2.imdecode` gives it with `flags`.

    Every picture that comes from a file is decoded here. Raises `BrokenImageError` for one that cannot be decoded or
    has more pixels than `most_pixels`.
    """
    size = read_header(io.BytesIO(data), data[:HEAD]).size
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # its remarks on broken files; ours name the file
    with _one_large if size is None or size[0] * size[1] > _LARGE else contextlib.nullcontext():
        try:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        except cv2.error as error:
            raise BrokenImageError(f"cannot be decoded ({error.err})") from error
    if image is None:
        raise BrokenImageError("is not an image that OpenCV can decode")
    return image


def decode_file(path: str | Path, flags: int = cv2.IMREAD_COLOR) -> np.ndarray:
    """The picture in the file `path`, see `decode`. Raises `OSError` where the file cannot be read."""
    return decode(read_file(path), flags)  # unlike cv2.imread this opens any path on any system


def read_image(path: str, reduction: int = 1) -> np.ndarray:
    """(h, w, 3) uint8 BGR, EXIF orientation applied, sides divided by `reduction` (1, 2, 4, 8) while decoding.

    Raises `UserError` that names the file if it is gone or broken.
    """
    try:
        return decode_file(path, _REDUCED.get(reduction, cv2.IMREAD_COLOR))
    except OSError as error:
        raise UserError(f"cannot read image '{path}': {error.strerror}") from error
    except BrokenImageError as error:
        raise UserError(
            f"cannot decode image '{path}': it {error}; mend or remove it, and delete the label cache"
        ) from error


def read_for_training(path: str, shape: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """The image, whose file holds `shape` (height, width), at `size` or, if the file has less, as it is.

    Large JPEGs are decoded at reduced scale. Nothing is enlarged: the warp that follows does that in passing.
    """
    reduction = 1
    if path.rpartition(".")[2].lower() in _JPEG:
        reduction = next((r for r in (8, 4, 2) if shape[0] >= r * size[0] and shape[1] >= r * size[1]), 1)
    image = read_image(path, reduction)
    if reduction == 1 and image.shape[:2] != shape:
        raise UserError(_changed(path, image.shape, shape))
    return shrink(image, size) if shape[0] > size[0] or shape[1] > size[1] else image


def read_for_validation(path: str, shape: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """The image, whose file holds `shape`, resampled to `size`: by area if that is smaller, else bilinear (YOLOv5)."""
    image = read_image(path)
    if image.shape[:2] != shape:
        raise UserError(_changed(path, image.shape, shape))
    if shape == size:
        return image
    smaller = size[0] < shape[0] or size[1] < shape[1]
    interpolation = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    return cv2.resize(image, (size[1], size[0]), interpolation=interpolation)


def shrink(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """`image` at the smaller `size`: halved exactly as often as possible, the rest bilinear (fast, no aliasing)."""
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
