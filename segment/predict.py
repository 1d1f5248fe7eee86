"""Find objects and their masks in images, videos and streams.

Usage:
    python segment/predict.py                                                # newest best.pt on data/images
    python segment/predict.py --weights yolov5s-seg.pt --source photo.jpg    # published weights, one image
    python segment/predict.py --source folder/ --retina-masks --save-mask    # fine masks, as PNG too
    python segment/predict.py --source video.mp4 --save-txt --save-crop      # outlines, cut-outs

From Python: ``from segment import predict; summary = predict.run(weights="best.pt", source="folder")``
Exit code: 0, 1 if something could not be read or was wrong, 2 for a wrong flag.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __package__ in {None, ""}:  # run as a script: this folder is on the path, the project is not
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from engine.prediction.flags import prediction_parser
from utils.cli import CommandParser, options_of, run_command

if TYPE_CHECKING:
    from engine.prediction.predictor import PredictionSummary


def _parser() -> CommandParser:
    description = "Find objects and their masks in images, videos and streams"
    return prediction_parser(description, project="runs/predict-seg", masks=True)


def parse_opt(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of `argv`, by default of the command line."""
    return _parser().parse_args(argv)


def run(**kwargs: Any) -> PredictionSummary:
    """Segment with the given options, the rest at their defaults: ``run(weights=…, source=…, retina_masks=True)``.

    Returns a `PredictionSummary`: run folder, counts of images, frames and detections, unreadable sources, speeds.
    """
    from utils.logging import configure_logging

    configure_logging()
    return main(_parser().keywords(kwargs))


def main(options: argparse.Namespace) -> PredictionSummary:
    """Segment as `options` say."""
    from engine.prediction.command import run_prediction
    from engine.prediction.options import DetectOptions
    from engine.segmentation import SegmentationTask

    return run_prediction(options_of(DetectOptions, options), SegmentationTask(retina_masks=options.retina_masks))


def _command() -> int:
    return 0 if main(parse_opt()).complete else 1


if __name__ == "__main__":
    run_command(_command)
