"""Validate an instance segmenter on a data set: boxes and masks.

Usage:
    python segment/val.py                                                      # newest best.pt, embedded data set
    python segment/val.py --weights best.pt --data my.yaml --img 640 --verbose
    python segment/val.py --weights best.pt --data my.yaml --save-json         # and the official evaluator's figures

From Python: ``from segment import val; metrics, maps, speeds_ms = val.run(data="my.yaml", weights="best.pt")``
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __package__ in {None, ""}:  # run as a script: this folder is on the path, the project is not
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from engine.validation.flags import validation_parser, with_implied
from utils.cli import CommandParser, options_of, run_command

if TYPE_CHECKING:
    from engine.validation.validator import ValidationSummary


def _parser() -> CommandParser:
    parser = validation_parser(
        "Validate an instance segmenter on a data set", data="data/shapes-seg.yaml", project="runs/val-seg"
    )
    parser.add_argument(
        "--retina-masks",
        action="store_true",
        help="match masks at the resolution of the original image instead of the coarser prototypes "
        "(implied by --save-json, as the official evaluator does so)",
    )
    return parser


def parse_opt(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of `argv`, by default of the command line."""
    return with_implied(_parser().parse_args(argv))


def run(**kwargs: Any) -> ValidationSummary:
    """Validate with the given options, the rest at their defaults; see `val.run`.

    `metrics` has mean precision, mean recall, mAP50, mAP50-95 of the boxes, then of the masks, then the losses box,
    seg, obj, cls; `maps (nc,)` is each class's mAP50-95, the mean of boxes and masks.
    """
    return main(with_implied(_parser().keywords(kwargs)))


def main(options: argparse.Namespace) -> ValidationSummary:
    """Validate, measure or study, as `options.task` says."""
    from engine.segmentation import SegmentationTask
    from engine.validation.command import run_validation
    from engine.validation.options import ValOptions

    task = SegmentationTask(retina_masks=options.retina_masks or options.save_json)
    return run_validation(options_of(ValOptions, options), task)


if __name__ == "__main__":
    run_command(lambda: main(parse_opt()) and 0)
