"""Cutting the part of an image out that a box encloses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from utils.files import increment_path, make_folder


class CropRegion(NamedTuple):
    """A part of an image in whole pixels; `right` and `bottom` are the first ones outside."""

    left: int
    top: int
    right: int
    bottom: int

    def of(self, image: np.ndarray) -> np.ndarray:
        """That part of `image` (H, W, …); a view, no copy."""
        return image[self.top : self.bottom, self.left : self.right]


def crop_region(
    size: tuple[int, int],
    xyxy: Sequence[float],
    gain: float = 1.02,
    pad: int = 10,
    square: bool = False,
) -> CropRegion:
    """The part to cut out of an image of `size` (height, width) for a box (xyxy pixels); see `crop_box`."""
    x1, y1, x2, y2 = (float(v) for v in xyxy[:4])
    width, height = x2 - x1, y2 - y1
    if square:
        width = height = max(width, height)
    half_w, half_h = (width * gain + pad) / 2, (height * gain + pad) / 2
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    limit_h, limit_w = size
    left, right = (int(min(max(v, 0), limit_w)) for v in (x - half_w, x + half_w))
    top, bottom = (int(min(max(v, 0), limit_h)) for v in (y - half_h, y + half_h))
    return CropRegion(left, top, right, bottom)


def crop_box(
    image: np.ndarray,
    xyxy: Sequence[float],
    gain: float = 1.02,
    pad: int = 10,
    square: bool = False,
) -> np.ndarray:
    """The part of `image` (H, W, …) in the box (pixels); its sides first get `gain` times and `pad` pixels longer.

    With `square` the shorter side is lengthened first. A box outside the image gives an empty array. A view, no copy.
    """
    return crop_region((image.shape[0], image.shape[1]), xyxy, gain, pad, square).of(image)


def save_one_box(
    xyxy: Any,
    im: np.ndarray,
    file: str | Path = "im.jpg",
    gain: float = 1.02,
    pad: int = 10,
    square: bool = False,
    BGR: bool = False,  # noqa: N803, RUF100 (YOLOv5's name)
    save: bool = True,
) -> np.ndarray:
    """YOLOv5's function: crop `xyxy` (four numbers, or a (1, 4) array or tensor) out of `im` and save it as JPEG.

    `im` is (H, W, 3) RGB, or BGR with that flag; the crop returned is BGR. A file that exists gets a number behind its
    name. An empty crop is not written.
    """
    corners = np.asarray(xyxy.detach().cpu() if hasattr(xyxy, "detach") else xyxy, dtype=np.float64).reshape(-1)
    crop = crop_box(im, corners.tolist(), gain, pad, square)
    crop = crop if BGR else crop[..., ::-1]
    if save and crop.size:
        from utils.data.sources.image_io import write_image

        file = Path(file)
        make_folder(file.parent)
        write_image(increment_path(file.with_suffix(".jpg")), np.ascontiguousarray(crop))
    return crop
