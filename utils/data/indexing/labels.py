"""Label files: one row per object, ``class x y w h`` (box) or ``class x1 y1 x2 y2 x3 y3 …`` (polygon), in 0..1."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from utils.errors import UserError
from utils.ops.polygons import clip_polygons, join_polygons, split_polygons

SLIGHT = 1e-3  # an overflow that comes from rounding in a text file; it is clipped without a note
THIN = 1e-5  # a polygon that deviates less from a straight line (root mean square) has no area
FAR = 1e6  # a coordinate or class beyond this is an error, and computing with it would overflow
MOST_OBJECTS = 50_000  # in one file; the densest images of crowds have about 20,000
_FORM = "a row is 'class x y w h' or 'class x1 y1 x2 y2 x3 y3 …'"


def label_path(image: str) -> str:
    """The label file of an image: the last ``/images/`` in its path becomes ``/labels/``, and its suffix ``.txt``.

    If the path has no ``images`` folder, the label file lies beside the image.
    """
    sep = os.sep
    head, folder, tail = f"{sep}{image}".rpartition(f"{sep}images{sep}")
    moved = f"{head}{sep}labels{sep}{tail}"[1:] if folder else image
    return f"{os.path.splitext(moved)[0]}.txt"


@dataclass
class LabelNotes:
    """What was corrected while reading labels: for each kind how often, and the first place as ``file:line``."""

    found: dict[str, tuple[int, str]] = field(default_factory=dict)

    def add(self, kind: str, count: int, first: str) -> None:
        before, place = self.found.get(kind, (0, first))
        self.found[kind] = (before + count, place)

    def merge(self, other: LabelNotes) -> None:
        for kind, (count, first) in other.found.items():
            self.add(kind, count, first)


class LabelTable(NamedTuple):
    """The objects of n label files in flat arrays: m objects, k polygon points."""

    counts: np.ndarray  # (n,) int64, objects of each file
    classes: np.ndarray  # (m,) float32
    boxes: np.ndarray  # (m, 4) float32 xywhn
    polygons: np.ndarray | None  # (k, 2) float32 normalised
    polygon_counts: np.ndarray | None  # (m,) int64, points of each object
    notes: LabelNotes


class _Rows(NamedTuple):
    """Rows as they are written: `numbers` holds them end to end; row i begins at `starts[i]` and has `widths[i]`."""

    numbers: np.ndarray
    starts: np.ndarray
    widths: np.ndarray
    files: np.ndarray
    lines: np.ndarray


def parse_labels(
    texts: Sequence[bytes], files: Sequence[str], *, nc: int | None = None, polygons: bool = False
) -> LabelTable:
    """Read the contents `texts` of the label `files`, many at once, so that numpy works on long arrays.

    An object that overflows the image is clipped, one wholly outside or without area is dropped, a row that repeats
    another is dropped; `LabelTable.notes` counts them. With `polygons` a box row (4 numbers) gets its rectangle, which
    is noted too, and an outline whose points lie on one line is dropped. A row that is not an object at all (not
    numeric, not finite, another number of columns, a class outside 0..`nc`-1, a negative size) is a `UserError` with
    file and line, and so is a file of more than `MOST_OBJECTS` rows.
    """
    rows = _split_rows(texts, files)
    notes = LabelNotes()
    if not len(rows.starts):
        points, point_counts = (np.zeros((0, 2), np.float32), np.zeros(0, np.int64)) if polygons else (None, None)
        counts = np.zeros(len(texts), np.int64)
        return LabelTable(counts, np.zeros(0, np.float32), np.zeros((0, 4), np.float32), points, point_counts, notes)
    _check_rows(rows, files, nc)

    classes = rows.numbers[rows.starts]
    is_polygon = rows.widths > 5
    vertices, vertex_counts = _vertices(rows, is_polygon)
    corners = _corners(rows, is_polygon, vertices, vertex_counts)
    overflow = np.abs(corners - corners.clip(0.0, 1.0)).max(1)
    beyond = overflow[is_polygon] > SLIGHT
    if beyond.any():
        vertices, vertex_counts = _cut(vertices, vertex_counts, beyond)
        corners = _corners(rows, is_polygon, vertices, vertex_counts)
    clipped = corners.clip(0.0, 1.0)
    keep = np.logical_and(clipped[:, 2] > clipped[:, 0], clipped[:, 3] > clipped[:, 1])
    if polygons:
        keep[is_polygon] &= ~_are_lines(vertices, vertex_counts)

    def place(row: int) -> str:
        return f"{files[rows.files[row]]}:{rows.lines[row]}"

    boxes_for_outlines = keep & ~is_polygon & polygons
    for kind, mask in (("outside", ~keep), ("clipped", keep & (overflow > SLIGHT)), ("rectangle", boxes_for_outlines)):
        if mask.any():
            notes.add(kind, int(mask.sum()), place(int(mask.argmax())))
    repeated = _repeated(rows, classes, corners)
    if repeated.size:
        notes.add("repeated", len(repeated), place(int(repeated[0])))
        keep[repeated] = False

    boxes = np.concatenate(((clipped[:, :2] + clipped[:, 2:]) / 2, clipped[:, 2:] - clipped[:, :2]), 1)
    as_written = ~is_polygon & (overflow == 0)  # no rounding on the way to corners and back
    boxes[as_written] = rows.numbers[rows.starts[as_written, None] + np.arange(1, 5)]
    outline, outline_counts = (
        _outlines(is_polygon, vertices, vertex_counts, clipped, keep) if polygons else (None, None)
    )
    return LabelTable(
        np.bincount(rows.files[keep], minlength=len(texts)).astype(np.int64, copy=False),
        classes[keep].astype(np.float32),
        boxes[keep].astype(np.float32),
        outline,
        outline_counts,
        notes,
    )


def _split_rows(texts: Sequence[bytes], files: Sequence[str]) -> _Rows:
    tokens: list[bytes] = []
    widths: list[int] = []
    owners: list[int] = []
    lines: list[int] = []
    for owner, text in enumerate(texts):
        if text.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise UserError(f"{files[owner]}: UTF-16 text; save it as UTF-8")
        before = len(widths)
        for line, row in enumerate(text.removeprefix(b"\xef\xbb\xbf").splitlines(), 1):
            if words := row.split():
                tokens += words
                widths.append(len(words))
                owners.append(owner)
                lines.append(line)
        if len(widths) - before > MOST_OBJECTS:
            raise UserError(
                f"{files[owner]}: {len(widths) - before} objects, and {MOST_OBJECTS} are the most in a file"
            )
    ends = np.cumsum(widths, dtype=np.int64)
    try:
        if any(b"_" in text for text in texts):
            raise ValueError("Python would read 1_5 as 15")
        numbers = np.fromiter(map(float, tokens), np.float64, len(tokens))
    except ValueError:
        index, word = next((i, t) for i, t in enumerate(tokens) if not _is_number(t))
        row_index = int(np.searchsorted(ends, index, side="right"))
        place = f"{files[owners[row_index]]}:{lines[row_index]}"
        raise UserError(f"{place}: '{word.decode(errors='replace')}' is not a number; {_FORM}") from None
    counts = np.array(widths, np.int64)
    return _Rows(numbers, ends - counts, counts, np.array(owners, np.int64), np.array(lines, np.int64))


def _is_number(word: bytes) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return b"_" not in word


def _check_rows(rows: _Rows, files: Sequence[str], nc: int | None) -> None:
    """Raise `UserError` for the first row that is not an object."""
    widths, classes = rows.widths, rows.numbers[rows.starts]
    bad_width = (widths < 5) | (widths % 2 == 0)
    bad_value = np.logical_or.reduceat(~(np.abs(rows.numbers) <= FAR), rows.starts)
    with np.errstate(invalid="ignore"):
        bad_class = (classes != np.floor(classes)) | (classes < 0) | (classes >= (np.inf if nc is None else nc))
    is_box = widths == 5
    bad_size = np.zeros(len(widths), bool)
    bad_size[is_box] = (rows.numbers[rows.starts[is_box, None] + np.array([3, 4])] < 0).any(1)
    bad = bad_width | bad_value | bad_class | bad_size
    if not bad.any():
        return
    row = int(bad.argmax())
    width = int(widths[row])
    if bad_width[row]:
        hint = "" if width < 4 else f": {width - 1} coordinates, an odd number"
        hint += "" if width < 6 else "; is the last one a confidence?"
        why = f"{width} values, but {_FORM}{hint}"
    elif bad_value[row]:
        value = next(v for v in rows.numbers[rows.starts[row] : rows.starts[row] + width] if not abs(v) <= FAR)
        why = f"value {value:g} is {'far beyond 0..1' if np.isfinite(value) else 'not finite'}"
    elif bad_class[row]:
        number = classes[row]
        limits = f"nc is {nc} (0 to {nc - 1})" if nc is not None else "classes are whole numbers from 0"
        why = f"class {number:g}, but {limits}"
        if number != np.floor(number) or number < 0:
            why = f"class {number:g}, but classes are whole numbers from 0"
    else:
        width_, height_ = rows.numbers[rows.starts[row] + 3], rows.numbers[rows.starts[row] + 4]
        why = f"negative box size {width_:g} x {height_:g}"
    raise UserError(f"{files[rows.files[row]]}:{rows.lines[row]}: {why}")


def _vertices(rows: _Rows, is_polygon: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The vertices (p, 2) of the polygon rows, end to end, and how many each row has."""
    belongs = np.repeat(is_polygon, rows.widths)
    belongs[rows.starts] = False  # the class is no coordinate
    return rows.numbers[belongs].reshape(-1, 2), (rows.widths[is_polygon] - 1) // 2


def _corners(rows: _Rows, is_polygon: np.ndarray, points: np.ndarray, point_counts: np.ndarray) -> np.ndarray:
    """The box of each row as (m, 4) xyxy, normalised and not clipped."""
    corners = np.empty((len(rows.starts), 4))
    xywh = rows.numbers[rows.starts[~is_polygon, None] + np.arange(1, 5)]
    corners[~is_polygon] = np.concatenate((xywh[:, :2] - xywh[:, 2:] / 2, xywh[:, :2] + xywh[:, 2:] / 2), 1)
    if len(points):
        first = np.cumsum(point_counts) - point_counts
        low, high = np.minimum.reduceat(points, first), np.maximum.reduceat(points, first)
        corners[is_polygon] = np.concatenate((low, high), 1)
    return corners


def _cut(points: np.ndarray, counts: np.ndarray, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cut the polygons `which` by the image; returns vertices and counts. If nothing is left, one point remains."""
    outlines = split_polygons(points, counts)
    clipped = clip_polygons([outlines[i] for i in np.flatnonzero(which)], (1.0, 1.0))
    for i, outline in zip(np.flatnonzero(which), clipped, strict=True):
        outlines[i] = outline if len(outline) else outlines[i][:1]
    return join_polygons(outlines)


def _are_lines(points: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """For each polygon of `counts` vertices whether these lie on one line (or at one point)."""
    if not len(counts):
        return np.zeros(0, bool)
    first = np.cumsum(counts) - counts
    mean = np.add.reduceat(points, first) / counts[:, None]
    x, y = (points - np.repeat(mean, counts, 0)).T
    xx, xy, yy = (np.add.reduceat(product, first) / counts for product in (x * x, x * y, y * y))
    # determinant by trace of the covariance: the variance across the main direction, or up to half of it
    return xx * yy - xy * xy <= THIN**2 * (xx + yy)


def _repeated(rows: _Rows, classes: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """The indices of rows that repeat an earlier row of the same file."""
    columns = np.concatenate((rows.files[:, None].astype(np.float64), classes[:, None], corners), 1)
    weights = np.array([3, 5, 7, 11, 13, 17], np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    rough = (columns.view(np.uint64) * weights).sum(1, dtype=np.uint64)
    if len(np.unique(rough)) == len(rough):
        return np.zeros(0, np.int64)
    seen: set[tuple[int, bytes]] = set()
    again = []
    for row, (start, width, owner) in enumerate(zip(rows.starts, rows.widths, rows.files, strict=True)):
        key = (int(owner), rows.numbers[start : start + width].tobytes())
        if key in seen:
            again.append(row)
        seen.add(key)
    return np.array(again, np.int64)


def _outlines(
    is_polygon: np.ndarray, points: np.ndarray, point_counts: np.ndarray, corners: np.ndarray, keep: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The outlines of the rows that are kept, boxes as rectangles: points (k, 2), and how many each row has."""
    counts = np.full(len(is_polygon), 4, np.int64)
    counts[is_polygon] = point_counts
    outline = np.empty((int(counts.sum()), 2))
    from_polygon = np.repeat(is_polygon, counts)
    outline[from_polygon] = points.clip(0.0, 1.0)
    outline[~from_polygon] = corners[~is_polygon][:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 2)
    return outline[np.repeat(keep, counts)].astype(np.float32), counts[keep]
