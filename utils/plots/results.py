"""``results.csv`` of a training run as one picture."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from utils.errors import UserError
from utils.plots.figures import new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_results(csv_path: str | Path, target: str | Path | None = None) -> Path:
    """Draw every loss and metric of a ``results.csv`` over the epochs; returns the picture's path.

    The upper row holds the training losses and the first half of the metrics, the lower row the validation losses and
    the other half, so the detection and the segmentation columns both fall into place. `target` defaults to
    ``results.png`` beside the file. Cells that are empty or not finite leave a gap. A file without an epoch, or
    without these columns, is a `UserError`.
    """
    csv_path = Path(csv_path)
    columns = read_results(csv_path)
    epochs = columns.pop("epoch")
    groups = {prefix: [c for c in columns if c.startswith(prefix)] for prefix in ("train/", "metrics/", "val/")}
    metrics, half = groups["metrics/"], (len(groups["metrics/"]) + 1) // 2
    rows = [groups["train/"] + metrics[:half], groups["val/"] + metrics[half:]]
    if not any(rows):
        raise UserError(f"{csv_path}: no column starts with train/, val/ or metrics/, so there is nothing to draw")

    width = max(len(row) for row in rows)
    figure = new_figure(2.6 * width + 0.4, 5.6)
    for r, row in enumerate(rows):
        for c, name in enumerate(row):
            _draw_column(figure.add_subplot(2, width, r * width + c + 1), name, epochs, columns[name])
    return save_figure(figure, target or csv_path.with_name("results.png"), dpi=130)


def read_results(csv_path: str | Path) -> dict[str, np.ndarray]:
    """The columns of a ``results.csv`` as float64 arrays of equal length, NaN where a cell holds no number."""
    try:
        with open(csv_path, newline="", encoding="utf-8") as file:
            header, *rows = [[cell.strip() for cell in row] for row in csv.reader(file) if row] or [[]]
    except OSError as error:
        raise UserError(f"cannot read '{csv_path}': {error.strerror}") from error
    if "epoch" not in header or not rows:
        raise UserError(f"{csv_path}: expected a header with 'epoch' and a line per epoch, as train.py writes them")
    return {name: np.array([_number(row, i) for row in rows]) for i, name in enumerate(header) if name}


def _number(row: list[str], column: int) -> float:
    try:
        return float(row[column])
    except (IndexError, ValueError):  # an empty cell (--noval), or a line cut short by a full disk
        return np.nan


def _draw_column(axes: Axes, name: str, epochs: np.ndarray, values: np.ndarray) -> None:
    """One panel: the values, their smoothed course, and the best of them named in the title."""
    finite = np.isfinite(values)
    x, y = epochs[finite], values[finite]
    axes.plot(x, y, marker=".", markersize=4, linewidth=1.2, color="tab:blue")
    if len(y) >= 5:
        axes.plot(x, smooth_curve(y), linestyle=":", linewidth=1.6, color="tab:orange")
    title = name
    if len(y):
        best = int(y.argmax() if name.startswith("metrics/") else y.argmin())
        axes.plot(x[best], y[best], marker="o", markersize=5, fillstyle="none", color="tab:red")
        title += f"\nbest {y[best]:.3g} at epoch {x[best]:g}"
    axes.set_title(title, fontsize=9)
    axes.set_xlabel("epoch", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)


def smooth_curve(values: np.ndarray, sigma: float = 3.0) -> np.ndarray:
    """`values (n,)` under a Gaussian window of `sigma` samples; near the ends it averages what there is."""
    reach = min(int(3 * sigma), len(values) - 1)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    total = np.convolve(values, kernel)[reach : reach + len(values)]
    return total / np.convolve(np.ones(len(values)), kernel)[reach : reach + len(values)]
