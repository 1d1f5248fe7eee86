"""Image files: which names they have, how those of a split are found, and how large each is."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from utils.data.images.headers import HEAD, BrokenImageError, check_jpeg_end, check_png, read_header
from utils.errors import UserError
from utils.files import open_file, read_file

IMG_FORMATS = ("bmp", "dng", "jpeg", "jpg", "mpo", "png", "tif", "tiff", "webp", "pfm")

MIN_SIDE = 10  # pixels; a smaller image is a broken thumbnail rather than a photograph


def is_image(name: str | Path) -> bool:
    """Whether the suffix is one of `IMG_FORMATS`."""
    return str(name).rpartition(".")[2].lower() in IMG_FORMATS


# --- listing ----------------------------------------------------------------------------------------------------------


def list_images(sources: Sequence[str | Path]) -> list[str]:
    """All images of `sources`, sorted: of folders (with subfolders), ``.txt`` lists, glob patterns and single files.

    An image that a list names twice is there twice. Raises `UserError` for a source that does not exist or has none.
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
    """Whether `path` has a wildcard and is not itself the name of something on disk."""
    return glob.has_magic(str(path)) and not os.path.exists(path)


def read_list(path: str | Path) -> list[str]:
    """The paths in a ``.txt`` list, one per line.

    ``./x`` is relative to the folder of the list. So are other relative paths if the first of them is found there; else
    they are relative to the working directory.
    """
    try:
        text = read_file(path).decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"cannot read '{path}': {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a UTF-8 list of image paths ({error.reason} at byte {error.start})") from error
    if "\0" in text:
        line_number = text.count("\n", 0, text.index("\0")) + 1
        raise UserError(f"{path}:{line_number}: not a list of image paths: no file name holds a NUL character")
    lines = [line for row in re.split(r"[\r\n]+", text) if (line := row.strip())]
    folder = os.path.dirname(os.path.abspath(path))
    relative = next((line for line in lines if not line.startswith("./") and not os.path.isabs(line)), None)
    base = folder if relative is None or os.path.exists(os.path.join(folder, relative)) else os.getcwd()
    return [
        os.path.join(folder, line[2:]) if line.startswith("./") else os.path.normpath(os.path.join(base, line))
        for line in lines
    ]


def _walk(folder: str) -> Iterator[str]:
    """The images below `folder`. Hidden names are skipped; links to folders are followed, but not in loops."""
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
    """The (height, width) in pixels that the decoded image has, with its EXIF orientation applied.

    Of a JPEG only the header and the end are read, so that a truncated file is found at the price of a few kilobytes. A
    PNG is read completely and its checksums are compared. Other formats are decoded. Raises `BrokenImageError`.
    """
    try:
        with open_file(path) as file:
            header = read_header(file, head := file.read(HEAD))
            if header.format == "jpeg" and header.size:
                check_jpeg_end(file, header.end)
            elif header.format == "png":
                check_png(head + file.read())
    except OSError as error:
        raise BrokenImageError(f"cannot be read: {error.strerror or error}") from error
    size = header.size
    if size is None or header.format not in ("jpeg", "png") or (header.format == "png" and b"eXIf" in head):
        from utils.data.images.decode import decode_file

        height, width = decode_file(path).shape[:2]
        size = int(height), int(width)
    if min(size) < MIN_SIDE:
        raise BrokenImageError(f"is {size[1]}x{size[0]} pixels, and {MIN_SIDE} a side are the least")
    return size
