"""Small data sets for tests of the data pipeline, and a plain mosaic to compare with."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np

from utils.data.indexing.index import ImageIndex

GREY = 114


def texture(height: int, width: int, seed: int) -> np.ndarray:
    """A smooth BGR picture, so that sampling half a pixel away changes little."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (max(height // 16, 2), max(width // 16, 2), 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def make_index(
    folder: Path,
    shapes: list[tuple[int, int]],
    *,
    objects: int = 3,
    polygons: bool = False,
    suffix: str = "png",
    seed: int = 0,
    texture_of=texture,
) -> ImageIndex:
    """Pictures of `shapes` with up to `objects` random boxes each (every fifth has none), written to `folder`."""
    rng = np.random.default_rng(seed)
    paths, counts, classes, boxes = [], [], [], []
    for i, (height, width) in enumerate(shapes):
        path = folder / f"{i:03}.{suffix}"
        cv2.imwrite(str(path), texture_of(height, width, i))
        paths.append(str(path))
        count = 0 if i % 5 == 4 else int(rng.integers(1, objects + 1))
        counts.append(count)
        for _ in range(count):
            w, h = rng.uniform(0.05, 0.6, 2)
            boxes.append((rng.uniform(w / 2, 1 - w / 2), rng.uniform(h / 2, 1 - h / 2), w, h))
            classes.append(int(rng.integers(0, 4)))
    array = np.array(boxes, np.float32).reshape(-1, 4)
    outlines = None
    if polygons:
        low, high = array[:, :2] - array[:, 2:] / 2, array[:, :2] + array[:, 2:] / 2
        outlines = np.stack((low, np.stack((high[:, 0], low[:, 1]), 1), high, np.stack((low[:, 0], high[:, 1]), 1)), 1)
    return ImageIndex.from_arrays(
        paths, np.array(shapes), counts, np.array(classes, np.float32), array,
        None if outlines is None else outlines.reshape(-1, 2), None if outlines is None else [4] * len(array),
    )  # fmt: skip


def make_shapes(folder: Path, shapes: list[tuple[int, int]], *, objects: int = 2, seed: int = 0) -> ImageIndex:
    """Black pictures with up to `objects` white stars or (rows that are boxes) rectangles, and their outlines.

    White is where the objects are, so the pixels of an augmented sample say where its masks must be.
    """
    rng = np.random.default_rng(seed)
    fine = 8  # as fine as this is drawn, then averaged: edges are worth what they cover
    paths, counts, outlines, boxes = [], [], [], []
    for i, (height, width) in enumerate(shapes):
        canvas = np.zeros((height * fine, width * fine), np.uint8)
        count = 0 if i % 6 == 5 else int(rng.integers(1, objects + 1))
        for j in range(count):
            turn, radius = rng.uniform(0, 6), rng.uniform(0.12, 0.3) * min(height, width)
            angle = np.arange(10) * np.pi / 5 + turn
            points = np.stack((np.cos(angle), np.sin(angle)), 1) * np.where(np.arange(10) % 2, 0.5, 1)[:, None]
            if j:
                points = np.array([[-0.7, -0.5], [0.7, -0.5], [0.7, 0.5], [-0.7, 0.5]])
            points = (points * radius + rng.uniform(0.3, 0.7, 2) * (width, height)).astype(np.float32)
            cv2.fillPoly(canvas, [np.rint(points * fine - 0.5).astype(np.int32)], 255)
            points = points / np.float32((width, height))
            outlines.append(points)
            boxes.append((*(points.min(0) + points.max(0)) / 2, *np.ptp(points, 0)))
        image = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)
        paths.append(str(folder / f"{i:03}.png"))
        cv2.imwrite(paths[-1], cv2.merge([image] * 3))
        counts.append(count)
    return ImageIndex.from_arrays(
        paths, np.array(shapes), counts, np.arange(len(boxes)) % 4, np.array(boxes, np.float32),
        np.concatenate(outlines), [len(points) for points in outlines],
    )  # fmt: skip


# --- the plain way, step by step: paste on a canvas of twice the side, then warp it -----------------------------------


def pasted(images, boxes, centre, size):
    """Canvas 2 × `size` with four `images` around `centre` (x, y), and their `boxes` (xyxy pixels) on it, cut by it."""
    height, width = 2 * size[0], 2 * size[1]
    canvas = np.full((height, width, 3), GREY, np.uint8)
    moved = []
    xc, yc = centre
    for position, (image, own) in enumerate(zip(images, boxes, strict=True)):
        h, w = image.shape[:2]
        x, y = (xc - w if position in (0, 2) else xc), (yc - h if position in (0, 1) else yc)
        x1, y1, x2, y2 = max(x, 0), max(y, 0), min(x + w, width), min(y + h, height)
        canvas[y1:y2, x1:x2] = image[y1 - y : y2 - y, x1 - x : x2 - x]
        moved.append(own + np.array([x, y, x, y]))
    return canvas, np.concatenate(moved).clip(0, [width, height, width, height])


def seen(canvas, boxes, matrix, size, scale):
    """`canvas` through `matrix`, upright boxes around the warped corners, and which of them are kept.

    Pixels and labels share continuous coordinates, so OpenCV (centres on whole numbers) needs the two half pixels.
    """
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    image = cv2.warpPerspective(
        canvas, np.linalg.inv(half) @ matrix @ half, (size[1], size[0]), borderValue=(GREY, GREY, GREY)
    )
    found, kept = [], []
    for x1, y1, x2, y2 in boxes:
        points = matrix @ np.array([[x1, y1, 1], [x2, y1, 1], [x2, y2, 1], [x1, y2, 1]]).T
        points = (points[:2] / points[2]).T
        low, high = points.min(0).clip(0, size[::-1]), points.max(0).clip(0, size[::-1])
        w, h = high - low
        before = (x2 - x1) * (y2 - y1) * scale**2
        found.append((*low, *high))
        kept.append(w > 2 and h > 2 and w * h / (before + 1e-16) > 0.1 and max(w / h, h / w) < 100)
    return image, np.array(found).reshape(-1, 4), np.array(kept, bool)


def random_matrix(canvas, size, hyp, rng):
    """YOLOv5's random_perspective in scalars: the matrix and its zoom."""
    angle = math.radians(rng.uniform(-hyp["degrees"], hyp["degrees"]))
    zoom = rng.uniform(1 - hyp["scale"], 1 + hyp["scale"])
    tan_x, tan_y = (math.tan(math.radians(rng.uniform(-hyp["shear"], hyp["shear"]))) for _ in range(2))
    px, py = (rng.uniform(-hyp["perspective"], hyp["perspective"]) for _ in range(2))
    tx, ty = (rng.uniform(0.5 - hyp["translate"], 0.5 + hyp["translate"]) for _ in range(2))
    centre = np.array([[1, 0, -canvas[1] / 2], [0, 1, -canvas[0] / 2], [0, 0, 1]])
    perspective = np.array([[1, 0, 0], [0, 1, 0], [px, py, 1]])
    c, s = zoom * math.cos(angle), zoom * math.sin(angle)
    rotation = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
    shear = np.array([[1, tan_x, 0], [tan_y, 1, 0], [0, 0, 1]])
    place = np.array([[1, 0, tx * size[1]], [0, 1, ty * size[0]], [0, 0, 1]])
    return place @ shear @ rotation @ perspective @ centre, zoom
