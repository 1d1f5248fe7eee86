"""A video that is being written."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np

from utils.data.sources.video import UnreadableVideo, Video
from utils.errors import UserError
from utils.files import refuse_folder

_LEAST_SPACE = 1 << 20  # bytes; a disk with less is full
_LONGEST_GAP = 10.0  # seconds of a stalled stream that its video shows as a still image


class VideoFile:
    """An MP4 file, written as ``NAME.part.mp4`` until `close`, so that half a video never has the final name.

    `size` is (width, height); images of another size are resized to it. Images with a `time` (seconds) are repeated
    or dropped, so that the video runs at the speed of the real scene. Raises `UserError` if OpenCV has no encoder. Also
    `close` raises it, if what was written cannot be read back, because OpenCV does not report a full disk.
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

    def write(self, image: np.ndarray, time: float | None = None) -> None:
        """Add one image, (H, W, 3) uint8 BGR."""
        if (image.shape[1], image.shape[0]) != self._size:
            image = cv2.resize(image, self._size, interpolation=cv2.INTER_AREA)
        for _ in range(self._copies(time)):
            self._writer.write(image)
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
