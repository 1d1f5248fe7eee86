"""Bytes of an image file to pixels. All images that come from files are decoded here, within the limit of size."""

from __future__ import annotations

import contextlib
import io
import threading
from pathlib import Path

import cv2
import numpy as np

from utils.data.images.headers import HEAD, BrokenImageError, read_header
from utils.files import read_file

_LARGE = 2**24  # pixels
_one_large = threading.Lock()  # threads decode one large image at a time, so that their memory does not add up


def decode(data: bytes, flags: int = cv2.IMREAD_COLOR) -> np.ndarray:
    """Decode an image file's content `data`, as `cv2.imdecode` does with `flags`.

    Raises `BrokenImageError` for an image that cannot be decoded or has more pixels than `most_pixels`.
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
    """Decode the image file `path`, see `decode`. Raises `OSError` where the file cannot be read."""
    return decode(read_file(path), flags)  # unlike cv2.imread this opens any path on any system
