"""Plots of a data set's labels: how many each class has, where the boxes are and how large they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from utils.plots.annotator import colors
from utils.plots.figures import Lettering, class_lettering, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_BOXES = 1000  # more rectangles on top of each other show nothing
_MOST_NAMED = 100


def plot_labels(
    classes: np.ndarray, xywhn: np.ndarray, names: Mapping[int, str] | Sequence[str], save_dir: str | Path
) -> Path:
    """Draw ``labels.jpg`` into `save_dir` and return its path.

    `classes (n,)` and normalised boxes `xywhn (n, 4)` of a whole data set (n may be 0). Four panels: instances of each
    class, boxes laid over each other at a common centre, a heat map of the centres, a heat map of widths and heights.
    """
    classes = np.asarray(classes).astype(int).ravel()
    xywhn = np.asarray(xywhn, dtype=np.float64).reshape(-1, 4)
    count = max(len(names), int(classes.max(initial=-1)) + 1)

    figure = new_figure(float(np.clip(6 + 0.18 * count, 10, 18)), 9)
    grid = figure.add_gridspec(2, 6, height_ratios=(1, 1.4))
    _draw_histogram(figure.add_subplot(grid[0, :]), classes, class_lettering(names, range(count)))
    overlay, centres, sizes = (figure.add_subplot(grid[1, 2 * i : 2 * i + 2]) for i in range(3))
    _draw_overlay(overlay, classes, xywhn)
    _draw_heat(centres, xywhn[:, 0], xywhn[:, 1], "box centres", "x", "y")
    centres.invert_yaxis()  # as in the image, y grows downwards
    _draw_heat(sizes, xywhn[:, 2], xywhn[:, 3], "box sizes", "width", "height")
    return save_figure(figure, Path(save_dir) / "labels.jpg", dpi=120)


def _draw_histogram(axes: Axes, classes: np.ndarray, lettering: Lettering) -> None:
    labels = lettering.texts
    instances = np.bincount(classes, minlength=len(labels))
    shades = [np.array(colors(i)) / 255 for i in range(len(labels))]
    axes.bar(range(len(labels)), instances, color=shades, width=0.8)
    axes.set_ylabel("instances")
    axes.set_title(f"{len(classes)} instances of {len(labels)} class{'es' if len(labels) != 1 else ''}", fontsize=11)
    axes.margins(x=0.01)
    if len(labels) <= _MOST_NAMED:
        size = float(np.clip(500 / max(len(labels), 1), 6.5, 10))
        axes.set_xticks(range(len(labels)), labels, rotation=90 if len(labels) > 10 else 0, **lettering.style(size))
    else:
        axes.set_xlabel("class")
    if len(labels) <= 20:
        for i, n in enumerate(instances):
            axes.annotate(str(n), (i, n), ha="center", va="bottom", fontsize=8)


def _draw_overlay(axes: Axes, classes: np.ndarray, xywhn: np.ndarray) -> None:
    """Boxes of a sample of the labels, all moved to the centre, in the colours of their classes."""
    from matplotlib.collections import PolyCollection

    step = max(1, -(-len(classes) // _MOST_BOXES))
    half = xywhn[::step, 2:] / 2
    signs = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
    shades = [np.array(colors(int(c))) / 255 for c in classes[::step]]
    axes.add_collection(
        PolyCollection(0.5 + half[:, None] * signs[None], facecolors="none", edgecolors=shades, linewidths=0.6)
    )
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xticks=[], yticks=[])
    axes.set_title("boxes at a common centre" + (f" (1 of {step})" if step > 1 else ""), fontsize=10)


def _draw_heat(axes: Axes, x: np.ndarray, y: np.ndarray, title: str, x_label: str, y_label: str) -> None:
    counts, _, _ = np.histogram2d(x, y, bins=50, range=((0, 1), (0, 1)))
    axes.imshow(
        counts.T, origin="lower", extent=(0, 1, 0, 1), cmap="viridis", vmax=max(float(counts.max()), 1.0),
        interpolation="nearest",
    )  # fmt: skip
    axes.set(xlabel=f"{x_label} / image width", ylabel=f"{y_label} / image height")
    axes.set_title(title, fontsize=10)
