"""A single picture in the middle of a canvas."""

from __future__ import annotations

from utils.data.augment.scene import Picture, Tile, place


def letterboxed_tile(picture: Picture, canvas: tuple[int, int]) -> Tile:
    """`picture` scaled until it touches the `canvas` (height, width) from within, in its middle."""
    height, width = picture.size
    ratio = min(canvas[0] / height, canvas[1] / width)
    height, width = round(height * ratio), round(width * ratio)
    x, y = (canvas[1] - width) / 2, (canvas[0] - height) / 2
    return place(picture, x, y, ratio, (x, y, x + width, y + height))
