"""The report of a validation: the table on the screen and ``metrics_per_class.csv``."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.files import atomic_write
from utils.logging import LOGGER
from utils.metrics.detection import DetectionMetrics

_METRICS = ("P", "R", "mAP50", "mAP50-95")


@dataclass
class LabelCounts:
    """How often each class is labelled: in `images (nc,)`, with `instances (nc,)`; `seen` counts all images."""

    images: np.ndarray
    instances: np.ndarray
    seen: int = 0

    @classmethod
    def zeros(cls, nc: int) -> LabelCounts:
        return cls(np.zeros(nc, np.int64), np.zeros(nc, np.int64))

    def add(self, classes: np.ndarray) -> None:
        """Count one image, its labels' `classes (m,)`."""
        counts = np.bincount(classes.astype(np.int64), minlength=len(self.instances))
        self.instances += counts
        self.images += counts > 0
        self.seen += 1


def table_header(groups: Sequence[str] = ("",)) -> str:
    """The headings of the columns, as wide as the lines of `print_table`."""
    return f"{'Class':>22}{'Images':>11}{'Instances':>11}" + "".join(
        f"{metric + group:>12}" for group in groups for metric in _METRICS
    )


def table_line(name: str, images: int, instances: int, values: Sequence[float]) -> str:
    """One line of the table; a name that is too long for its column is cut."""
    name = name if len(name) <= 21 else f"{name[:20]}…"
    return f"{name:>22}{images:>11}{instances:>11}" + "".join(f"{value:>12.3g}" for value in values)


def print_table(
    metrics: Sequence[DetectionMetrics],
    counts: LabelCounts,
    names: Mapping[int, str],
    groups: Sequence[str] = ("",),
    verbose: bool = False,
) -> None:
    """Print the line of all classes and, with `verbose`, a line per labelled class, for each of the metric `groups`.

    The headings of the table are in the progress line above it.
    """
    means = [value for m in metrics for value in (m.mp, m.mr, m.map50, m.map)]
    LOGGER.info(table_line("all", counts.seen, int(counts.instances.sum()), means))
    if not counts.instances.any():
        LOGGER.warning("no labels in this split, so the metrics say nothing; check the labels folder")
    if verbose and len(names) > 1:
        for c, columns in per_class(metrics, counts):
            LOGGER.info(
                table_line(str(names.get(c, c)), int(counts.images[c]), int(counts.instances[c]), columns.table)
            )


@dataclass(frozen=True)
class ClassRow:
    """The figures of one class: precision, recall, F1, mAP50, mAP50-95 for each metric group."""

    values: np.ndarray  # (groups, 5)

    @property
    def table(self) -> list[float]:
        """The figures that the printed table shows: all but F1."""
        return self.values[:, [0, 1, 3, 4]].ravel().tolist()


def per_class(metrics: Sequence[DetectionMetrics], counts: LabelCounts) -> list[tuple[int, ClassRow]]:
    """The labelled classes with their figures, in order."""
    columns = []
    for m in metrics:
        table = np.full((len(counts.instances), 5), np.nan)
        result = m.result
        table[result.classes] = np.stack([result.p, result.r, result.f1, result.ap[:, 0], result.ap.mean(1)], 1)
        columns.append(table)
    return [(int(c), ClassRow(np.stack([t[c] for t in columns]))) for c in np.flatnonzero(counts.instances)]


def write_per_class(
    path: Path,
    metrics: Sequence[DetectionMetrics],
    counts: LabelCounts,
    names: Mapping[int, str],
    groups: Sequence[str] = ("",),
) -> Path:
    """Write ``metrics_per_class.csv`` with a line per labelled class; returns `path`."""
    heads = [f"{name}{group}" for group in groups for name in ("precision", "recall", "f1", "mAP50", "mAP50-95")]
    with atomic_write(path, "w") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["class_id", "class", "images", "instances", *heads])
        for c, row in per_class(metrics, counts):
            figures = [f"{value:.5f}" for value in row.values.ravel()]
            rows.writerow([c, names.get(c, c), counts.images[c], counts.instances[c], *figures])
    return path
