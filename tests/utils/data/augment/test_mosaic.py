from __future__ import annotations

import numpy as np
import pytest

from tests.utils.data import pictures
from utils.data.augment.camera import Camera, draw_camera
from utils.data.augment.mosaic import draw_centre, mosaic_tiles
from utils.data.augment.scene import Picture, render
from utils.data.instances import Instances
from utils.hyp import load_hyp

SIZES = {
    "square": ((160, 160), [(120, 160), (160, 100), (160, 160), (90, 160)]),
    "wide": ((128, 224), [(128, 171), (126, 224), (128, 100), (60, 224)]),
}


def scene(name, seed=0):
    """Four pictures of the sizes that fit, and three boxes in each."""
    size, shapes = SIZES[name]
    rng = np.random.default_rng(seed)
    images, boxes = [], []
    for i, (height, width) in enumerate(shapes):
        images.append(pictures.texture(height, width, 10 * seed + i))
        low = rng.uniform(0, 0.7, (3, 2))
        boxes.append(np.concatenate((low, low + rng.uniform(0.05, 0.3, (3, 2))), 1) * [width, height, width, height])
    made = [
        Picture(image, image.shape[:2], Instances(np.arange(3, dtype=np.float32), own.astype(np.float32)))
        for image, own in zip(images, boxes, strict=True)
    ]
    return size, images, boxes, made


CAMERAS = {
    "upright": Camera(scale=0.8, centre=(0.45, 0.56)),
    "enlarged": Camera(scale=1.45, centre=(0.55, 0.46), flip_lr=True),
    "small": Camera(scale=0.5),
    "turned": Camera(degrees=20.0, scale=0.9, centre=(0.5, 0.55)),
    "everything": Camera(-13.0, 1.2, (6.0, -4.0), (5e-4, -3e-4), (0.48, 0.55), True, True),
}


@pytest.mark.parametrize("camera", CAMERAS.values(), ids=CAMERAS)
@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("seed", [0, 1])
def test_one_warp_equals_paste_and_warp(name, camera, seed):
    """The same pixels (but for interpolated seams) and exactly the same boxes as pasting first and warping then."""
    size, images, boxes, made = scene(name, seed)
    canvas = 2 * size[0], 2 * size[1]
    centre = draw_centre(size, np.random.default_rng(seed))
    matrix = camera.matrix(canvas, size, centre)
    image, instances = render(mosaic_tiles(made, centre, size), canvas, matrix, size, camera.scale)
    plain, all_boxes, kept = pictures.seen(*pictures.pasted(images, boxes, centre, size), matrix, size, camera.scale)
    np.testing.assert_allclose(instances.boxes, all_boxes[kept], atol=1e-3)
    assert instances.classes.tolist() == np.tile(np.arange(3), 4)[kept].tolist()
    assert 0 < len(instances) <= 12
    difference = np.abs(image.astype(int) - plain).max(2)
    seams = difference > 3  # which the canvas blends over one pixel
    assert seams.mean() < 0.03
    assert difference[~seams].mean() < 0.6


def test_stored_smaller_than_it_counts():
    """A picture kept at half its size shows the same scene, only softer, with the same boxes."""
    size, _, _, made = scene("square")
    halves = [p._replace(image=p.image[::2, ::2]) for p in made]
    canvas, centre = (320, 320), (150, 170)
    matrix = Camera(scale=0.9).matrix(canvas, size, centre)
    full, half = (render(mosaic_tiles(p, centre, size), canvas, matrix, size, 0.9) for p in (made, halves))
    np.testing.assert_allclose(full.instances.boxes, half.instances.boxes, atol=1e-4)
    assert np.abs(full.image.astype(int) - half.image).mean() < 12


def test_centre_is_uniform_over_the_middle_half():
    rng = np.random.default_rng(0)
    x, y = np.array([draw_centre((100, 200), rng) for _ in range(20_000)]).T
    assert (x.min(), x.max(), y.min(), y.max()) == (100, 299, 50, 149)
    assert x.mean() == pytest.approx(199.5, abs=1.5)
    assert y.std() == pytest.approx(100 / 12**0.5, rel=0.02)


@pytest.mark.parametrize("name", ["hyp.scratch-low.yaml", "hyp.scratch-high.yaml"])
def test_statistics_are_those_of_paste_and_warp(name):
    """Own random draws on both sides: objects a mosaic, their sizes, centres, and the share of grey."""
    hyp = {**load_hyp(name), "degrees": 10.0 if "high" in name else 0.0}
    size, images, boxes, made = scene("square", 3)
    canvas = 2 * size[0], 2 * size[1]
    ours: list = []
    plain: list = []
    rng = np.random.default_rng(5)
    for _ in range(1200):
        order = rng.permutation(4)
        centre, camera = draw_centre(size, rng), draw_camera(hyp, rng)
        tiles = mosaic_tiles([made[i] for i in order], centre, size)
        found = render(tiles, canvas, camera.matrix(canvas, size, centre), size, camera.scale)
        ours.append((found.instances.boxes, (found.image == pictures.GREY).all(2).mean()))
    other = np.random.default_rng(6)
    for _ in range(1200):
        order = other.permutation(4)
        xc, yc = (int(other.uniform(s // 2, 2 * s - s // 2)) for s in size[::-1])
        matrix, zoom = pictures.random_matrix(canvas, size, hyp, other)
        pasted = pictures.pasted([images[i] for i in order], [boxes[i] for i in order], (xc, yc), size)
        image, found, kept = pictures.seen(*pasted, matrix, size, zoom)
        plain.append((found[kept], (image == pictures.GREY).all(2).mean()))
    for statistic, tolerance in STATISTICS.values():
        assert statistic(ours) == pytest.approx(statistic(plain), **tolerance)


def sides(samples):
    every = np.concatenate([b for b, _ in samples])
    return every[:, 2:] - every[:, :2]


def centres(samples):
    return np.concatenate([b[:, :2] + b[:, 2:] for b, _ in samples]) / 2


STATISTICS = {
    "objects a mosaic": (lambda s: np.mean([len(b) for b, _ in s]), {"rel": 0.04}),
    "spread of that": (lambda s: np.std([len(b) for b, _ in s]), {"rel": 0.08}),
    "sides": (lambda s: sides(s).mean(0), {"rel": 0.05}),
    "percentiles of sides": (lambda s: np.percentile(sides(s), [10, 25, 50, 75, 90], axis=0), {"rel": 0.1}),
    "centres": (lambda s: centres(s).mean(0), {"abs": 3.0}),
    "spread of centres": (lambda s: centres(s).std(0), {"rel": 0.04}),
    "grey": (lambda s: np.mean([g for _, g in s]), {"abs": 0.02}),
}
