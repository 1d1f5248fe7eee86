from __future__ import annotations

import cv2
import numpy as np
import pytest

from tests.utils.data.pictures import texture
from utils.data.augment import warp
from utils.ops.geometry import mirroring, project, scaling, translation
from utils.data.augment.warp import paint, shrink_for


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
    monkeypatch.setattr(warp, "_warp", None)  # would fail if it were called
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
