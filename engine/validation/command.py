"""What ``--task`` means: score a split, measure the speed, or study image sizes."""

from __future__ import annotations

import argparse
from pathlib import Path

from engine.task import DetectionTask
from engine.validation.evaluation import Evaluation, Verdict
from engine.validation.speed_study import measure_speed, study_sizes
from models.weights import newest_best
from utils.logging import LOGGER


def run_task(options: argparse.Namespace, task: DetectionTask) -> Verdict:
    """Do what `options.task` says, with the newest training's weights if none are named; the (last) verdict."""
    if not options.weights:
        options.weights = newest_best(task.run_suffix)
        LOGGER.info(f"--weights not given, so the newest training's: {options.weights}")
    if isinstance(options.weights, (str, Path)):
        options.weights = [str(options.weights)]
    if options.task == "speed":
        return measure_speed(options, task)
    if options.task == "study":
        return study_sizes(options, task)
    return Evaluation.prepare(options, task).run()
