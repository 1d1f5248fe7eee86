"""Annotated frames: detections drawn into a copy of the frame, and the images and videos that show it."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

from engine.prediction.result import FrameResult
from utils.data.sources.image_io import write_image
from utils.data.sources.video import UnreadableVideo, Video
from utils.errors import UserError
from utils.files import refuse_folder
from utils.ops.class_names import class_name
from utils.plots.annotator import Annotator
from utils.plots.colors import colors
from utils.plots.fonts import find_font

_MASK_OPACITY = 0.4
_LEAST_SPACE = 1 << 20  # bytes; a disk with less is full
_LONGEST_GAP = 10.0  # seconds of a stalled stream that its video shows as a still picture


class FrameAnnotator:
    """Draws boxes with class and confidence, over the masks where there are any; the most confident one on top.

    `line_width` is in pixels, 0 for one that suits the size of the frame. `font` is the path of a font file; None takes
    OpenCV's letters or, if a class name is not ASCII, a font of this system that has all its letters.
    """

    def __init__(
        self,
        names: Mapping[int, str],
        line_width: int = 3,
        hide_labels: bool = False,
        hide_conf: bool = False,
        font: str | None = None,
    ) -> None:
        self._names = names
        self._line_width = line_width
        self._hide_labels, self._hide_conf = hide_labels, hide_conf
        letters = "".join(names.values())
        self._font = font or (None if letters.isascii() or hide_labels else find_font(letters))

    def __call__(self, result: FrameResult) -> np.ndarray:
        """The annotated copy of the frame, (H, W, 3) uint8 BGR; the frame itself is not changed."""
        annotator = Annotator(result.frame.image.copy(), self._line_width, font=self._font)
        order = range(len(result) - 1, -1, -1)
        shades = [colors(cls, bgr=True) for cls in result.classes]
        if result.masks is not None:
            annotator.masks([result.masks[i] for i in order], [shades[i] for i in order], alpha=_MASK_OPACITY)
        for i in order:
            label = self._label(int(result.classes[i]), float(result.confidences[i]))
            annotator.box_label(result.boxes[i], label, shades[i])
        return annotator.result()

    def _label(self, cls: int, confidence: float) -> str:
        if self._hide_labels:
            return ""
        name = class_name(self._names, cls)
        return name if self._hide_conf else f"{name} {confidence:.2f}"


class AnnotatedFrames:
    """Writes the annotated frames: an image file for an image, ``.mp4`` for a video or stream."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._videos: dict[str, VideoFile] = {}

    def write(self, result: FrameResult, annotated: np.ndarray | None) -> None:
        frame = result.frame
        image = frame.image if annotated is None else annotated
        if frame.kind == "image":
            write_image(self._folder / f"{result.name}{Path(frame.path).suffix}", image)
            return
        if result.name not in self._videos:
            if frame.kind == "video":  # videos come one after the other, streams all at once
                self.close()
            height, width = image.shape[:2]
            self._videos[result.name] = VideoFile(self._folder / f"{result.name}.mp4", frame.fps, (width, height))
        self._videos[result.name].write(image, frame.time)

    def close(self) -> None:
        """Finish the videos. They cannot be played before that."""
        with contextlib.ExitStack() as stack:  # close all of them, even if closing one of them fails
            while self._videos:
                stack.callback(self._videos.popitem()[1].close)


class VideoFile:
    """An MP4 file, written as ``NAME.part.mp4`` until `close`, so that half a video never has the final name.

    `size` is (width, height); pictures of another size are resized to it. Pictures with a `time` (seconds) are repeated
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
