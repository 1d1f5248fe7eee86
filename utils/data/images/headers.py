"""Reads from the header of an image file its format and the size that it has when decoded."""

from __future__ import annotations

import os
import re
import zlib
from typing import IO, NamedTuple

from utils.errors import UserError

MOST_PIXELS = 180_000_000  # an image of 13416 x 13416 pixels; decoding takes up to 6 bytes for each
HEAD = 2048  # bytes that `read_header` is given; most files have their size in them

_VARIABLE = "YOLOv5_MAX_IMAGE_PIXELS"
_SOF = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}  # JPEG frame headers (ITU T.81)
_ORIENTATION = 0x0112  # EXIF tag; 5 to 8 swap width and height
_PFM = re.compile(rb"P[Ff]\s+(\d{1,9})\s+(\d{1,9})\s")


class BrokenImageError(Exception):
    """An image that cannot be used. The text says why, and is to be put behind the name of the file."""


class Header(NamedTuple):
    """`size` is (height, width) when decoded, None if only decoding tells; `end` is where the scan of a JPEG begins."""

    format: str  # jpeg, png, tiff, bmp, webp, pfm or another
    size: tuple[int, int] | None
    end: int = 0


def most_pixels() -> int:
    """How many pixels an image may have: `MOST_PIXELS`, or the environment variable ``YOLOv5_MAX_IMAGE_PIXELS``."""
    given = os.environ.get(_VARIABLE)
    if not given:
        return MOST_PIXELS
    if not given.isdecimal() or int(given) < 1:
        raise UserError(f"the environment variable {_VARIABLE} is a number of pixels, not '{given}'")
    return int(given)


def read_header(file: IO[bytes], head: bytes) -> Header:
    """Read the header of an open image file whose first `HEAD` bytes are `head`.

    Only a few kilobytes are read, however large the file is. Raises `BrokenImageError` for an empty file, an unknown
    format, and an image without pixels or with more than `most_pixels`.
    """
    if not head:
        raise BrokenImageError("is an empty file")
    if head.startswith(b"\xff\xd8"):
        header = _jpeg(file, head)
    elif head.startswith(b"\x89PNG\r\n\x1a\n"):
        if len(head) < 33 or head[12:16] != b"IHDR":
            raise BrokenImageError("is a PNG without a header")
        header = Header("png", (int.from_bytes(head[20:24], "big"), int.from_bytes(head[16:20], "big")))
    elif head[:4] in (b"II*\0", b"MM\0*"):
        header = Header("tiff", _tiff(file, head))
    elif head.startswith(b"BM"):
        header = Header("bmp", _bmp(head))
    elif head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        header = Header("webp", _webp(head))
    elif match := _PFM.match(head):
        header = Header("pfm", (int(match[2]), int(match[1])))
    else:
        header = _other(file)
    if header.size is not None:
        height, width = header.size
        if height < 1 or width < 1:
            raise BrokenImageError(f"claims {width}x{height} pixels")
        if height * width > (most := most_pixels()):
            mend = f"set the environment variable {_VARIABLE} to allow it"
            raise BrokenImageError(f"claims {width}x{height} pixels, more than {most}; {mend}")
    return header


def _jpeg(file: IO[bytes], head: bytes) -> Header:
    """Walk the marker segments up to the scan data: a frame header has the size, APP1 may have the orientation.

    The header has no size if there is anything else between the segments, which decoders may forgive.
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
            return Header("jpeg", size, position)
        marker = segment[1]
        if marker == 0xFF or marker == 0x01 or 0xD0 <= marker <= 0xD8:  # fill byte, or a marker without content
            position += 1 if marker == 0xFF else 2
            continue
        length = int.from_bytes(segment[2:4], "big")
        if marker in _SOF:
            frame = read(position + 4, 5)
            size = int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big")
        elif marker == 0xE1 and turned is None and read(position + 4, 6) == b"Exif\0\0":
            exif = read(position + 10, length - 8)
            orientation = _tiff_entries(exif, (_ORIENTATION,)).get(_ORIENTATION, 1)
            turned = 5 <= orientation <= 8
        elif marker in (0xDA, 0xD9):  # start of scan, end of image
            break
        position += 2 + length
    if size is None or not all(size):
        return Header("jpeg", None, position)
    return Header("jpeg", size[::-1] if turned else size, position)


def _tiff(file: IO[bytes], head: bytes) -> tuple[int, int]:
    """The size in the first directory, which may be anywhere in the file."""
    order = "little" if head.startswith(b"II") else "big"
    start = int.from_bytes(head[4:8], order)  # type: ignore[arg-type]
    file.seek(start)
    directory = file.read(2 + 12 * 512)
    entries = _tiff_entries(head[:4] + (8).to_bytes(4, order) + directory, (256, 257))  # type: ignore[arg-type]
    if len(entries) < 2:
        raise BrokenImageError("is a TIFF without a size")
    return entries[257], entries[256]


def _tiff_entries(tiff: bytes, tags: tuple[int, ...]) -> dict[int, int]:
    """The whole numbers under `tags` in the first directory of a TIFF or EXIF block, without malformed ones."""
    order = {b"II": "little", b"MM": "big"}.get(tiff[:2])
    if order is None:
        return {}

    def number(start: int, count: int) -> int:
        return int.from_bytes(tiff[start : start + count], order)  # type: ignore[arg-type]

    found: dict[int, int] = {}
    directory = number(4, 4)
    for entry in range(directory + 2, directory + 2 + 12 * number(directory, 2), 12):
        if entry + 12 > len(tiff):
            break
        if (tag := number(entry, 2)) in tags:
            found.setdefault(tag, number(entry + 8, 2 if number(entry + 2, 2) == 3 else 4))  # type 3: 16 bits
    return found


def _bmp(head: bytes) -> tuple[int, int]:
    """The size; a negative height means that the rows begin at the top."""
    short = int.from_bytes(head[14:18], "little") == 12  # the oldest header has 16 bits for each side
    sides = (head[20:22], head[18:20]) if short else (head[22:26], head[18:22])
    height, width = (int.from_bytes(side, "little", signed=not short) for side in sides)
    return abs(height), abs(width)


def _webp(head: bytes) -> tuple[int, int] | None:
    """The size in the lossy, the lossless and the extended form."""
    kind, bits = head[12:16], int.from_bytes(head[21:25], "little")
    if kind == b"VP8 ":
        return int.from_bytes(head[28:30], "little") & 0x3FFF, int.from_bytes(head[26:28], "little") & 0x3FFF
    if kind == b"VP8L":
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    if kind == b"VP8X":
        return int.from_bytes(head[27:30], "little") + 1, int.from_bytes(head[24:27], "little") + 1
    raise BrokenImageError("is a WebP without a size")


def _other(file: IO[bytes]) -> Header:
    """The header of another format. Pillow knows many, and has a limit of its own for the size."""
    import warnings

    from PIL import Image

    file.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(file) as picture:
                return Header(str(picture.format).lower(), (picture.height, picture.width))
    except Image.DecompressionBombError as error:
        raise BrokenImageError(f"claims too many pixels ({error})") from error
    except Exception as error:  # readers of headers raise all sorts on damaged data
        raise BrokenImageError("is not an image of a known format") from error


# --- whether all of a file is there -----------------------------------------------------------------------------------


def check_jpeg_end(file: IO[bytes], start: int) -> None:
    """Raise `BrokenImageError` for a JPEG without an end marker after its scan, which begins at `start`."""
    file.seek(-2, os.SEEK_END)
    if file.read(2) != b"\xff\xd9":  # an end marker somewhere before trailing bytes is good as well
        file.seek(start)
        if b"\xff\xd9" not in file.read():
            raise BrokenImageError("is a truncated JPEG")


def check_png(data: bytes) -> None:
    """Raise `BrokenImageError` for a PNG that ends early or has a chunk with a wrong checksum."""
    view, position, kind = memoryview(data), 8, b""
    while kind != b"IEND":
        length, kind = int.from_bytes(view[position : position + 4], "big"), bytes(view[position + 4 : position + 8])
        end = position + 8 + length
        if end + 4 > len(view):
            raise BrokenImageError("is a truncated PNG")
        is_needed = not kind[:1].islower()  # a decoder passes over a damaged chunk that it can do without
        if is_needed and zlib.crc32(view[position + 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
            name = kind.decode("ascii", errors="replace")
            raise BrokenImageError(f"is a damaged PNG (the checksum of its chunk {name} is wrong)")
        position = end + 4
