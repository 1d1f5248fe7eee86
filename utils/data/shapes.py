"""The embedded data set: coloured shapes on textured backgrounds. This file draws them, the same on every machine.

It needs no network and takes a few seconds. Each outline is a polygon, and detection reads its box from that. The
colour says nothing about the class, objects take 5 to 40 % of the shorter side, some hide a part of others, and some
images are empty.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from utils.errors import UserError
from utils.logging import LOGGER
from utils.progress import Progress

NAMES = ("circle", "square", "triangle", "star")
SPLITS = {"train": 320, "val": 80}
VERSION = 3  # to be raised whenever the images change, so that a folder drawn before is drawn again

_MARKER = "drawn-by-version.txt"
_SIZES = ((320, 320), (256, 320), (320, 256), (240, 320), (320, 240), (208, 320))  # (height, width)
_SCALE = (0.05, 0.40)  # longer side of an object's box by the shorter side of the image
_MOST = 7  # the most objects in an image
_HIDDEN = 0.3  # the part of an object that later ones may cover; its label is still its full outline
_EMPTY = 0.06  # the share of images without objects


class DrawnImage(NamedTuple):
    """One image of the data set and the objects in it."""

    image: np.ndarray  # (h, w, 3) uint8 BGR
    classes: list[int]
    polygons: list[np.ndarray]  # (k, 2) float64 pixels, inside the image


def generate_shapes(folder: str | Path) -> Path:
    """Draw the data set into `folder` unless it is there already in this version.

    It is drawn in another folder, which is renamed at the end, so that a killed process or two at once never leave an
    incomplete one. Raises `UserError` if `folder` has something that this function did not draw, or cannot be written.
    """
    folder = Path(folder)
    if _is_current(folder):
        return folder
    if folder.exists() and not (folder / _MARKER).is_file() and any(folder.iterdir()):
        raise UserError(
            f"'{folder}' is not the embedded data set and will not be overwritten; move it, or set another 'path'"
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise UserError(
            f"cannot draw the embedded data set into '{folder}': {error.strerror}; "
            "name another place with the environment variable YOLOv5_DATASETS_DIR"
        ) from error
    try:
        LOGGER.info(f"drawing the embedded data set into {folder}")
        _draw_all(fresh)
        fresh.chmod(0o755)  # mkdtemp makes a private one
        _move_into_place(fresh, folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return folder


def _is_current(folder: Path) -> bool:
    marker = folder / _MARKER
    return marker.is_file() and marker.read_text(encoding="utf-8").strip() == str(VERSION)


def _draw_all(folder: Path) -> None:
    numbers = [(split, i) for split, count in SPLITS.items() for i in range(count)]
    for split in SPLITS:
        (folder / "images" / split).mkdir(parents=True)
        (folder / "labels" / split).mkdir(parents=True)
    for split, i in Progress(numbers, "drawing shapes", unit="images"):
        drawn = draw_image(np.random.default_rng([VERSION, list(SPLITS).index(split), i]))
        stem = f"{split}{i:04d}"
        cv2.imwrite(str(folder / "images" / split / f"{stem}.jpg"), drawn.image, [cv2.IMWRITE_JPEG_QUALITY, 90])
        (folder / "labels" / split / f"{stem}.txt").write_text(_rows(drawn), encoding="utf-8")
    (folder / _MARKER).write_text(f"{VERSION}\n", encoding="utf-8")


def _rows(drawn: DrawnImage) -> str:
    """Polygon label rows, ``class x1 y1 x2 y2 …`` normalised."""
    h, w = drawn.image.shape[:2]
    rows = []
    for number, polygon in zip(drawn.classes, drawn.polygons, strict=True):
        rows.append(f"{number} " + " ".join(f"{v:.5f}" for v in (polygon / (w, h)).ravel()) + "\n")
    return "".join(rows)


def _move_into_place(fresh: Path, folder: Path) -> None:
    """Rename `fresh` to `folder`. An older version is removed; if another process was quicker, its folder stays."""
    if (folder / _MARKER).is_file() and not _is_current(folder):
        retired = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent)) / folder.name
        with contextlib.suppress(FileNotFoundError):  # the other process retired it
            folder.rename(retired)
        shutil.rmtree(retired.parent, ignore_errors=True)
    try:
        fresh.rename(folder)
    except OSError:
        if not _is_current(folder):
            raise


# --- one image --------------------------------------------------------------------------------------------------------


def draw_image(rng: np.random.Generator) -> DrawnImage:
    """Draw an image with up to `_MOST` objects. It depends on the state of the generator only."""
    h, w = _SIZES[rng.integers(len(_SIZES))]
    image = _background(rng, h, w)
    owner = np.full((h, w), -1, np.int16)  # the object seen at each pixel
    classes: list[int] = []
    polygons: list[np.ndarray] = []
    areas: list[int] = []
    wanted = 0 if rng.random() < _EMPTY else 1 + int(rng.integers(_MOST))
    for _ in range(wanted):
        number = int(rng.integers(len(NAMES)))
        scale = _SCALE[0] + (_SCALE[1] - _SCALE[0]) * rng.random()
        outline = _outline(rng, number, scale * min(h, w))
        for _ in range(12):  # a place where it does not hide too much
            placed = outline + _position(rng, outline, h, w, polygons)
            mask = _mask(placed, h, w)
            covered = owner[mask > 127]
            lost = np.bincount(covered[covered >= 0], minlength=len(areas))
            seen = np.bincount(owner[owner >= 0], minlength=len(areas))
            if all(seen[j] - lost[j] >= (1 - _HIDDEN) * area for j, area in enumerate(areas)):
                break
        else:
            continue
        _paint(rng, image, placed, mask)
        owner[mask > 127] = len(classes)
        areas.append(int((mask > 127).sum()))
        classes.append(number)
        polygons.append(placed)
    grain = (rng.random((h, w, 1), np.float32) - 0.5) * rng.uniform(4, 16)
    return DrawnImage((image + grain).clip(0, 255).astype(np.uint8), classes, polygons)


def _outline(rng: np.random.Generator, number: int, size: float) -> np.ndarray:
    """Vertices (k, 2) of class `number`, turned at random, in a box at 0, 0 whose longer side has `size` pixels."""
    name = NAMES[number]
    corners = {"circle": 36, "square": 4, "triangle": 3, "star": 10}[name]
    radius = np.where(np.arange(corners) % 2, 0.42, 1.0) if name == "star" else np.ones(corners)
    angle = np.arange(corners) * 2 * np.pi / corners
    points = np.stack((radius * np.cos(angle), radius * np.sin(angle)), 1)
    points[:, 1] *= rng.uniform(0.85, 1.0)  # nothing is seen quite from the front
    turn = rng.uniform(0, 2 * np.pi)
    points = points @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    points -= points.min(0)
    return points * (size / points.max())


def _position(rng: np.random.Generator, outline: np.ndarray, h: int, w: int, others: list[np.ndarray]) -> np.ndarray:
    """A random shift (2,) that keeps `outline` inside the image; one in four is near another object."""
    room = np.array([w, h]) - outline.max(0) - 2
    if others and rng.random() < 0.25:
        near = others[rng.integers(len(others))]
        reach = (np.ptp(near, 0) + outline.max(0)) / 2
        centre = (near.min(0) + near.max(0)) / 2 + (rng.random(2) * 2 - 1) * reach
        return (centre - outline.max(0) / 2).clip(1, room + 1)
    return 1 + rng.random(2) * room


def _mask(polygon: np.ndarray, h: int, w: int) -> np.ndarray:
    """The coverage (h, w) uint8 of the pixels by the polygon, whose coordinates begin at the corner of pixel (0, 0).

    It is filled at eight times the size and averaged. OpenCV's own anti-aliasing would widen a shape by half a pixel on
    each side.
    """
    fine = 8
    x0, y0 = np.floor(polygon.min(0)).astype(int).clip(0)
    x1, y1 = np.minimum(np.ceil(polygon.max(0)).astype(int), (w, h))
    mask = np.zeros((h, w), np.uint8)
    if x1 > x0 and y1 > y0:
        large = np.zeros(((y1 - y0) * fine, (x1 - x0) * fine), np.uint8)
        cv2.fillPoly(large, [_fixed_point((polygon - (x0, y0)) * fine)], 255, cv2.LINE_8, 4)
        mask[y0:y1, x0:x1] = cv2.resize(large, (x1 - x0, y1 - y0), interpolation=cv2.INTER_AREA)
    return mask


def _fixed_point(polygon: np.ndarray) -> np.ndarray:
    """Coordinates as OpenCV takes them with 4 fractional bits: in sixteenths, with (0, 0) in the middle of a pixel."""
    return np.round((polygon - 0.5) * 16).astype(np.int32)


# --- paint ------------------------------------------------------------------------------------------------------------


def _paint(rng: np.random.Generator, image: np.ndarray, polygon: np.ndarray, mask: np.ndarray) -> None:
    """Fill `polygon` on `image` (float32, in place) with a shaded colour unlike its surroundings; often a shadow."""
    size = float(np.ptp(polygon, 0).max())
    margin = 4 + 0.25 * size  # as far as its shadow reaches
    x0, y0 = np.maximum(polygon.min(0) - margin, 0).astype(int)
    x1, y1 = np.minimum(polygon.max(0) + margin, mask.shape[::-1]).astype(int) + 1
    image, mask, polygon = image[y0:y1, x0:x1], mask[y0:y1, x0:x1], polygon - (x0, y0)
    alpha = mask[..., None].astype(np.float32) / 255
    behind = (image * alpha).sum((0, 1)) / max(float(alpha.sum()), 1.0)
    if rng.random() < 0.6:
        shadow = cv2.GaussianBlur(_mask(polygon + size * rng.uniform(0.03, 0.08), *mask.shape), (0, 0), 1 + size / 20)
        image *= 1 - shadow[..., None].astype(np.float32) / 255 * rng.uniform(0.2, 0.5)
    colour = max((_colour(rng) for _ in range(4)), key=lambda c: float(np.abs(c - behind).sum()))
    paint = colour * _relief(rng, mask.shape, (polygon.min(0) + polygon.max(0)) / 2, size)[..., None]
    image += (paint - image) * alpha
    if rng.random() < 0.35:
        border = np.zeros_like(mask)
        line = max(1, round(size / 30))
        cv2.polylines(border, [_fixed_point(polygon)], True, 255, line, cv2.LINE_AA, 4)
        edge = np.minimum(border, mask)[..., None].astype(np.float32) / 255
        image += (colour * rng.uniform(0.2, 0.6) - image) * edge


def _relief(rng: np.random.Generator, shape: tuple[int, ...], centre: np.ndarray, size: float) -> np.ndarray:
    """Factors (h, w) float32 for a colour: light from one side, and sometimes a grain or stripes."""
    h, w = shape
    light = rng.uniform(0, 2 * np.pi)
    ys, xs = np.mgrid[:h, :w].astype(np.float32)
    relief = 1 + ((xs - centre[0]) * np.cos(light) + (ys - centre[1]) * np.sin(light)) / size * rng.uniform(0.1, 0.6)
    style = rng.random()
    if style < 0.25:
        relief = relief * (0.8 + 0.4 * _noise(rng, h, w, (max(2, h // 10), max(3, h // 4))))
    elif style < 0.4 and size > 30:
        wave = np.sin((xs * np.cos(light) - ys * np.sin(light)) * (2 * np.pi / rng.uniform(8, 18)))
        relief = relief * (1 + 0.25 * (wave > 0))
    return relief.astype(np.float32)


def _colour(rng: np.random.Generator) -> np.ndarray:
    """A random colour (3,) float32 BGR of any hue, fairly saturated."""
    hsv = np.array([[[rng.integers(180), rng.integers(90, 256), rng.integers(70, 256)]]], np.uint8)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)[0, 0].astype(np.float32)


def _noise(rng: np.random.Generator, h: int, w: int, cells: tuple[int, ...]) -> np.ndarray:
    """Noise (h, w) float32 in 0..1: random grids of `cells` per side, enlarged smoothly; finer grids are weaker."""
    total = np.zeros((h, w), np.float32)
    for octave, count in enumerate(cells):
        grid = rng.random((count + 1, count + 1), np.float32)
        total += cv2.resize(grid, (w, h), interpolation=cv2.INTER_CUBIC) * 0.6**octave
    low, high = float(total.min()), float(total.max())
    return (total - low) / max(high - low, 1e-6)


def _background(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    """A background (h, w, 3) float32 BGR: clouds, streaks, weave or planks of two muted colours, and a few lines."""
    dark, bright = (_colour(rng) * rng.uniform(0.4, 0.8) + rng.uniform(10, 90) for _ in range(2))
    kind = int(rng.integers(4))
    if kind == 0:
        pattern = _noise(rng, h, w, (3, 7, 17, 41))
    elif kind == 1:  # streaks: noise drawn out along one axis
        pattern = cv2.resize(_noise(rng, 40, 320, (5, 37)), (w, h), interpolation=cv2.INTER_LINEAR)
        pattern = pattern if rng.random() < 0.5 else cv2.resize(np.ascontiguousarray(pattern.T), (w, h))
    elif kind == 2:  # weave
        ys, xs = np.mgrid[:h, :w].astype(np.float32)
        pitch = rng.uniform(6, 24)
        weave = np.sin(xs * (2 * np.pi / pitch)) * np.sin(ys * (2 * np.pi / pitch))
        pattern = 0.7 * _noise(rng, h, w, (4, 9)) + 0.15 * (weave + 1)
    else:  # planks
        count = int(rng.integers(4, 10))
        steps = rng.random(count).astype(np.float32)
        planks = steps[np.minimum(np.arange(h) * count // h, count - 1)][:, None]
        pattern = 0.5 * planks + 0.5 * _noise(rng, h, w, (6, 25))
    image = dark + (bright - dark) * pattern[..., None]
    for _ in range(int(rng.integers(6))):
        ends = (rng.random((2, 2)) * (w, h)).astype(int)
        line = (_colour(rng) * 0.7).tolist()
        cv2.line(image, ends[0].tolist(), ends[1].tolist(), line, int(rng.integers(1, 4)), cv2.LINE_AA)
    return image.astype(np.float32)
