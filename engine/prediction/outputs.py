"""Everything that was asked for, behind one `write`."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from engine.prediction.drawing import Drawer
from engine.prediction.masks import MaskFiles
from engine.prediction.pictures import Crops, Pictures
from engine.prediction.result import Result
from engine.prediction.text import CsvFile, LabelFiles
from utils.plots.window import Window, check_imshow


class Output(Protocol):
    """One kind of output. `picture` is the annotated frame, (H, W, 3) uint8 BGR, None where nobody wanted one."""

    def write(self, result: Result, picture: np.ndarray | None) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class OutputOptions:
    """What to write into `save_dir`, an existing folder, and how to draw; `font` is a font file's path."""

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
    """Writes each result to all outputs; `stopped` once the user closed the window."""

    def __init__(self, options: OutputOptions, names: Mapping[int, str], live: bool = False) -> None:
        self.stopped = False
        self._live = live
        self._window = Window() if options.view_img and check_imshow(warn=True) else None
        self._parts: list[Output] = []
        if options.save_txt:
            self._parts.append(LabelFiles(options.save_dir / "labels", options.save_conf))
        if options.save_csv:
            self._parts.append(CsvFile(options.save_dir / "predictions.csv", names))
        if options.save_crop:
            self._parts.append(Crops(options.save_dir / "crops", names))
        if options.save_mask:
            self._parts.append(MaskFiles(options.save_dir / "masks", names))
        if not options.nosave:
            self._parts.append(Pictures(options.save_dir))
        self._draw = None
        if not options.nosave or self._window:
            self._draw = Drawer(
                names, options.line_thickness, options.hide_labels, options.hide_conf, options.font
            )  # fmt: skip

    def write(self, result: Result) -> None:
        """Draw, write, show."""
        picture = self._draw(result) if self._draw and len(result) else None
        for part in self._parts:
            part.write(result, picture)
        if self._window:
            waiting = 0 if result.frame.kind == "image" and not self._live else 1
            shown = result.frame.image if picture is None else picture
            self.stopped = not self._window.show(result.frame.path, shown, waiting)

    def __enter__(self) -> Outputs:
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.ExitStack() as stack:  # all of them, though one may fail
            for part in self._parts:
                stack.callback(part.close)
            if self._window:
                stack.callback(self._window.close)
