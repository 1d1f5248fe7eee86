"""Reads video files frame by frame."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from utils.data.sources.frame import Frame

DEFAULT_FPS = 30.0  # where a container has no usable rate


class UnreadableVideo(Exception):
    """The file is not a video that OpenCV can decode, or it ends early. The text is the reason, without the path."""


class Video:
    """An open video file. Iterating over it yields every `vid_stride`-th `Frame`, beginning with the first.

    `frames` is the number of frames that the container claims (0 if unknown), `fps` its rate, and `read` the number of
    frames that were read or skipped so far. `capture` is the `cv2.VideoCapture`. After the last frame `shortfall` tells
    whether the file had as many frames as it claims. Raises `UnreadableVideo` if it cannot be opened.
    """

    def __init__(self, path: str | Path, vid_stride: int = 1) -> None:
        self.path = str(path)
        self.vid_stride = max(1, vid_stride)
        if not Path(path).is_file():
            raise UnreadableVideo("no such file")
        self.capture = cv2.VideoCapture(self.path)
        if not self.capture.isOpened():
            raise UnreadableVideo("not a video, truncated, or of a codec that OpenCV cannot decode")
        self.frames = max(0, int(self.capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        self.fps = frame_rate(self.capture)
        self.read = 0

    def __len__(self) -> int:
        """The number of frames that the iteration is expected to yield."""
        return -(-self.frames // self.vid_stride)

    def __iter__(self) -> Iterator[Frame]:
        try:
            while (image := self._next()) is not None:
                yield Frame(self.path, image, "video", self.read, self.frames, self.fps / self.vid_stride)
                for _ in range(self.vid_stride - 1):
                    if not self.capture.grab():
                        return
                    self.read += 1
        finally:
            self.capture.release()

    def _next(self) -> np.ndarray | None:
        done, image = self.capture.read()
        if not done:
            return None
        self.read += 1
        return image if image.ndim == 3 else cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)

    def shortfall(self) -> str | None:
        """What is missing, to be asked after the iteration; None if nothing is.

        Containers estimate the number of frames from a duration, so a few less are usual.
        """
        if self.read == 0:
            return "no frame could be decoded"
        if self.frames - self.read > max(2, 0.05 * self.frames):
            return f"only {self.read} of {self.frames} frames could be decoded; the file is truncated or damaged"
        return None


def frame_rate(capture: cv2.VideoCapture) -> float:
    """Frames per second as the container says, or `DEFAULT_FPS`."""
    fps = capture.get(cv2.CAP_PROP_FPS)
    return float(fps) if 0 < fps <= 1000 else DEFAULT_FPS  # also false for NaN
