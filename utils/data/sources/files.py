"""Images and videos on disk, given as a file, a folder, a pattern or a list."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from utils.data.indexing.image_files import IMG_FORMATS, is_pattern, read_list
from utils.data.sources.frame import Frame, Unreadable
from utils.data.sources.image_io import UnreadableImage, read_image
from utils.data.sources.video import UnreadableVideo, Video
from utils.errors import UserError
from utils.files import expand_home
from utils.logging import LOGGER
from utils.progress import Progress

VID_FORMATS = ("asf", "avi", "gif", "m4v", "mkv", "mov", "mp4", "mpeg", "mpg", "ts", "webm", "wmv")

_SCHEMES = ("rtsp://", "rtsps://", "rtmp://", "rtmps://", "http://", "https://", "tcp://", "udp://")


def suffix_of(name: str | Path) -> str:
    """The suffix in lower case: ``'jpg'`` for ``'a.JPG'`` and for ``'https://host/a.jpg?size=2'``."""
    text = str(name)
    if is_url(text):
        text = re.split(r"[?#]", text, maxsplit=1)[0]
    return Path(text).suffix[1:].lower()


def is_video(name: str | Path) -> bool:
    """Whether `name` is that of a video."""
    return suffix_of(name) in VID_FORMATS


def is_media(name: str | Path) -> bool:
    """Whether `name` is that of an image or a video."""
    return suffix_of(name) in IMG_FORMATS or is_video(name)


def is_url(text: str) -> bool:
    """Whether `text` begins with a scheme that a stream or a download can have."""
    return text.lower().startswith(_SCHEMES)


def find_media(source: str | Path | Sequence[str | Path]) -> list[str]:
    """Find every image and video of `source`, sorted within each entry.

    `source` is a file, a folder (without its subfolders), a glob pattern (`**` for subfolders), a ``.txt`` list of any
    of these, or a sequence of them. Raises `UserError` for an entry that does not exist, for a single file with an
    unknown suffix, and if nothing is found.
    """
    entries = [source] if isinstance(source, (str, Path)) else list(source)
    found = [path for entry in entries for path in _expand(str(entry))]
    if not found:
        names = ", ".join(f"'{entry}'" for entry in entries)
        raise UserError(f"no image or video in {names}; known suffixes: {', '.join((*IMG_FORMATS, *VID_FORMATS))}")
    return found


def _expand(entry: str) -> list[str]:
    path = expand_home(entry)
    if os.path.isdir(path):  # false, too, for names that no file can have
        return sorted(str(p) for p in path.iterdir() if is_media(p) and not p.name.startswith(".") and p.is_file())
    if os.path.isfile(path):
        if path.suffix.lower() == ".txt":
            return _expand_list(path)
        if not is_media(path):
            known = ", ".join((*IMG_FORMATS, *VID_FORMATS))
            raise UserError(
                f"'{entry}' is neither an image nor a video by its suffix; known are {known}, and .txt lists"
            )
        return [str(path)]
    if is_pattern(path):
        return sorted(p for p in glob.glob(str(path), recursive=True) if is_media(p) and Path(p).is_file())
    if os.path.exists(path):
        raise UserError(f"source '{entry}' is neither a file nor a folder")
    raise UserError(f"source '{entry}' does not exist")


def _expand_list(path: Path) -> list[str]:
    """The entries of a list. A file that does not exist stays in, so that it is named and counted later."""
    found: list[str] = []
    for line in read_list(path):
        if Path(line).suffix.lower() == ".txt":
            raise UserError(f"{path}: a list cannot hold another list ('{line}')")
        found += _expand(line) if os.path.isdir(line) or os.path.isfile(line) or is_pattern(line) else [line]
    return found


class MediaFiles:
    """Yields the frames of images and videos. What cannot be read is logged, noted in `unreadable` and skipped.

    Each yield is a list of one frame, because files never arrive together as the images of several cameras do.
    """

    live = False

    def __init__(self, paths: Sequence[str], vid_stride: int = 1, progress: bool = True) -> None:
        self.paths = list(paths)
        self.vid_stride = vid_stride
        self.unreadable: list[Unreadable] = []
        self.capture: cv2.VideoCapture | None = None  # of the video being read
        self._progress = progress

    def __len__(self) -> int:
        """The number of files, not of frames."""
        return len(self.paths)

    def __iter__(self) -> Iterator[list[Frame]]:
        for i, path in enumerate(self.paths, 1):
            place = f"{i}/{len(self.paths)}"
            if is_video(path):
                for frame in self._video(path, f"video {place}"):
                    yield [frame]
                self.capture = None
            elif (image := self._image(path)) is not None:
                yield [Frame(path, image, place=f"image {place}")]

    def _image(self, path: str) -> np.ndarray | None:
        try:
            return read_image(path)
        except UnreadableImage as error:
            self._report(path, str(error))
            return None

    def _video(self, path: str, place: str) -> Iterator[Frame]:
        try:
            video = Video(path, self.vid_stride)
        except UnreadableVideo as error:
            self._report(path, str(error))
            return
        self.capture = video.capture
        frames: Iterable[Frame] = video
        if self._progress:
            frames = Progress(video, f"{place} {path}", len(video) or None, unit="frame", log_every=10.0)
        for frame in frames:
            yield replace(frame, place=place)
        if reason := video.shortfall():
            self._report(path, reason)

    def _report(self, path: str, reason: str) -> None:
        LOGGER.warning(f"{path}: {reason}")
        self.unreadable.append(Unreadable(path, reason))
