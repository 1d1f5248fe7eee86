"""The outputs of a prediction run: everything that the flags ask for, behind one `write`."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from engine.prediction.annotated_frames import AnnotatedFrames, FrameAnnotator
from engine.prediction.object_images import CropFiles, MaskFiles
from engine.prediction.result import FrameResult
from engine.prediction.text_files import CsvFile, LabelFiles
from utils.plots.window import Window, check_imshow


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
