"""Mosaic: four pictures meet at a random point of a canvas of twice the side (Bochkovskiy et al. 2020, YOLOv4)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from utils.data.augment.scene import Picture, Tile, place


def draw_centre(size: tuple[int, int], rng: np.random.Generator) -> tuple[int, int]:
    """The point (x, y) where the four meet: whole pixels, uniform over the middle half of the canvas 2 × `size`."""
    y, x = (int(rng.uniform(side // 2, 2 * side - side // 2)) for side in size)
    return x, y


def mosaic_tiles(pictures: Sequence[Picture], centre: tuple[int, int], size: tuple[int, int]) -> list[Tile]:
    """Upper left, upper right, lower left and lower right picture around `centre` (x, y) of a canvas of 2 × `size`."""
    canvas_height, canvas_width = 2 * size[0], 2 * size[1]
    tiles = []
    for i, picture in enumerate(pictures):
        height, width = picture.size
        x = centre[0] if i % 2 else centre[0] - width
        y = centre[1] if i // 2 else centre[1] - height
        box = max(x, 0), max(y, 0), min(x + width, canvas_width), min(y + height, canvas_height)
        tiles.append(place(picture, x, y, 1.0, box))
    return tiles
