"""Copy-paste: some objects appear a second time, mirrored (after Ghiasi et al. 2021). It needs polygons."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from utils.data.augment.tiles import Tile
from utils.data.instances import Instances
from utils.ops.geometry import mirroring

MAX_COVERED = 0.3  # the share of an object's box that the box of a pasted one may cover


def copy_paste(tiles: Sequence[Tile], canvas: tuple[int, int], fraction: float, rng: np.random.Generator) -> list[Tile]:
    """Add mirror images of a random `fraction` of the objects above the `tiles`, as a tile for each object.

    The canvas is mirrored left to right. A copy that would hide much of an object is left out. Without polygons nothing
    is pasted.
    """
    result = list(tiles)
    objects = Instances.concatenate([tile.instances for tile in tiles]).clip(canvas)
    if not objects.polygons or not fraction:
        return result
    owners = np.repeat(np.arange(len(tiles)), [len(tile.instances) for tile in tiles])
    mirror = mirroring(width=canvas[1])
    boxes = objects.boxes
    for i in rng.permutation(len(objects))[: round(fraction * len(objects))]:
        copy = objects.select(np.array([i])).warp(mirror)
        outline = copy.polygons[0] if copy.polygons else ()
        if len(outline) < 3 or (_covered(boxes, copy.boxes[0]) >= MAX_COVERED).any():
            continue
        source = tiles[owners[i]]
        result.append(Tile(source.image, mirror @ source.matrix, np.asarray(outline, np.float64), copy))
        boxes = np.concatenate((boxes, copy.boxes))
    return result


def _covered(boxes: np.ndarray, by: np.ndarray) -> np.ndarray:
    """The share (n,) of each of the `boxes` (n, 4) xyxy that the box `by` (4,) covers."""
    sides = np.minimum(boxes[:, 2:], by[2:]) - np.maximum(boxes[:, :2], by[:2])
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return sides.clip(0).prod(1) / np.maximum(areas, 1e-7)
