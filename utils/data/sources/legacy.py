"""Kept for old scripts: the iterators of YOLOv5's `detect.py`. No command of this project uses them.

Each iterator yields ``(path, im, im0, cap, text)``: `im` (3, H, W) uint8 RGB, letterboxed and contiguous; `im0` the
original (H, W, 3) BGR; `cap` the `cv2.VideoCapture` of a video, else None; `text` the beginning of a log line. For
streams `path` and `im0` are lists, and `im` is a batch (B, 3, H, W).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from utils.data.sources.files import MediaFiles, find_media, is_video
from utils.data.sources.frame import Frame
from utils.data.sources.screen import Screen, parse_screen
from utils.data.sources.streams import Streams, stream_addresses
from utils.ops.letterbox import letterbox_chw

Transforms = Callable[[np.ndarray], Any]
LegacyItem = tuple[str, Any, np.ndarray, "cv2.VideoCapture | None", str]


class LoadImages:
    """Iterates over images and videos. A file that cannot be read is logged, skipped, and noted in `unreadable`."""

    def __init__(
        self,
        path: str | Path | Sequence[str | Path],
        img_size: int | Sequence[int] = 640,
        stride: int = 32,
        auto: bool = True,
        transforms: Transforms | None = None,
        vid_stride: int = 1,
    ) -> None:
        self.img_size, self.stride, self.auto, self.transforms = img_size, stride, auto, transforms
        self._media = MediaFiles(find_media(path), vid_stride, progress=False)
        self.files = self._media.paths
        self.nf = len(self.files)
        self.video_flag = [is_video(file) for file in self.files]
        self.vid_stride = vid_stride
        self.unreadable = self._media.unreadable
        self.mode = "image"
        self.cap: cv2.VideoCapture | None = None
        self.frame = self.frames = self.count = 0

    def __len__(self) -> int:
        return self.nf

    def __iter__(self) -> Iterator[LegacyItem]:
        for (frame,) in self._media:
            self.mode = frame.kind
            self.cap = self._media.capture
            self.frame, self.frames = frame.number, frame.total
            self.count = int(frame.place.split()[1].split("/")[0])
            text = f"{frame.place} " + (f"({frame.number}/{frame.total}) " if frame.kind == "video" else "")
            yield frame.path, self._prepare(frame), frame.image, self.cap, f"{text}{frame.path}: "

    def _prepare(self, frame: Frame) -> Any:
        if self.transforms:
            return self.transforms(frame.image)
        return letterbox_chw(frame.image, self.img_size, self.stride, self.auto)


class LoadScreenshots:
    """Iterates over pictures of the screen; ``'screen 0 100 100 512 256'`` is number, left, top, width and height."""

    mode = "stream"
    cap = None

    def __init__(
        self,
        source: str,
        img_size: int | Sequence[int] = 640,
        stride: int = 32,
        auto: bool = True,
        transforms: Transforms | None = None,
    ) -> None:
        self.img_size, self.stride, self.auto, self.transforms = img_size, stride, auto, transforms
        self._screen = Screen(parse_screen(source))
        self.frame = 0

    def __iter__(self) -> Iterator[LegacyItem]:
        for (frame,) in self._screen:
            self.frame = frame.number
            if self.transforms:
                im = self.transforms(frame.image)
            else:
                im = letterbox_chw(frame.image, self.img_size, self.stride, self.auto)
            yield frame.path, im, frame.image, None, f"{frame.path}: "


class LoadStreams:
    """Iterates over cameras and network streams. Every item holds the newest frame of each of them."""

    mode = "stream"
    cap = None

    def __init__(
        self,
        sources: str | Sequence[str] = "file.streams",
        img_size: int | Sequence[int] = 640,
        stride: int = 32,
        auto: bool = True,
        transforms: Transforms | None = None,
        vid_stride: int = 1,
    ) -> None:
        self.img_size, self.stride, self.auto, self.transforms = img_size, stride, auto, transforms
        self.vid_stride = vid_stride
        self._streams = Streams(stream_addresses(sources), vid_stride)
        self.sources = self._streams.paths
        self.unreadable = self._streams.unreadable
        self.count = 0

    def __len__(self) -> int:
        return len(self.sources)

    def __iter__(self) -> Iterator[tuple[list[str], Any, list[np.ndarray], None, str]]:
        newest: dict[str, Frame] = {}
        for frames in self._streams:
            newest.update({frame.path: frame for frame in frames})
            present = [newest[source] for source in self.sources if source in newest]
            images = [frame.image for frame in present]
            self.count += 1
            yield [frame.path for frame in present], self._prepare(images), images, None, ""

    def _prepare(self, images: list[np.ndarray]) -> Any:
        if self.transforms:
            return np.stack([self.transforms(image) for image in images])
        auto = self.auto and len({image.shape for image in images}) == 1  # one batch has one shape
        return np.stack([letterbox_chw(image, self.img_size, self.stride, auto) for image in images])
