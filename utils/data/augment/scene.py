"""A scene: pictures placed on a canvas, looked at by a camera. Mosaic and letterbox are scenes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from utils.ops.geometry import project_polygon, scaling
from utils.data.augment.warp import Recolor, as_it_is, paint
from utils.data.instances import Instances

FILL = 114  # grey where no picture is


class Picture(NamedTuple):
    """An image of the data set. `image` may have been stored smaller than the `size` it stands for."""

    image: np.ndarray  # (h, w, 3) uint8 BGR
    size: tuple[int, int]  # (height, width): fits the network's input
    instances: Instances  # pixels of `size`


class Tile(NamedTuple):
    """A picture on a canvas."""

    image: np.ndarray  # (h, w, 3) uint8 BGR
    matrix: np.ndarray  # (3, 3): pixels of `image` to pixels of the canvas
    outline: np.ndarray  # (k, 2): where on the canvas it may be seen
    instances: Instances  # pixels of the canvas


class View(NamedTuple):
    """What the camera sees."""

    image: np.ndarray  # (h, w, 3) uint8 BGR
    instances: Instances  # pixels of `image`


def place(picture: Picture, x: float, y: float, scale: float, box: tuple[float, float, float, float]) -> Tile:
    """`picture` (its `size`, times `scale`) with its upper left corner at (`x`, `y`) of a canvas, seen within `box`."""
    height, width = picture.image.shape[:2]
    at = scaling(scale, scale, (x, y))
    matrix = scaling(scale * (picture.size[1] / width), scale * (picture.size[0] / height), (x, y))
    left, top, right, bottom = box
    outline = np.array([(left, top), (right, top), (right, bottom), (left, bottom)], np.float64)
    return Tile(picture.image, matrix, outline, picture.instances.warp(at))


def render(
    tiles: Sequence[Tile],
    canvas: tuple[int, int],
    matrix: np.ndarray,
    output: tuple[int, int],
    scale: float,
    recolor: Recolor = as_it_is,
) -> View:
    """`tiles`, later ones above earlier ones, on a canvas seen through `matrix`, as an image of size `output`.

    Every tile is resampled once, straight into the result. Objects are cut by the canvas, moved, cut by the result, and
    kept if enough of them is left; `scale` is the camera's zoom, against which that is measured. `recolor` has to keep
    grey grey.
    """
    fill = recolor(np.full((1, 1, 3), FILL, np.uint8))[0, 0, 0]
    image = np.full((*output, 3), fill, np.uint8)
    for tile in tiles:
        paint(image, tile.image, matrix @ tile.matrix, project_polygon(tile.outline, matrix), recolor)
    before = Instances.concatenate([tile.instances for tile in tiles]).clip(canvas)
    after = before.warp(matrix).clip(output)
    return View(image, after.select(after.visible(before, scale)))
