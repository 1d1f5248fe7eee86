"""Tiles: mosaics against pasting and warping step by step, and single tiles against bilinear sampling in numpy."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from tests.utils.data import pictures
from tests.utils.data.pictures import texture
from utils.data.augment import tiles
from utils.data.augment.camera import Camera, draw_camera
from utils.data.augment.tiles import SourceImage, draw_centre, mosaic_tiles, paint, render, shrink_for
from utils.data.instances import Instances
from utils.hyp import load_hyp
from utils.ops.geometry import mirroring, project, scaling, translation

SIZES = {
    "square": ((160, 160), [(120, 160), (160, 100), (160, 160), (90, 160)]),
    "wide": ((128, 224), [(128, 171), (126, 224), (128, 100), (60, 224)]),
}


def four_images(name, seed=0):
    """Four pictures of the sizes that fit, and three boxes in each."""
    size, shapes = SIZES[name]
    rng = np.random.default_rng(seed)
    images, boxes = [], []
    for i, (height, width) in enumerate(shapes):
        images.append(pictures.texture(height, width, 10 * seed + i))
        low = rng.uniform(0, 0.7, (3, 2))
        boxes.append(np.concatenate((low, low + rng.uniform(0.05, 0.3, (3, 2))), 1) * [width, height, width, height])
    made = [
        SourceImage(image, image.shape[:2], Instances(np.arange(3, dtype=np.float32), own.astype(np.float32)))
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
    size, images, boxes, made = four_images(name, seed)
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
    """A picture kept at half its size shows the same, only softer, with the same boxes."""
    size, _, _, made = four_images("square")
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
    size, images, boxes, made = four_images("square", 3)
    canvas = 2 * size[0], 2 * size[1]
    ours: list = []
    plain: list = []
    rng = np.random.default_rng(5)
    for _ in range(1200):
        order = rng.permutation(4)
        centre, camera = draw_centre(size, rng), draw_camera(hyp, rng)
        placed = mosaic_tiles([made[i] for i in order], centre, size)
        found = render(placed, canvas, camera.matrix(canvas, size, centre), size, camera.scale)
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


# --- one tile ---------------------------------------------------------------------------------------------------------


def bilinear(image, matrix, size):
    """Float64 sampling at pixel centres, edges continued: what `paint` is to give, in numpy."""
    height, width = size
    ys, xs = np.mgrid[0:height, 0:width] + 0.5
    x, y = (project(np.stack((xs.ravel(), ys.ravel()), 1), np.linalg.inv(matrix)) - 0.5).T
    x, y = x.clip(0, image.shape[1] - 1), y.clip(0, image.shape[0] - 1)
    x0, y0 = np.minimum(x.astype(int), image.shape[1] - 2), np.minimum(y.astype(int), image.shape[0] - 2)
    fx, fy = (x - x0)[:, None], (y - y0)[:, None]
    pixels = image.astype(np.float64)
    top = pixels[y0, x0] * (1 - fx) + pixels[y0, x0 + 1] * fx
    below = pixels[y0 + 1, x0] * (1 - fx) + pixels[y0 + 1, x0 + 1] * fx
    return (top * (1 - fy) + below * fy).reshape(height, width, 3)


def outline_of(image, matrix):
    h, w = image.shape[:2]
    return project(np.array([[0.0, 0], [w, 0], [w, h], [0, h]]), matrix)


def inside(outline, size):
    """Mask of pixel centres within a convex polygon, by the side of each edge they are on."""
    ys, xs = np.mgrid[0 : size[0], 0 : size[1]] + 0.5
    sides = []
    for (x1, y1), (x2, y2) in zip(outline, np.roll(outline, -1, 0), strict=True):
        sides.append((x2 - x1) * (ys - y1) - (y2 - y1) * (xs - x1))
    signs = np.stack(sides)
    return (signs >= 0).all(0) | (signs <= 0).all(0)


UPRIGHT = [
    (mx, my, s, x, y)
    for mx in (False, True)
    for my in (False, True)
    for s, x, y in ((0.73, 11, 7), (1.37, 11, 7), (1.0, 3, 5), (0.91, -60, -41), (1.61, -90, 31))
]


@pytest.mark.parametrize(("mirror_x", "mirror_y", "scale", "x", "y"), UPRIGHT)
@pytest.mark.parametrize("edge", ["first", "last", "neither"])
def test_upright_views_are_bilinear_samples(mirror_x, mirror_y, scale, x, y, edge):
    """Whichever edge lies on the pixel grid, and in the slow way if none does; mirrored or not."""
    image = texture(90, 120, 1)
    size = (150, 170)
    shift = {"first": (x, y), "last": (170 - 120 * scale - x, 150 - 90 * scale - y), "neither": (x + 0.4, y - 0.3)}[
        edge
    ]
    matrix = translation(*shift) @ scaling(scale, scale)
    matrix = mirroring(170 if mirror_x else None, 150 if mirror_y else None) @ matrix
    outline = outline_of(image, matrix)
    canvas = np.full((*size, 3), 114, np.uint8)
    paint(canvas, image, matrix, outline)
    mask = inside(outline, size)
    assert (canvas[~mask] == 114).all()
    difference = np.abs(canvas.astype(float) - bilinear(image, matrix, size))[mask]
    assert difference.max() < (2.0 if edge == "neither" else 1.2)  # weights in steps of 1/32, or 1/2048
    assert difference.mean() < 0.5


def test_the_fast_way_is_taken(monkeypatch):
    monkeypatch.setattr(tiles, "_warp", None)  # would fail if it were called
    image = texture(90, 120, 1)
    for matrix in (translation(5, 6) @ scaling(0.7, 0.7), translation(170 - 84, 150 - 63) @ scaling(0.7, 0.7)):
        paint(np.zeros((150, 170, 3), np.uint8), image, matrix, outline_of(image, matrix))


TILTED = [
    translation(40, -10) @ np.array([[0.9, 0.35, 0], [-0.35, 0.9, 0], [0, 0, 1.0]]),
    translation(10, 20) @ np.array([[0.9, 0.1, 0], [0.05, 1.2, 0], [8e-4, -5e-4, 1.0]]),
    translation(170, 20) @ np.array([[-0.9, 0.1, 0], [0.05, 1.2, 0], [-3e-4, 5e-4, 1.0]]),
]


@pytest.mark.parametrize("matrix", TILTED)
def test_tilted_views_are_bilinear_samples_within_their_outline(matrix):
    image = texture(90, 120, 2)
    size = (150, 170)
    canvas = np.full((*size, 3), 114, np.uint8)
    outline = outline_of(image, matrix)
    paint(canvas, image, matrix, outline)
    mask = inside(outline, size)
    grown = cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    assert (canvas[~grown] == 114).all()
    assert mask.sum() > 3000
    difference = np.abs(canvas.astype(float) - bilinear(image, matrix, size))[mask]
    assert difference.max() < 4
    assert difference.mean() < 0.6


def test_only_the_outline_is_painted():
    canvas = np.zeros((40, 60, 3), np.uint8)
    image = np.full((40, 60, 3), 255, np.uint8)
    star = np.array([[5.0, 5], [30, 15], [55, 5], [30, 35]])  # concave
    paint(canvas, image, np.eye(3), star)
    assert canvas[20, 30].tolist() == [255] * 3
    assert canvas[6, 30].tolist() == [0] * 3
    assert (canvas[:, :, 0] > 0).sum() == pytest.approx(500, rel=0.15)  # its area is 25 * 20 = 500


def test_neighbours_meet_without_gap_or_overlap():
    counts = np.zeros((64, 64, 3), np.uint8)
    ones = np.ones((50, 50, 3), np.uint8)
    for x in (-19.5, 30.5):
        layer = np.zeros_like(counts)
        matrix = translation(x, 7.3)
        paint(layer, ones, matrix, outline_of(ones, matrix))
        counts += layer
    assert (counts[7:57, :, 0] == 1).all()
    assert counts[:7].max() == counts[57:].max() == 0


def test_nothing_outside_is_touched():
    canvas = np.zeros((20, 20, 3), np.uint8)
    image = np.full((10, 10, 3), 9, np.uint8)
    for matrix in (translation(30, 0), translation(0, -10), translation(19.6, 0) @ scaling(0.01, 0.01)):
        paint(canvas, image, matrix, outline_of(image, matrix))
    turned = translation(100, 100) @ np.array([[0.9, 0.3, 0], [-0.3, 0.9, 0], [0, 0, 1.0]])
    paint(canvas, image, turned, outline_of(image, turned))
    assert not canvas.any()


@pytest.mark.parametrize("scale", [0.1, 0.2, 0.26, 0.45])
def test_strong_reduction_does_not_alias(scale):
    """Black and white stripes of one pixel become grey, as their mean is; plain bilinear sampling shows stripes."""
    image = np.zeros((400, 400, 3), np.uint8)
    image[:, ::2] = 255
    matrix = scaling(scale, scale)
    canvas = np.zeros((40, 40, 3), np.uint8)
    paint(canvas, image, matrix, outline_of(image, matrix))
    assert np.abs(canvas[2:-2, 2:-2].astype(int) - 127.5).max() < 3


def test_halving_keeps_the_place():
    image = texture(101, 203, 3)  # odd sides lose a row and a column at the far end, not their place
    for scale in (0.07, 0.2, 0.3, 0.6, 1.0):
        small, matrix = shrink_for(image, translation(5, 6) @ scaling(scale, scale), (0.0, 0.0))
        step = 203 // small.shape[1]
        assert matrix[0, 0] == pytest.approx(scale * step)
        assert matrix[0, 0] >= 0.49 or min(small.shape[:2]) < 4
        assert matrix[0, 2] == 5
        mean = image[: 101 // step * step, : 203 // step * step].reshape(101 // step, step, 203 // step, step, 3)
        if step in (1, 2, 4):
            assert np.abs(small[: 101 // step, : 203 // step] - mean.mean((1, 3))).max() <= 1.0


@pytest.mark.parametrize("matrix", [scaling(0.7, 0.7), scaling(1.4, 1.4), translation(0.3, 0.3), TILTED[0]])
def test_recolouring_reaches_every_painted_pixel_once(matrix):
    """Enlarged, reduced, off the pixel grid and tilted; the image itself, which a cache keeps, stays as it is."""
    image = texture(90, 120, 5)
    kept = image.copy()
    outline = outline_of(image, matrix)
    plain, negative = np.full((2, 150, 170, 3), 114, np.uint8)
    paint(plain, image, matrix, outline)
    paint(negative, image, matrix, outline, lambda pixels: 255 - pixels)
    mask = inside(outline, (150, 170))
    assert np.abs(255 - plain[mask].astype(int) - negative[mask]).max() <= 1
    assert (plain[~mask] == negative[~mask]).mean() > 0.97
    np.testing.assert_array_equal(image, kept)
