"""Image files: which names count, where a split's pictures lie, and how large a picture is without decoding it."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from utils.errors import UserError

IMG_FORMATS = ("bmp", "dng", "jpeg", "jpg", "mpo", "png", "tif", "tiff", "webp", "pfm")

MIN_SIDE = 10  # pixels; a smaller picture is a broken thumbnail rather than a photograph
_HEAD = 2048  # bytes read first: most files have their size in them
_SOF = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}  # JPEG frame headers (ITU T.81)
_ORIENTATION = 0x0112  # EXIF tag; 5 to 8 swap width and height


class BrokenImageError(Exception):
    """A picture that cannot be used; the text says why."""


def is_image(name: str | Path) -> bool:
    """True where the suffix is one of `IMG_FORMATS`."""
    return str(name).rpartition(".")[2].lower() in IMG_FORMATS


# --- listing ----------------------------------------------------------------------------------------------------------


def list_images(sources: Sequence[str | Path]) -> list[str]:
    """All pictures of `sources`, sorted: folders (with subfolders), ``.txt`` lists, glob patterns, single files.

    A picture that a list names twice is there twice. Raises `UserError` for a source that does not exist or holds none.
    """
    found: list[str] = []
    for source in map(str, sources):
        if os.path.isdir(source):
            part = list(_walk(source))
        elif os.path.isfile(source):
            part = read_list(source) if source.endswith(".txt") else [source]
        elif is_pattern(source):
            part = [name for name in glob.glob(source, recursive=True) if is_image(name)]
        else:
            raise UserError(f"'{source}' does not exist; a split is a folder, a .txt list or a glob pattern of images")
        if not part:
            raise UserError(f"no images in '{source}'; known suffixes: {', '.join(IMG_FORMATS)}")
        found += part
    found.sort()
    return found


def is_pattern(path: str | Path) -> bool:
    """True where `path` has a wildcard and is not itself the name of something on disk."""
    return glob.has_magic(str(path)) and not os.path.exists(path)


def read_list(path: str | Path) -> list[str]:
    """The paths in a ``.txt`` list, one a line.

    ``./x`` is relative to the list's folder. Another relative path is too, if the first of them is found there, and
    otherwise relative to the working directory.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            lines = [line for text in file if (line := text.strip())]
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a UTF-8 list of image paths ({error.reason} at byte {error.start})") from error
    folder = os.path.dirname(os.path.abspath(path))
    plain = next((line for line in lines if not line.startswith("./") and not os.path.isabs(line)), None)
    base = folder if plain is None or os.path.exists(os.path.join(folder, plain)) else os.getcwd()
    return [
        os.path.join(folder, line[2:]) if line.startswith("./") else os.path.normpath(os.path.join(base, line))
        for line in lines
    ]


def _walk(folder: str) -> Iterator[str]:
    """Pictures below `folder`; hidden names are passed over, links to folders followed, loops not."""
    seen: set[str] = set()
    pending = [folder]
    while pending:
        current = pending.pop()
        if (real := os.path.realpath(current)) in seen:
            continue
        seen.add(real)
        with os.scandir(current) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if is_image(entry.name):
                    yield entry.path
                elif entry.is_dir():
                    pending.append(entry.path)


# --- size -------------------------------------------------------------------------------------------------------------


def read_image_size(path: str | Path) -> tuple[int, int]:
    """(height, width) in pixels as the decoder gives them, EXIF orientation applied.

    JPEG and PNG are read from their headers, and their end is looked for, so that a truncated file is found at the
    price of a few kilobytes. Another format is decoded. Raises `BrokenImageError`.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            head = file.read(_HEAD)
            if head.startswith(b"\xff\xd8"):
                size = _jpeg_size(file, head) or _decoded_size(path)
            elif head.startswith(b"\x89PNG\r\n\x1a\n") and b"eXIf" not in head:
                size = _png_size(file, head)
            elif head:
                size = _decoded_size(path)
            else:
                raise BrokenImageError("the file is empty")
    except OSError as error:
        raise BrokenImageError(error.strerror or str(error)) from error
    if min(size) < MIN_SIDE:
        raise BrokenImageError(f"is {size[1]}x{size[0]} pixels, and {MIN_SIDE} a side are the least")
    return size


def _decoded_size(path: str | Path) -> tuple[int, int]:
    import cv2
    import numpy as np

    image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise BrokenImageError("is not an image that OpenCV can decode")
    return int(image.shape[0]), int(image.shape[1])


def _png_size(file: BinaryIO, head: bytes) -> tuple[int, int]:
    if len(head) < 33 or head[12:16] != b"IHDR":
        raise BrokenImageError("is a PNG without a header")
    file.seek(-8, os.SEEK_END)
    if file.read(4) != b"IEND":
        file.seek(0)
        if b"IEND" not in file.read()[33:]:
            raise BrokenImageError("is a truncated PNG")
    return int.from_bytes(head[20:24], "big"), int.from_bytes(head[16:20], "big")


def _jpeg_size(file: BinaryIO, head: bytes) -> tuple[int, int] | None:
    """Walk the marker segments up to the scan data: a frame header has the size, APP1 may have the orientation.

    None for a file in whose headers something else stands, which decoders may forgive.
    """

    def read(start: int, count: int) -> bytes:
        if start + count <= len(head):
            return head[start : start + count]
        file.seek(start)
        return file.read(count)

    position, size, turned = 2, None, None
    while True:
        segment = read(position, 4)
        if len(segment) < 4:
            raise BrokenImageError("is a truncated JPEG")
        if segment[0] != 0xFF:
            return None
        marker = segment[1]
        if marker == 0xFF or marker == 0x01 or 0xD0 <= marker <= 0xD8:  # fill byte, or a marker without content
            position += 1 if marker == 0xFF else 2
            continue
        length = int.from_bytes(segment[2:4], "big")
        if marker in _SOF:
            frame = read(position + 4, 5)
            size = int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big")
        elif marker == 0xE1 and turned is None and read(position + 4, 6) == b"Exif\0\0":
            turned = _exif_orientation(read(position + 10, length - 8)) >= 5
        elif marker in (0xDA, 0xD9):  # start of scan, end of image
            break
        position += 2 + length
    if size is None or not all(size):
        return None
    file.seek(-2, os.SEEK_END)
    if file.read(2) != b"\xff\xd9":  # an end marker somewhere before trailing bytes is good as well
        file.seek(position)
        if b"\xff\xd9" not in file.read():
            raise BrokenImageError("is a truncated JPEG")
    return size[::-1] if turned else size


def _exif_orientation(tiff: bytes) -> int:
    """The orientation (1 to 8) in an EXIF block; 1 where it has none or is malformed."""
    order = {b"II": "little", b"MM": "big"}.get(tiff[:2])
    if order is None:
        return 1

    def number(start: int, count: int) -> int:
        return int.from_bytes(tiff[start : start + count], order)  # type: ignore[arg-type]

    directory = number(4, 4)
    for entry in range(directory + 2, directory + 2 + 12 * number(directory, 2), 12):
        if entry + 12 > len(tiff):
            break
        if number(entry, 2) == _ORIENTATION:
            return number(entry + 8, 2) if 1 <= number(entry + 8, 2) <= 8 else 1
    return 1
