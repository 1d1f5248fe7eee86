"""`Detections`: the objects found in a list of images, as boxes in four forms, text, drawings, crops and tables."""

from __future__ import annotations

import copy
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from utils.devices import Profile
from utils.files import increment_path
from utils.logging import LOGGER
from utils.ops.boxes import xyxy2xywh
from utils.ops.class_names import class_name, describe, folder_name

_CORNERS = ("xmin", "ymin", "xmax", "ymax", "confidence", "class", "name")
_CENTRES = ("xcenter", "ycenter", "width", "height", "confidence", "class", "name")


class Detections:
    """The detections in `n` images; every list has one entry per image.

    Attributes:
        ims: (H, W, 3) uint8 RGB; after `render`, the drawings.
        pred, xyxy: (n, 6) tensors: corners in pixels of the image, confidence and class, by falling confidence.
        xywh: the same with centre and size. xyxyn, xywhn: normalised to 0..1 of the image's width and height.
        names: class id → name. files: the file names that `save` uses.
        times: seconds of pre-processing, inference and suppression, as `Profile`. t: the same in ms per image.
        n: number of images. s: (n, 3, h, w), shape of the network's input, the largest one where images differ.
    """

    def __init__(
        self,
        ims: Sequence[np.ndarray],
        pred: Sequence[Tensor],
        files: Sequence[str],
        times: Sequence[Profile] = (),
        names: Mapping[int, str] | None = None,
        shape: Sequence[int] = (),
    ) -> None:
        self.ims = list(ims)
        self.pred = list(pred)
        self.files = list(files)
        self.times = tuple(times) or (Profile(), Profile(), Profile())
        self.names = dict(names or {})
        self.n = len(self.pred)
        self.t = tuple(timer.t / max(self.n, 1) * 1e3 for timer in self.times)
        self.s = tuple(shape)
        self._originals = list(ims)  # every drawing starts from these, so that nothing is drawn twice
        sizes = [rows.new_tensor([im.shape[1], im.shape[0]] * 2 + [1, 1]) for im, rows in zip(ims, pred, strict=True)]
        self.xyxy: list[Any] = self.pred
        self.xywh: list[Any] = [xyxy2xywh(rows) for rows in self.pred]
        self.xyxyn: list[Any] = [rows / size for rows, size in zip(self.xyxy, sizes, strict=True)]
        self.xywhn: list[Any] = [rows / size for rows, size in zip(self.xywh, sizes, strict=True)]

    def __len__(self) -> int:
        return self.n

    def __str__(self) -> str:
        lines = []
        for i, (im, rows) in enumerate(zip(self.ims, self.pred, strict=True)):
            counts = Counter(rows[:, 5].int().tolist())
            lines.append(f"image {i + 1}/{self.n}: {im.shape[0]}x{im.shape[1]} {describe(counts, self.names)}")
        before, inference, after = self.t
        speed = f"{before:.1f}ms pre-process, {inference:.1f}ms inference, {after:.1f}ms NMS"
        return "\n".join((*lines, f"Speed: {speed} per image at shape {self.s}"))

    def __repr__(self) -> str:
        return f"{type(self).__name__} of {self.n} image{'' if self.n == 1 else 's'}\n{self}"

    def print(self) -> None:
        """Print what was found in each image, and how long it took."""
        print(self)

    # Drawings --------------------------------------------------------------------------------------------------------

    def render(self, labels: bool = True) -> list[np.ndarray]:
        """Draw the detections, with class and confidence if `labels`, and put the drawings into `ims`.

        The arrays that were given stay as they are.
        """
        pairs = zip(self._originals, self.pred, strict=True)
        self.ims = [self._drawn(im, rows, labels) if len(rows) else im for im, rows in pairs]
        return self.ims

    def _drawn(self, im: np.ndarray, rows: Tensor, labels: bool) -> np.ndarray:
        from utils.plots.annotator import Annotator, colors

        annotator = Annotator(im[..., ::-1].copy(), example="".join(self.names.values()))
        for *box, confidence, cls in rows.flip(0).tolist():  # the most confident is drawn last, on top
            label = f"{class_name(self.names, int(cls))} {confidence:.2f}" if labels else ""
            annotator.box_label(box, label, colors(int(cls), bgr=True))
        return np.ascontiguousarray(annotator.result()[..., ::-1])

    def show(self, labels: bool = True) -> None:
        """Display the drawings: in a notebook below the cell, elsewhere in the system's image viewer."""
        from PIL import Image, ImageShow

        from utils.plots.window import has_display

        for im, file in zip(self._drawings(labels), self.files, strict=True):
            image = Image.fromarray(im)
            if _in_notebook():
                from IPython.display import display

                display(image)
            elif not (has_display() and ImageShow.show(image, title=file)):
                LOGGER.warning("images cannot be shown: there is no display, or no viewer; .save() writes files")
                return

    def save(self, labels: bool = True, save_dir: str | Path = "runs/detect/exp", exist_ok: bool = False) -> Path:
        """Write the drawings to `save_dir`, which gets a number where it exists already, and return the folder."""
        from utils.data.sources.image_io import write_image

        folder = increment_path(save_dir, exist_ok, mkdir=True)
        for im, file in zip(self._drawings(labels), self.files, strict=True):
            write_image(folder / file, np.ascontiguousarray(im[..., ::-1]))
        LOGGER.info(f"Saved {self.n} image{'' if self.n == 1 else 's'} to {folder}")
        return folder

    def crop(
        self, save: bool = True, save_dir: str | Path = "runs/detect/exp", exist_ok: bool = False
    ) -> list[dict[str, Any]]:
        """Cut every detection out of its image; in YOLOv5's order, the least confident one of each image first.

        Returns a dict for each: `box` (four tensors, xyxy pixels), `conf`, `cls` (tensors), `label` (``'person 0.88'``)
        and `im`, (h, w, 3) uint8 **BGR** (for OpenCV, as in YOLOv5), a little larger than the box. With `save` they are
        also written to ``crops/CLASS/FILE.jpg`` in `save_dir`, which gets a number where it exists already.
        """
        from utils.plots.crops import save_one_box

        folder = increment_path(save_dir, exist_ok, mkdir=True) if save else Path(save_dir)
        crops = []
        for im, rows, file in zip(self._originals, self.pred, self.files, strict=True):
            for *box, conf, cls in rows.flip(0):
                name = class_name(self.names, int(cls))
                path = folder / "crops" / folder_name(name) / file
                cut = np.ascontiguousarray(save_one_box(torch.stack(box), im, path, save=save))
                crops.append({"box": box, "conf": conf, "cls": cls, "label": f"{name} {float(conf):.2f}", "im": cut})
        if save:
            LOGGER.info(f"Saved results to {folder}")
        return crops

    def _drawings(self, labels: bool) -> list[np.ndarray]:
        """The drawings that `render` makes, with `ims` left as they are."""
        kept = self.ims
        drawings = self.render(labels)
        self.ims = kept
        return drawings

    # Other forms -----------------------------------------------------------------------------------------------------

    def pandas(self) -> Detections:
        """A copy whose `xyxy`, `xyxyn`, `xywh` and `xywhn` are lists of DataFrames.

        Their columns are xmin ymin xmax ymax, or xcenter ycenter width height; then confidence, class and name.
        """
        from pandas import DataFrame

        new = copy.copy(self)
        for form, columns in (("xyxy", _CORNERS), ("xyxyn", _CORNERS), ("xywh", _CENTRES), ("xywhn", _CENTRES)):
            tables = []
            for rows in getattr(self, form):
                values = [[*r[:5], int(r[5]), class_name(self.names, int(r[5]))] for r in rows.tolist()]
                tables.append(DataFrame(values, columns=list(columns)))
            setattr(new, form, tables)
        return new

    def tolist(self) -> list[Detections]:
        """A list with one `Detections` per image."""
        shares = [Profile(timer.t / max(self.n, 1)) for timer in self.times]
        parts = zip(self._originals, self.pred, self.files, strict=True)
        return [type(self)([im], [rows], [file], shares, self.names, (1, *self.s[1:])) for im, rows, file in parts]


def _in_notebook() -> bool:
    """True where the code runs in a cell of Jupyter or Colab, which can show images by themselves."""
    ipython = sys.modules.get("IPython")  # every notebook has imported it
    return ipython is not None and getattr(ipython.get_ipython(), "kernel", None) is not None
