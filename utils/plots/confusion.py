"""The confusion matrix as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from utils.plots.figures import class_lettering, new_figure, save_figure

_MOST_NUMBERED = 30  # with more classes the cells are too small for numbers
_MOST_NAMED = 120  # with more classes the names are too small to read


def plot_confusion(
    matrix: np.ndarray, names: Mapping[int, str] | Sequence[str], path: str | Path, normalize: bool = True
) -> Path:
    """Draw a confusion matrix and return the picture's path.

    `matrix (nc + 1, nc + 1)`: rows are predicted classes, columns true ones, the last of each is the background. With
    `normalize` a column is divided by its sum, so that a cell says which share of the objects of a class (for the
    last column: of the false alarms) was predicted as what.
    """
    matrix = np.asarray(matrix, dtype=np.float64)
    if normalize:
        matrix = matrix / np.maximum(matrix.sum(0, keepdims=True), 1e-9)
    count = len(matrix)
    lettering = class_lettering(names, range(count - 1))
    labels = [*lettering.texts, "background"]

    side = float(np.clip(3.5 + 0.45 * count, 6, 15))
    figure = new_figure(side * 1.12, side)
    axes = figure.add_subplot()
    image = axes.imshow(matrix, cmap="Blues", vmin=0, vmax=1 if normalize else None, aspect="equal")
    figure.colorbar(
        image, ax=axes, shrink=0.8, aspect=40, pad=0.01, label="share of the true class" if normalize else "objects"
    )
    ticks = range(count) if count <= _MOST_NAMED else range(0, count, 10)
    size = float(np.clip(600 / count, 5, 11))
    axes.set_xticks(ticks, [labels[i] for i in ticks], rotation=90 if count > 6 else 45, **lettering.style(size))
    axes.set_yticks(ticks, [labels[i] for i in ticks], **lettering.style(size))
    axes.set_xlabel("True", fontsize=12)
    axes.set_ylabel("Predicted", fontsize=12)
    axes.set_title("Confusion matrix" + (", each column normalised" if normalize else ""), fontsize=13)
    edges, ends = np.arange(count - 1) + 0.5, (-0.5, count - 0.5)
    axes.hlines(edges, *ends, color="0.9", linewidth=0.5)
    axes.vlines(edges, *ends, color="0.9", linewidth=0.5)
    if count - 1 <= _MOST_NUMBERED:
        _write_numbers(axes, matrix, normalize, size)
    return save_figure(figure, path, dpi=120)


def _write_numbers(axes, matrix: np.ndarray, normalize: bool, size: float) -> None:  # type: ignore[no-untyped-def]
    """The value in each cell that would not round to nothing, white on the dark ones."""
    least, top = (0.005, 1.0) if normalize else (0.5, max(float(matrix.max()), 1.0))
    for row, column in np.argwhere(matrix >= least):
        value = matrix[row, column]
        text = f"{value:.2f}" if normalize else f"{value:.0f}"
        axes.text(
            column, row, text, ha="center", va="center", fontsize=size * 0.9,
            color="white" if value > 0.55 * top else "0.15",
        )  # fmt: skip
