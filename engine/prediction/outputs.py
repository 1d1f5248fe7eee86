"""The detections of a frame, and the outputs of a run: annotated frames, and whatever else the flags ask for."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from engine.prediction.object_images import CropFiles, MaskFiles
from engine.prediction.text_files import CsvFile, LabelFiles
from engine.prediction.video_file import VideoFile
from utils.data.sources.files import is_url
from utils.data.sources.frame import Frame
from utils.data.sources.image_io import write_image
from utils.ops.class_names import class_name, describe
from utils.ops.masks import BoxMask
from utils.plots.annotator import Annotator, colors
from utils.plots.fonts import find_font
from utils.plots.window import Window, check_imshow

_MASK_OPACITY = 0.4
_LONGEST = 100  # characters of a name made from an address, which may contain a long token


@dataclass(frozen=True)
class FrameResult:
    """The detections of `frame`, by falling confidence.

    `boxes (n, 4) float32` are xyxy in pixels of `frame.image`, `confidences` is (n,) float32, `classes` (n,) int64.
    `masks` are in pixels of `frame.image`, too, or None if the task has none; a mask may be empty. The names of all
    files that are written about the source begin with `name`.
    """

    frame: Frame
    name: str
    boxes: np.ndarray
    confidences: np.ndarray
    classes: np.ndarray
    masks: Sequence[BoxMask] | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def frame_name(self) -> str:
        """`name`, followed by the number of the frame for a video or stream."""
        return self.name if self.frame.kind == "image" else f"{self.name}_{self.frame.number}"

    def summary(self, names: Mapping[int, str]) -> str:
        """``'4 persons, 1 bus'`` in the order of the class numbers."""
        return describe(Counter(self.classes.tolist()), names)


class OutputNames:
    """One name per source: files with equal names (in two folders, or ``a.jpg`` and ``a.png``) get different ones."""

    def __init__(self) -> None:
        self._by_path: dict[str, str] = {}
        self._taken: set[str] = set()

    def __getitem__(self, path: str) -> str:
        if path not in self._by_path:
            stem = re.sub(r"[^\w.-]+", "_", path)[-_LONGEST:] if is_url(path) else Path(path).stem
            name, number = stem, 1
            while name.lower() in self._taken:  # some file systems take A and a for the same
                number += 1
                name = f"{stem}-{number}"
            self._taken.add(name.lower())
            self._by_path[path] = name
        return self._by_path[path]


class Output(Protocol):
    """One kind of output. `annotated` is the frame with its detections drawn, (H, W, 3) uint8 BGR, or None if nobody
    asked for it or nothing was detected."""

    def write(self, result: FrameResult, annotated: np.ndarray | None) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class OutputOptions:
    """What to write into `save_dir`, an existing folder, and how to draw; `font` is the path of a font file."""

    save_dir: Path
    nosave: bool = False
    save_txt: bool = False
    save_csv: bool = False
    save_conf: bool = False
    save_crop: bool = False
    save_mask: bool = False
    view_img: bool = False
    line_thickness: int = 3
    hide_labels: bool = False
    hide_conf: bool = False
    font: str | None = None


class Outputs:
    """Writes each result to all outputs; `stopped` is set once the user has closed the window."""

    def __init__(self, options: OutputOptions, names: Mapping[int, str], live: bool = False) -> None:
        self.stopped = False
        self._live = live
        self._window = Window() if options.view_img and check_imshow(warn=True) else None
        self._outputs: list[Output] = []
        if options.save_txt:
            self._outputs.append(LabelFiles(options.save_dir / "labels", options.save_conf))
        if options.save_csv:
            self._outputs.append(CsvFile(options.save_dir / "predictions.csv", names))
        if options.save_crop:
            self._outputs.append(CropFiles(options.save_dir / "crops", names))
        if options.save_mask:
            self._outputs.append(MaskFiles(options.save_dir / "masks", names))
        if not options.nosave:
            self._outputs.append(AnnotatedFrames(options.save_dir))
        self._annotate = None
        if not options.nosave or self._window:
            self._annotate = FrameAnnotator(
                names, options.line_thickness, options.hide_labels, options.hide_conf, options.font
            )

    def write(self, result: FrameResult) -> None:
        """Draw the detections of `result`, write every output, and show the frame."""
        annotated = self._annotate(result) if self._annotate and len(result) else None
        for output in self._outputs:
            output.write(result, annotated)
        if self._window:
            milliseconds = 0 if result.frame.kind == "image" and not self._live else 1  # 0 waits for a key
            shown = result.frame.image if annotated is None else annotated
            self.stopped = not self._window.show(result.frame.path, shown, milliseconds)

    def __enter__(self) -> Outputs:
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.ExitStack() as stack:  # close all of them, even if closing one of them fails
            for output in self._outputs:
                stack.callback(output.close)
            if self._window:
                stack.callback(self._window.close)


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
