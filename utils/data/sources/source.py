"""Turns the text after ``--source`` into a source that yields frames."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from utils.data.sources.files import is_media, is_url, suffix_of
from utils.data.sources.frame import Frame, Unreadable
from utils.errors import UserError


class Source(Protocol):
    """Yields frames in groups. The frames of a group arrived together, one of each camera; files come one at a time.

    `live` sources end by interruption and must not be kept waiting. `paths` are the files or addresses, and `len()`
    counts them. `unreadable` grows during the iteration.
    """

    live: bool
    paths: list[str]
    unreadable: list[Unreadable]

    def __iter__(self) -> Iterator[list[Frame]]: ...

    def __len__(self) -> int: ...


def is_screen(source: str) -> bool:
    """Whether `source` is ``screen``, ``screen 0`` and so on, and no file has that name."""
    return source.split()[:1] == ["screen"] and not Path(source).exists()


def is_stream(source: str) -> bool:
    """Whether `source` is a camera number, a ``.streams`` list, or an address that is not that of an image or video."""
    numbered = source.isdecimal() and not Path(source).exists()
    return numbered or source.endswith(".streams") or (is_url(source) and not is_media(source))


def open_source(
    source: str | int | Path | Sequence[str | Path],
    vid_stride: int = 1,
    *,
    progress: bool = True,
    download_folder: str | Path = "downloads",
) -> Source:
    """Open `source`, which is the text from the command line or a sequence of paths.

    A URL that ends in the name of an image or a video is downloaded into `download_folder`, because the user named it.
    Raises `UserError` for anything that does not exist.
    """
    if vid_stride < 1:
        raise UserError(f"--vid-stride must be 1 or more, not {vid_stride}")
    if isinstance(source, (str, int, Path)):
        text = str(source).strip()
        if not text:
            raise UserError("--source is empty; give an image, a folder, a video, a camera number or an address")
        if is_screen(text):
            from utils.data.sources.screen import Screen, parse_screen

            return Screen(parse_screen(text))
        if is_stream(text):
            from utils.data.sources.streams import Streams, stream_addresses

            return Streams(stream_addresses(text), vid_stride)
        if is_url(text):
            source = _fetch(text, Path(download_folder))
    from utils.data.sources.files import MediaFiles, find_media

    return MediaFiles(find_media(source if not isinstance(source, int) else str(source)), vid_stride, progress)


def _fetch(url: str, folder: Path) -> Path:
    if not url.lower().startswith(("http://", "https://")):
        raise UserError(f"'{url}' names a .{suffix_of(url)} file, and files are fetched by http or https only")
    from utils.downloads import download
    from utils.files import make_folder

    return Path(download(url, make_folder(folder) / _file_name(url)))


def _file_name(url: str) -> str:
    """The last part of the address, without its query and without characters that have a meaning in file systems."""
    from urllib.parse import unquote

    name = unquote(re.split(r"[?#]", url, maxsplit=1)[0]).replace("\\", "/").rsplit("/", 1)[-1]
    safe = "".join(c if c.isalnum() or c in "._- " else "_" for c in name).lstrip(".")
    return safe[-100:] or f"file.{suffix_of(url)}"
