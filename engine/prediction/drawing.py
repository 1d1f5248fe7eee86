"""Detections drawn into a copy of their frame."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from engine.prediction.result import Result
from utils.ops.class_names import class_name
from utils.plots.annotator import Annotator
from utils.plots.colors import colors
from utils.plots.fonts import find_font

_MASK_OPACITY = 0.4


class Drawer:
    """Boxes with class and confidence over what masks there are, the surest on top.

    `line_width` in pixels, 0 for one that suits the picture; `font` the path of a font file, None for OpenCV's letters
    or, where a class name is not ASCII, a font of this system that has them all.
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

    def __call__(self, result: Result) -> np.ndarray:
        """(H, W, 3) uint8 BGR; the frame itself stays as it is."""
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
