"""The validation command: score a split of a data set, measure the speed, or study image sizes, as ``--task`` says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from engine.task import DetectionTask
from engine.validation.evaluation import Evaluation
from engine.validation.options import ValOptions
from engine.validation.validator import ValidationSummary
from models.weights import newest_best
from utils.cli import network_size
from utils.files import atomic_write
from utils.logging import LOGGER
from utils.plots.figures import new_figure, plain_text, save_figure

SIZES = range(256, 1536 + 1, 128)
_COLUMNS = ("imgsz", "P", "R", "mAP50", "mAP50-95", "preprocess_ms", "inference_ms", "nms_ms")


def run_validation(options: ValOptions, task: DetectionTask) -> ValidationSummary:
    """Do what `options.task` says, with the newest training's weights if none are named.

    Returns the figures, of the last run where there are several.
    """
    if not options.weights:
        newest = newest_best(task.run_suffix)
        LOGGER.info(f"--weights not given, so the newest training's: {newest}")
        options = replace(options, weights=[str(newest)])
    if options.task == "speed":
        return measure_speed(options, task)
    if options.task == "study":
        return study_sizes(options, task)
    return Evaluation.prepare(options, task).run()


def measure_speed(options: ValOptions, task: DetectionTask) -> ValidationSummary:
    """Time each of the weights as they would run in use (confidence 0.25, IoU 0.45, square batches, no plots)."""
    options = replace(options, conf_thres=0.25, iou_thres=0.45, save_json=False, no_plots=True)
    return [evaluation.run() for evaluation in _each_weights(options, task)][-1]


def study_sizes(options: ValOptions, task: DetectionTask) -> ValidationSummary:
    """Score each of the weights at image sizes 256 to 1536; writes ``study_<data>_<weights>.txt`` and ``study.png``."""
    options = replace(options, save_json=False, no_plots=True)
    data = "data" if isinstance(options.data, dict) else Path(options.data).stem
    tables: dict[str, np.ndarray] = {}
    for evaluation in _each_weights(options, task):
        folder, stem = evaluation.save_dir, Path(evaluation.options.weights[0]).stem
        rows = []
        for size in SIZES:
            size = network_size(size, evaluation.model.stride)[0]
            LOGGER.info(f"{stem} at {size}:")
            result, _ = evaluation.score((size, size), verbose=False)
            last = result.summary
            rows.append([size, *last.metrics[:4], *last.speeds_ms])
            tables[stem] = np.array(rows)
            with atomic_write(folder / f"study_{data}_{stem}.txt", "w") as file:
                np.savetxt(file, tables[stem], fmt="%10.4g", header=" ".join(f"{c:>13}" for c in _COLUMNS))
    LOGGER.info(f"Study in {plot_study(tables, folder / 'study.png')}")
    return last


def _each_weights(options: ValOptions, task: DetectionTask) -> Iterator[Evaluation]:
    """An `Evaluation` for each of ``--weights``: here they are alternatives, not an ensemble. One folder for all."""
    for weights in options.weights:
        evaluation = Evaluation.prepare(replace(options, weights=[weights]), task)
        options = replace(options, name=evaluation.save_dir.name, exist_ok=True)
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
