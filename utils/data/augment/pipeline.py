"""The augmentation pipeline: which images a training sample shows, how they are seen, and in which colours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import cv2
import numpy as np

from utils.data.augment.camera import Camera, draw_camera
from utils.data.augment.copy_paste import copy_paste
from utils.data.augment.tiles import (
    AugmentedImage,
    Recolor,
    SourceImage,
    draw_centre,
    letterboxed_tile,
    mosaic_tiles,
    render,
)
from utils.data.instances import Instances

MIXUP_BETA = 32.0  # both parameters of the distribution of the shares, which therefore stay near a half
_LEVELS = np.arange(256)
_MAX_HUE = 179  # OpenCV's hue, in units of two degrees


def augmented_image(
    index: int,
    mosaic_indices: Sequence[int],
    source: Callable[[int], SourceImage],
    size: tuple[int, int],
    hyp: Mapping[str, float],
    rng: np.random.Generator,
    mosaic: bool = True,
) -> AugmentedImage:
    """A random view of image `index`, alone or together with some of the images `mosaic_indices`.

    Args:
        index: the image that is always in it.
        mosaic_indices: as many others as `utils.data.sampling` says, drawn at random.
        source: returns the image of an index.
        size: (height, width) of the result.
        hyp: gains and probabilities of all augmentations.
        rng: makes all random choices.
        mosaic: False forbids mosaics (rectangular batches).
    """
    camera = draw_camera(hyp, rng)
    recolor = partial(change_color, gains=draw_color_gains(hyp, rng))
    if mosaic and rng.random() < hyp["mosaic"]:
        image = _mosaic([index, *mosaic_indices[:3]], source, size, camera, recolor, hyp, rng)
        if rng.random() < hyp["mixup"]:
            other = draw_camera(hyp, rng)._replace(flip_lr=camera.flip_lr, flip_ud=camera.flip_ud)
            second = _mosaic(list(mosaic_indices[3:7]), source, size, other, recolor, hyp, rng)
            return mixup(image, second, draw_share(rng))
        return image
    tile = letterboxed_tile(source(index), size)
    corner = float(tile.outline[0, 0]), float(tile.outline[0, 1])
    return render([tile], size, camera.matrix(size, size, corner), size, camera.scale, recolor)


def _mosaic(
    indices: list[int],
    source: Callable[[int], SourceImage],
    size: tuple[int, int],
    camera: Camera,
    recolor: Recolor,
    hyp: Mapping[str, float],
    rng: np.random.Generator,
) -> AugmentedImage:
    """Four images in random order around a random centre."""
    canvas = 2 * size[0], 2 * size[1]
    centre = draw_centre(size, rng)
    tiles = mosaic_tiles([source(indices[i]) for i in rng.permutation(4)], centre, size)
    if hyp["copy_paste"]:
        tiles = copy_paste(tiles, canvas, hyp["copy_paste"], rng)
    return render(tiles, canvas, camera.matrix(canvas, size, centre), size, camera.scale, recolor)


# --- MixUp ------------------------------------------------------------------------------------------------------------


def draw_share(rng: np.random.Generator) -> float:
    """The random share that the first of two images has in their blend."""
    return float(rng.beta(MIXUP_BETA, MIXUP_BETA))


def mixup(first: AugmentedImage, second: AugmentedImage, share: float) -> AugmentedImage:
    """Blend two images and keep the objects of both (Zhang et al. 2018): ``share * first + (1 - share) * second``.

    Writes to the first image.
    """
    image = cv2.addWeighted(first.image, share, second.image, 1.0 - share, 0.0, dst=first.image)
    return AugmentedImage(image, Instances.concatenate([first.instances, second.instances]))


# --- colour -----------------------------------------------------------------------------------------------------------


def draw_color_gains(hyp: Mapping[str, float], rng: np.random.Generator) -> tuple[float, float, float]:
    """Random factors of hue, saturation and value, each within 1 ± its gain in `hyp` (hsv_h, hsv_s, hsv_v)."""
    hue, saturation, value = (1.0 + rng.uniform(-1.0, 1.0, 3) * (hyp["hsv_h"], hyp["hsv_s"], hyp["hsv_v"])).tolist()
    return hue, saturation, value


def change_color(image: np.ndarray, gains: tuple[float, float, float]) -> np.ndarray:
    """Multiply hue (a circle), saturation and value (up to 255) of a BGR `image` (h, w, 3) uint8 by `gains`."""
    if gains == (1.0, 1.0, 1.0):
        return image
    # as one row, since OpenCV does the end of each row pixel by pixel, at a fraction of the speed
    hsv = cv2.cvtColor(image.reshape(1, -1, 3), cv2.COLOR_BGR2HSV).reshape(image.shape)
    if _MAX_HUE * gains[0] <= 255:  # hues of 180 to 255 still come out right, so one pass does all three channels
        hue, saturation, value = gains
        matrix = np.array(((hue, 0.0, 0.0), (0.0, saturation, 0.0), (0.0, 0.0, value)))  # np.diag is slow to begin
        changed = cv2.transform(hsv, matrix, dst=hsv)
    else:
        hue_table = _LEVELS * gains[0] % (_MAX_HUE + 1)
        saturation_table, value_table = (np.minimum(_LEVELS * gain, 255) for gain in gains[1:])
        changed = cv2.LUT(hsv, np.stack((hue_table, saturation_table, value_table), 1).astype(np.uint8)[None])
    return cv2.cvtColor(changed, cv2.COLOR_HSV2BGR, dst=hsv)
