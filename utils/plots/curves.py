"""Curves of precision, recall and F1 over the confidence, and of precision over recall, one line per class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from utils.plots.figures import Lettering, class_lettering, new_figure, plain_text, save_figure

if TYPE_CHECKING:
    from utils.metrics.average_precision import APResult

_MOST_COLOURED = 20  # with more classes the lines turn grey, but for the extremes
_EXTREMES = 5


@dataclass(frozen=True)
class CurveStyle:
    """How one plot looks: its axes, the name of the line of means, and the figure of each class in the legend."""

    x_label: str
    y_label: str
    title: str


def plot_curves(
    result: APResult, names: Mapping[int, str] | Sequence[str], save_dir: str | Path, prefix: str = ""
) -> list[Path]:
    """Draw ``PR_curve.png``, ``F1_curve.png``, ``P_curve.png`` and ``R_curve.png`` into `save_dir`; their paths.

    `result` holds the curves of the classes that occur in the labels. `prefix` goes in front of the file names
    (``Mask`` for masks, where boxes have theirs too). Without a class there is nothing to draw, and no file.
    """
    if len(result.classes) == 0:
        return []
    lettering = class_lettering(names, result.classes)
    folder = Path(save_dir)
    ap50 = result.ap[:, 0]
    paths = [
        draw_lines(
            folder / f"{prefix}PR_curve.png", result.recalls, result.pr_curve, lettering, ap50,
            CurveStyle("Recall", "Precision", "Precision over recall at IoU 0.5"),
            mean_label=f"all classes {ap50.mean():.3f} mAP@0.5",
        )
    ]  # fmt: skip
    for short, name, curve in (
        ("F1", "F1", result.f1_curve),
        ("P", "Precision", result.p_curve),
        ("R", "Recall", result.r_curve),
    ):
        mean = curve.mean(0)
        best = int(mean.argmax())
        paths.append(
            draw_lines(
                folder / f"{prefix}{short}_curve.png", result.confidences, curve, lettering, curve.max(1),
                CurveStyle("Confidence", name, f"{name} over confidence at IoU 0.5"),
                mean_label=f"all classes {mean[best]:.2f} at {result.confidences[best]:.3f}",
            )
        )  # fmt: skip
    return paths


def draw_lines(
    path: Path,
    x: np.ndarray,
    curves: np.ndarray,
    lettering: Lettering,
    ratings: np.ndarray,
    style: CurveStyle,
    mean_label: str,
) -> Path:
    """One picture: `curves (k, m)` over `x (m,)`, their mean in bold, and a legend beside the axes.

    Up to 20 classes have a colour each, best rating first. Of more, only the five best and the five worst are coloured
    and named; the rest are thin grey lines, as nobody can tell 80 colours apart.
    """
    from matplotlib import colormaps

    figure = new_figure(10, 6)
    axes = figure.add_subplot()
    order = np.argsort(-ratings, kind="stable")
    many = len(order) > _MOST_COLOURED
    named = [*order[:_EXTREMES], *order[-_EXTREMES:]] if many else list(order)
    if many:
        for i in order[_EXTREMES:-_EXTREMES]:
            axes.plot(x, curves[i], linewidth=0.5, color="0.8")
    palette = colormaps["tab10" if len(named) <= 10 else "tab20"]
    for rank, i in enumerate(named):
        if many and rank == _EXTREMES:
            axes.plot([], [], linewidth=0.5, color="0.6", label=f"{len(order) - 2 * _EXTREMES} classes between")
        axes.plot(x, curves[i], linewidth=1.2, color=palette(rank), label=f"{lettering.texts[i]} {ratings[i]:.3f}")
    axes.plot(x, curves.mean(0), linewidth=3, color="blue", label=plain_text(mean_label))
    axes.set(xlabel=style.x_label, ylabel=style.y_label, xlim=(0, 1), ylim=(0, 1.01))
    axes.set_title(style.title, fontsize=12)
    axes.grid(alpha=0.3)
    legend = figure.legend(loc="outside right upper", frameon=False)
    for text in legend.get_texts():
        text.set(**lettering.style(9))
    return save_figure(figure, path, dpi=130)
