"""Find objects in images, videos and streams.

Usage:
    python detect.py                                                # newest best.pt on data/images
    python detect.py --weights yolov5s.pt --source photo.jpg        # published weights, one image
    python detect.py --source folder/ --batch-size 8 --save-txt     # also: 'dir/*.jpg', list.txt, video.mp4
    python detect.py --source 0                                     # camera; also rtsp://…, list.streams, screen

From Python: ``import detect; summary = detect.run(weights="best.pt", source="folder")``
Exit code: 0, 1 if something could not be read or was wrong, 2 for a wrong flag.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from engine.prediction.flags import prediction_parser
from utils.cli import CommandParser, options_of, run_command

if TYPE_CHECKING:
    from engine.prediction.predictor import PredictionSummary


def _parser() -> CommandParser:
    return prediction_parser("Find objects in images, videos and streams", project="runs/detect")


def parse_opt(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of `argv`, by default of the command line."""
    return _parser().parse_args(argv)


def run(**kwargs: Any) -> PredictionSummary:
    """Detect with the given options, the rest at their defaults: ``run(weights=…, source=…, imgsz=320)``.

    Returns a `PredictionSummary`: run folder, counts of images, frames and detections, unreadable sources, speeds.
    """
    from utils.logging import configure_logging

    configure_logging()
    return main(_parser().keywords(kwargs))


def main(options: argparse.Namespace) -> PredictionSummary:
    """Detect as `options` say."""
    from engine.prediction.command import run_prediction
    from engine.prediction.options import DetectOptions
    from engine.task import DetectionTask

    return run_prediction(options_of(DetectOptions, options), DetectionTask())


def _command() -> int:
    return 0 if main(parse_opt()).complete else 1


if __name__ == "__main__":
    run_command(_command)
