"""Annotated pictures and videos, and crops."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

from engine.prediction.result import Result
from utils.data.sources.image_io import write_image
from utils.data.sources.video import UnreadableVideo, Video
from utils.errors import UserError
from utils.files import make_folder, refuse_folder
from utils.ops.class_names import class_name, folder_name
from utils.ops.masks import BoxMask, paste_mask
from utils.plots.crops import crop_window

_LEAST_SPACE = 1 << 20  # bytes; a disk with less is full
_LONGEST_GAP = 10.0  # seconds of a stalled stream that its video shows as a still picture


class Pictures:
    """The annotated frames: an image file for an image, ``.mp4`` for a video or stream."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._videos: dict[str, VideoFile] = {}

    def write(self, result: Result, picture: np.ndarray | None) -> None:
        frame = result.frame
        picture = frame.image if picture is None else picture
        if frame.kind == "image":
            write_image(self._folder / f"{result.name}{Path(frame.path).suffix}", picture)
            return
        if result.name not in self._videos:
            if frame.kind == "video":  # files come one after the other, streams together
                self.close()
            height, width = picture.shape[:2]
            self._videos[result.name] = VideoFile(self._folder / f"{result.name}.mp4", frame.fps, (width, height))
        self._videos[result.name].write(picture, frame.time)

    def close(self) -> None:
        """Finish the videos; before that they cannot be played."""
        with contextlib.ExitStack() as stack:  # all of them, though one may fail
            while self._videos:
                stack.callback(self._videos.popitem()[1].close)


class VideoFile:
    """An MP4 being written; under ``NAME.part.mp4`` until `close`, so that half a video never bears the final name.

    `size` is (width, height); pictures of another size are resized to it. Pictures with a `time` (seconds) are repeated
    or dropped so that the video runs as fast as the world did. Raises `UserError` where OpenCV has no encoder, and from
    `close` where what was written cannot be read back: OpenCV does not tell of a full disk.
    """

    def __init__(self, path: Path, fps: float, size: tuple[int, int]) -> None:
        self.path = refuse_folder(path)
        self._fps, self._size = fps, size
        self._part = path.with_name(f"{path.stem}.part{path.suffix}")
        self._writer = cv2.VideoWriter(str(self._part), cv2.VideoWriter.fourcc(*"mp4v"), fps, size)
        if not self._writer.isOpened():
            self._part.unlink(missing_ok=True)
            raise UserError(f"cannot write video '{path}' ({size[0]}x{size[1]}): no encoder or no space; use --nosave")
        self._start: float | None = None
        self._written = 0

    def write(self, picture: np.ndarray, time: float | None = None) -> None:
        """Add one picture, (H, W, 3) uint8 BGR."""
        if (picture.shape[1], picture.shape[0]) != self._size:
            picture = cv2.resize(picture, self._size, interpolation=cv2.INTER_AREA)
        for _ in range(self._copies(time)):
            self._writer.write(picture)
            self._written += 1

    def _copies(self, time: float | None) -> int:
        if time is None:
            return 1
        if self._start is None:
            self._start = time
        due = round((time - self._start) * self._fps) + 1 - self._written
        longest = round(_LONGEST_GAP * self._fps)
        if due > longest:  # skip the rest of the gap
            self._start += (due - longest) / self._fps
        return max(0, min(due, longest))

    def close(self) -> None:
        """Give the video its name, if it is whole."""
        self._writer.release()
        if not self._written:
            self._part.unlink(missing_ok=True)
            return
        try:
            frames = Video(self._part).frames
        except UnreadableVideo:
            frames = 0
        if frames < self._written:
            full = shutil.disk_usage(self.path.parent).free < _LEAST_SPACE
            self._part.unlink(missing_ok=True)
            reason = "no space left on the device" if full else "a full disk, or a limit on the size of files"
            raise UserError(
                f"cannot write video '{self.path}': {frames} of {self._written} frames were stored ({reason})"
            )
        self._part.replace(self.path)


class Crops:
    """``crops/CLASS/NAME.jpg`` for every detection, numbered from the second of a name on (``NAME2``).

    A number that gives another picture's name (``clip_12`` is frame 12, or frame 1's second crop) is passed over.
    With masks ``NAME.png``, the mask as its alpha channel; an empty mask has no crop.
    """

    def __init__(self, folder: Path, names: Mapping[int, str]) -> None:
        self._folder = folder
        self._names = names
        self._written: set[Path] = set()

    def write(self, result: Result, picture: np.ndarray | None) -> None:
        suffix = ".jpg" if result.masks is None else ".png"
        for i, cls in enumerate(result.classes.tolist()):
            crop = _crop(result, i)
            if crop is None:
                continue
            folder = self._folder / folder_name(class_name(self._names, cls))
            path, number = folder / f"{result.frame_name}{suffix}", 1
            while path in self._written:
                number += 1
                path = folder / f"{result.frame_name}{number}{suffix}"
            self._written.add(path)
            make_folder(folder)
            write_image(path, np.ascontiguousarray(crop))

    def close(self) -> None:
        """Nothing is kept open."""


def _crop(result: Result, index: int) -> np.ndarray | None:
    """(h, w, 3) uint8 BGR around detection `index`, (h, w, 4) with its mask; None where nothing would be seen."""
    image = result.frame.image
    window = crop_window((image.shape[0], image.shape[1]), result.boxes[index])
    crop = window.of(image)
    if result.masks is None:
        return crop if crop.size else None
    left, top, pixels = result.masks[index]
    if not pixels.any():
        return None
    seen = paste_mask(BoxMask(left - window.left, top - window.top, pixels), (crop.shape[0], crop.shape[1]))
    return np.dstack([crop, seen * np.uint8(255)])
