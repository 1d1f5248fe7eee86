"""Reads image files of any camera or tool, and writes images under any name."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import cv2
import numpy as np

from utils.data.images.decode import decode
from utils.data.images.headers import HEAD, BrokenImageError, check_png, read_header
from utils.errors import UserError
from utils.files import atomic_write, read_file

_MOST_SIDE = {".jpg": 65500, ".jpeg": 65500, ".webp": 16383}  # the most pixels per side that an encoder takes


class UnreadableImage(Exception):
    """The file is not an image, or not a complete one. The text is the reason, without the path."""


def read_image(path: str | Path) -> np.ndarray:
    """Read the image file `path` as (H, W, 3) uint8 BGR, turned upright according to its EXIF orientation.

    Grey, 16-bit, float, palette and alpha images become 8-bit colour images. Any path that Python can open works, on
    Windows too, because the bytes are read here and not by OpenCV. Raises `UnreadableImage` for a missing,
    empty or undecodable file and for a truncated JPEG, which OpenCV alone would fill up with grey.
    """
    try:
        data = read_file(path)
        if data.startswith(b"\x89PNG"):
            check_png(data)
    except OSError as error:
        raise UnreadableImage(error.strerror or str(error)) from error
    except BrokenImageError as error:
        raise UnreadableImage(str(error)) from error
    if data[:2] == b"\xff\xd8" and data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda"):  # no end after the last scan
        return _read_with_pil(data)  # tells a cut file from one with something appended
    image = _decode(data)
    return _read_with_pil(data) if image is None else image


def _decode(data: bytes) -> np.ndarray | None:
    """Decode with OpenCV. Returns None if it cannot; the caller then tries the second decoder."""
    try:
        header = read_header(io.BytesIO(data), data[:HEAD])
    except BrokenImageError as error:
        raise UnreadableImage(str(error)) from error
    # a portable float map, read as 8 bits, would be black; TIFFs of 32-bit samples are refused in the 8-bit mode only
    for flags in (cv2.IMREAD_COLOR, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)[header.format == "pfm" :]:
        with contextlib.suppress(BrokenImageError):
            return _to_8_bits(decode(data, flags))
    return None


def _to_8_bits(image: np.ndarray) -> np.ndarray:
    """Convert to 8 bits: integers by their high byte, floats from 0..1, or from 0..their maximum if that is above 1."""
    if image.dtype == np.uint8:
        return image
    if image.dtype == np.uint16:
        return (image >> 8).astype(np.uint8)
    image = np.nan_to_num(image.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    return (image * (255 / max(1.0, float(image.max(initial=0.0))))).clip(0, 255).astype(np.uint8)


def _read_with_pil(data: bytes) -> np.ndarray:
    """Decode with Pillow, which is slower, and has more formats and better error messages."""
    import warnings

    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks on odd metadata
            with Image.open(io.BytesIO(data)) as picture:
                upright = ImageOps.exif_transpose(picture)
                if upright.mode == "F" or upright.mode.startswith("I"):  # convert() would clip these instead of scaling
                    return np.dstack([_to_8_bits(np.asarray(upright))] * 3)
                return np.ascontiguousarray(np.asarray(upright.convert("RGB"))[..., ::-1])
    except Image.UnidentifiedImageError as error:
        raise UnreadableImage("not an image, or of a format that cannot be read") from error
    except Exception as error:  # decoders raise all sorts on damaged data: OSError, SyntaxError, struct.error, …
        raise UnreadableImage(str(error).split("\n")[0] or type(error).__name__) from error


def write_image(path: str | Path, image: np.ndarray, quality: int = 95) -> Path:
    """Write `image` (H, W, 3) or (H, W) uint8 BGR to `path` in the format of its suffix. Returns the path written.

    A suffix that cannot be encoded becomes ``.jpg``, and one whose format cannot have so many pixels per side becomes
    ``.png``. A file that cannot be written completely is not written at all. Raises `UserError` if a folder is in the
    way or the format cannot hold the image, and `OSError` with the path.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix in (".dng", ".mpo", ".pfm", "") or not cv2.haveImageWriter(f"x{suffix}"):
        path = path.with_suffix(".jpg")
        suffix = ".jpg"
    if max(image.shape[:2]) > _MOST_SIDE.get(suffix, 2**31):
        path = path.with_suffix(".png")
        suffix = ".png"
    flags = [cv2.IMWRITE_JPEG_QUALITY, quality] if suffix in (".jpg", ".jpeg") else []
    try:
        done, data = cv2.imencode(suffix, image, flags)
    except cv2.error:  # too wide or too high for the format
        done = False
    if not done:
        raise UserError(f"cannot write '{path}': an image of {image.shape[1]}x{image.shape[0]} is no {suffix} file")
    with atomic_write(path, durable=False) as file:
        file.write(data)
    return path
