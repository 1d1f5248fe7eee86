"""A training sample's picture: which images, seen how, in which colours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from utils.data.augment.camera import Camera, draw_camera
from utils.data.augment.color import change_color, draw_color_gains
from utils.data.augment.copy_paste import copy_paste
from utils.data.augment.letterboxed import letterboxed_tile
from utils.data.augment.mixup import draw_share, mixup
from utils.data.augment.mosaic import draw_centre, mosaic_tiles
from utils.data.augment.scene import Picture, View, render
from utils.data.augment.warp import Recolor


def training_view(
    index: int,
    mosaic_indices: Sequence[int],
    picture: Callable[[int], Picture],
    size: tuple[int, int],
    hyp: Mapping[str, float],
    rng: np.random.Generator,
    mosaic: bool = True,
) -> View:
    """A random view of picture `index`, alone or together with some of the images `mosaic_indices`.

    Args:
        index: the picture that must be in it.
        mosaic_indices: `MOSAIC_INDICES` others, drawn at random.
        picture: gives the picture of an index.
        size: (height, width) of the result.
        hyp: gains and probabilities of all augmentations.
        rng: decides.
        mosaic: False forbids mosaics (rectangular batches).
    """
    camera = draw_camera(hyp, rng)
    recolor = partial(change_color, gains=draw_color_gains(hyp, rng))
    if mosaic and rng.random() < hyp["mosaic"]:
        view = _mosaic_view([index, *mosaic_indices[:3]], picture, size, camera, recolor, hyp, rng)
        if rng.random() < hyp["mixup"]:
            other = draw_camera(hyp, rng)._replace(flip_lr=camera.flip_lr, flip_ud=camera.flip_ud)
            second = _mosaic_view(list(mosaic_indices[3:7]), picture, size, other, recolor, hyp, rng)
            return mixup(view, second, draw_share(rng))
        return view
    tile = letterboxed_tile(picture(index), size)
    corner = float(tile.outline[0, 0]), float(tile.outline[0, 1])
    return render([tile], size, camera.matrix(size, size, corner), size, camera.scale, recolor)


def _mosaic_view(
    indices: list[int],
    picture: Callable[[int], Picture],
    size: tuple[int, int],
    camera: Camera,
    recolor: Recolor,
    hyp: Mapping[str, float],
    rng: np.random.Generator,
) -> View:
    """Four pictures in random order around a random centre."""
    canvas = 2 * size[0], 2 * size[1]
    centre = draw_centre(size, rng)
    tiles = mosaic_tiles([picture(indices[i]) for i in rng.permutation(4)], centre, size)
    if hyp["copy_paste"]:
        tiles = copy_paste(tiles, canvas, hyp["copy_paste"], rng)
    return render(tiles, canvas, camera.matrix(canvas, size, centre), size, camera.scale, recolor)
