"""Detections as text: YOLO label files and one CSV table."""

from __future__ import annotations

import csv
import errno
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from utils.files import atomic_write, make_folder, refuse_folder
from utils.ops.boxes import xyxy2xywhn
from utils.ops.class_names import class_name
from utils.ops.masks import BoxMask, mask_to_polygon

if TYPE_CHECKING:
    from engine.prediction.outputs import FrameResult


class LabelFiles:
    """Writes ``labels/NAME.txt``, for a video ``labels/NAME_FRAME.txt``, with class and box or outline in each row.

    The box is xywh; the outline is x1 y1 x2 y2 … of all parts of the mask; both are normalised. With `save_conf` the
    confidence follows, without it the rows are labels to train with. An empty mask gets no row, and a frame without
    rows gets no file.
    """

    def __init__(self, folder: Path, save_conf: bool = False) -> None:
        self._folder = make_folder(folder)
        self._save_conf = save_conf

    def write(self, result: FrameResult, annotated: np.ndarray | None) -> None:
        size = result.frame.image.shape[0], result.frame.image.shape[1]
        confidences = result.confidences if self._save_conf else None
        if rows := label_rows(result.classes, result.boxes, size, confidences, result.masks):
            with atomic_write(self._folder / f"{result.frame_name}.txt", "w", durable=False) as file:
                file.writelines(rows)

    def close(self) -> None:
        """Nothing is kept open."""


def label_rows(
    classes: np.ndarray,
    boxes: np.ndarray,
    size: tuple[int, int],
    confidences: np.ndarray | None = None,
    masks: Sequence[BoxMask] | None = None,
) -> list[str]:
    """Detections as lines of a label file: class, normalised xywh or the mask's outline, and the confidence if given.

    `classes (n,)`, `boxes (n, 4)` xyxy and `masks` in pixels of an image of `size` (height, width). An empty mask has
    no line.
    """
    height, width = size
    if masks is None:
        shapes = list(xyxy2xywhn(boxes, w=width, h=height))
    else:
        outlines = [mask_to_polygon(mask) for mask in masks]
        shapes = [() if points is None else (points / (width, height)).ravel() for points in outlines]
    rows = []
    for i, (cls, shape) in enumerate(zip(classes, shapes, strict=True)):
        if len(shape):
            numbers = shape if confidences is None else [*shape, confidences[i]]
            rows.append(" ".join([str(int(cls)), *(f"{value:.6g}" for value in numbers)]) + "\n")
    return rows


class CsvFile:
    """Writes a row per detection: image, class number, class, confidence, x1, y1, x2, y2 (pixels), frame (of a video).

    The table grows during the run and can be read meanwhile. It always ends with a complete row.
    """

    header = ("image", "class_id", "class", "confidence", "x1", "y1", "x2", "y2", "frame")

    def __init__(self, path: Path, names: Mapping[int, str]) -> None:
        self._names = names
        self._path = refuse_folder(path)
        self._file = path.open("wb", buffering=0)
        self._append([self.header])

    def write(self, result: FrameResult, annotated: np.ndarray | None) -> None:
        frame = result.frame
        number = "" if frame.kind == "image" else frame.number
        self._append(
            (frame.path, cls, class_name(self._names, cls), f"{confidence:.4f}", *(f"{v:.1f}" for v in box), number)
            for cls, box, confidence in zip(result.classes.tolist(), result.boxes, result.confidences, strict=True)
        )

    def _append(self, rows: Iterable[Sequence[object]]) -> None:
        text = io.StringIO(newline="")
        csv.writer(text).writerows(rows)
        whole = self._file.tell()
        try:
            content = text.getvalue().encode("utf-8", "surrogateescape")  # names of files are bytes, of any encoding
            if self._file.write(content) != len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            self._file.truncate(whole)
            raise OSError(error.errno, error.strerror, str(self._path)) from error

    def close(self) -> None:
        self._file.close()
