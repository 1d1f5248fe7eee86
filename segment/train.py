"""Train an instance segmenter.

Usage:
    python segment/train.py                                                    # the embedded data set, MobileNetV2
    python segment/train.py --cfg yolov5n_MobileNetv2-seg.yaml --data my.yaml  # your own data, from random weights
    python segment/train.py --weights yolov5n.pt --data my.yaml                # start from a published detector
    python segment/train.py --resume runs/train-seg/exp/weights/last.pt        # go on after an interruption
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

if __package__ in {None, ""}:  # run as a script: this folder is on the path, the project is not
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import train
from engine.training.flags import parse_training, training_keywords, training_parser
from utils.cli import CommandParser, run_command
from utils.commands.values import Whole


def _parser() -> CommandParser:
    parser = training_parser(
        "Train an instance segmenter",
        data="data/shapes-seg.yaml",
        project="runs/train-seg",
        cfg="yolov5_MobileNetv2-seg.yaml",
    )
    parser.add_argument(
        "--mask-ratio", type=Whole(1, 64), default=4, help="label masks are this many times smaller than the images"
    )
    parser.add_argument("--no-overlap", action="store_true", help="keep one full mask per object, even if they overlap")
    return parser


def parse_opt(argv: list[str] | None = None) -> argparse.Namespace:
    """The options on the command line; `given` holds the names of those that were set there."""
    return parse_training(_parser(), argv)


def main(opt: argparse.Namespace) -> Any:
    """Train as `opt` says; returns the final validation (`engine.validation.validator.ValidationResult`)."""
    from engine.segmentation import SegmentationTask

    return train.main(opt, SegmentationTask())


def run(**kwargs: Any) -> Any:
    """``from segment import train; train.run(data='my.yaml', imgsz=320)``: the options as keywords."""
    from utils.logging import configure_logging

    configure_logging()
    return main(training_keywords(_parser(), kwargs))


if __name__ == "__main__":
    run_command(lambda: main(parse_opt()))
