"""``--task speed`` and ``--task study``: how fast, and how good at which size."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from engine.task import DetectionTask
from engine.validation.evaluation import Evaluation, Verdict, fit_size, verdict
from utils.files import atomic_write
from utils.logging import LOGGER
from utils.plots.figures import new_figure, plain_text, save_figure

SIZES = range(256, 1536 + 1, 128)
_COLUMNS = ("imgsz", "P", "R", "mAP50", "mAP50-95", "preprocess_ms", "inference_ms", "nms_ms")


def measure_speed(options: argparse.Namespace, task: DetectionTask) -> Verdict:
    """Time each of the weights as they would run in use (confidence 0.25, IoU 0.45, square batches, no pictures)."""
    options.conf_thres, options.iou_thres, options.save_json, options.no_plots = 0.25, 0.45, False, True
    return [evaluation.run() for evaluation in _each_weights(options, task)][-1]


def study_sizes(options: argparse.Namespace, task: DetectionTask) -> Verdict:
    """Score each of the weights at image sizes 256 to 1536; writes ``study_<data>_<weights>.txt`` and ``study.png``."""
    options.save_json, options.no_plots = False, True
    tables: dict[str, np.ndarray] = {}
    for evaluation in _each_weights(options, task):
        folder, stem = evaluation.save_dir, Path(evaluation.options.weights[0]).stem
        rows = []
        for size in SIZES:
            size = fit_size((size, size), evaluation.model.stride)[0]
            LOGGER.info(f"{stem} at {size}:")
            result, _ = evaluation.score((size, size), verbose=False)
            last = verdict(result)
            rows.append([size, *last.metrics[:4], *last.speeds_ms])
            tables[stem] = np.array(rows)
            with atomic_write(folder / f"study_{Path(options.data).stem}_{stem}.txt", "w") as file:
                np.savetxt(file, tables[stem], fmt="%10.4g", header=" ".join(f"{c:>13}" for c in _COLUMNS))
    LOGGER.info(f"Study in {plot_study(tables, folder / 'study.png')}")
    return last


def _each_weights(options: argparse.Namespace, task: DetectionTask):  # type: ignore[no-untyped-def]
    """An `Evaluation` for each of ``--weights``: here they are alternatives, not an ensemble. One folder for all."""
    for weights in options.weights:
        evaluation = Evaluation.prepare(argparse.Namespace(**{**vars(options), "weights": [weights]}), task)
        options.name, options.exist_ok = evaluation.save_dir.name, True
        yield evaluation


def plot_study(tables: Mapping[str, np.ndarray], path: Path) -> Path:
    """mAP50-95 over the time per image, a line for each of the weights and a point for each size; returns `path`."""
    figure = new_figure(8, 5.5)
    axes = figure.add_subplot()
    for stem, table in tables.items():
        milliseconds = table[:, 5:].sum(1)
        axes.plot(milliseconds, table[:, 4], marker="o", markersize=4, label=plain_text(stem))
        for x, y, size in zip(milliseconds, table[:, 4], table[:, 0], strict=True):
            axes.annotate(f"{size:.0f}", (x, y), textcoords="offset points", xytext=(3, 4), fontsize=7, color="0.4")
    axes.set(
        xlabel="ms per image (pre-processing, inference, NMS)", ylabel="mAP50-95", title="Accuracy over time by size"
    )
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    return save_figure(figure, path, dpi=130)
