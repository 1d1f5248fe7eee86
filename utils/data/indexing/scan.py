"""Reads the headers of all images and all labels of a split, in threads."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from utils.data.indexing.image_files import BrokenImageError, read_image_size
from utils.data.indexing.labels import LabelNotes, LabelTable, parse_labels
from utils.errors import UserError
from utils.files import read_file
from utils.logging import LOGGER
from utils.progress import Progress

CHUNK = 256  # images per task: enough for numpy to be fast, and few enough for the progress bar to move
THREADS = 4  # while one waits for the disk, another one parses
MOST_LABEL_BYTES = 16 << 20  # in one file
_SHOWN = 10  # broken images that are named one by one

_NOTES = {
    "clipped": "objects reach beyond their image and were clipped",
    "outside": "objects lie outside their image or have no area and were dropped",
    "repeated": "label rows repeat another of the same file and were dropped",
    "rectangle": "objects are boxes (4 numbers), so their outline is the rectangle",
}


@dataclass
class ScanReport:
    """What a scan found besides the objects."""

    missing: int = 0  # images without a label file
    empty: int = 0  # images whose label file has no rows
    broken: list[tuple[str, str]] = field(default_factory=list)  # (image, reason), left out of the index
    notes: LabelNotes = field(default_factory=LabelNotes)

    def merge(self, other: ScanReport) -> None:
        self.missing += other.missing
        self.empty += other.empty
        self.broken += other.broken
        self.notes.merge(other.notes)

    def to_json(self) -> str:
        return json.dumps([self.missing, self.empty, self.broken, self.notes.found])

    @classmethod
    def from_json(cls, text: str) -> ScanReport:
        missing, empty, broken, found = json.loads(text)
        notes = LabelNotes({kind: (int(count), str(first)) for kind, (count, first) in found.items() if kind in _NOTES})
        return cls(int(missing), int(empty), [(str(image), str(why)) for image, why in broken], notes)

    def log(self, images: int, objects: int, prefix: str = "") -> None:
        """Log one line of information, and a warning for each kind of thing that was left out or corrected."""
        backgrounds = self.missing + self.empty
        text = f"{prefix}{images} images, {objects} objects, {backgrounds} backgrounds"
        if self.missing:
            text += f" ({self.missing} without a label file)"
        LOGGER.info(text + (f", {len(self.broken)} broken" if self.broken else ""))
        for image, why in self.broken[:_SHOWN]:
            LOGGER.warning(f"{prefix}{image} {why}; the image is left out")
        if len(self.broken) > _SHOWN:
            LOGGER.warning(f"{prefix}{len(self.broken) - _SHOWN} more broken images are left out")
        for kind, (count, first) in self.notes.found.items():
            LOGGER.warning(f"{prefix}{count} {_NOTES[kind]} (first: {first})")


class ScanResult(NamedTuple):
    """Flat arrays of the n usable images, in the order given."""

    kept: np.ndarray  # (n,) int64 positions among the images asked for
    shapes: np.ndarray  # (n, 2) int32 (height, width)
    table: LabelTable
    report: ScanReport


def scan(images: Sequence[str], labels: Sequence[str], *, polygons: bool = False, prefix: str = "") -> ScanResult:
    """Read the size and the labels of each image. Raises `UserError` for the first row that is not an object."""
    starts = range(0, len(images), CHUNK)
    pool = ThreadPoolExecutor(THREADS)
    parts: list[ScanResult] = []

    def one(start: int) -> ScanResult:
        return _scan_chunk(images[start : start + CHUNK], labels[start : start + CHUNK], start, polygons)

    def each_image() -> Iterator[None]:
        for part in pool.map(one, starts):
            parts.append(part)
            yield from (None for _ in range(len(part.kept) + len(part.report.broken)))

    try:
        for _ in Progress(each_image(), f"{prefix}reading labels", len(images), unit="images"):
            pass
    finally:
        pool.shutdown(cancel_futures=True)
    return _join(parts, polygons)


def _scan_chunk(images: Sequence[str], labels: Sequence[str], start: int, polygons: bool) -> ScanResult:
    report = ScanReport()
    kept, shapes, texts, owners = [], [], [], []
    for position, (image, label) in enumerate(zip(images, labels, strict=True), start):
        try:
            shapes.append(read_image_size(image))
        except BrokenImageError as error:
            report.broken.append((image, str(error)))
            continue
        kept.append(position)
        owners.append(label)
        try:
            texts.append(read_file(label, MOST_LABEL_BYTES))
        except FileNotFoundError:
            report.missing += 1
            texts.append(b"")
        except OSError as error:
            raise UserError(f"cannot read label file '{label}': {error.strerror}") from error
    table = parse_labels(texts, owners, polygons=polygons)
    report.empty = sum(not text.strip() for text in texts) - report.missing
    report.notes = table.notes
    return ScanResult(np.array(kept, np.int64), np.array(shapes, np.int32).reshape(-1, 2), table, report)


def _join(parts: list[ScanResult], polygons: bool) -> ScanResult:
    report = ScanReport()
    for part in parts:
        report.merge(part.report)
    tables = [part.table for part in parts]
    table = LabelTable(
        np.concatenate([t.counts for t in tables]),
        np.concatenate([t.classes for t in tables]),
        np.concatenate([t.boxes for t in tables]),
        np.concatenate([t.polygons for t in tables]) if polygons else None,  # type: ignore[misc]
        np.concatenate([t.polygon_counts for t in tables]) if polygons else None,  # type: ignore[misc]
        report.notes,
    )
    kept, shapes = (np.concatenate([getattr(part, name) for part in parts]) for name in ("kept", "shapes"))
    return ScanResult(kept, shapes, table, report)
