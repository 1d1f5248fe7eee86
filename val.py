"""Validate a detector on a data set.

    python val.py                                                          # newest best.pt on the embedded data set
    python val.py --weights yolov5s.pt --data coco128.yaml --img 640       # published weights
    python val.py --weights best.pt --data my.yaml --task test --verbose --save-json
    python val.py --weights best.pt --data my.yaml --task speed --batch 1  # or: --task study

From Python: ``import val; (mp, mr, map50, map, *losses), maps, speeds_ms = val.run(data="my.yaml", weights="best.pt")``
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from engine.validation.flags import validation_parser, with_implied
from utils.cli import CommandParser, options_of, run_command

if TYPE_CHECKING:
    from engine.validation.validator import ValidationSummary


def _parser() -> CommandParser:
    return validation_parser("Validate a detector on a data set", data="data/shapes.yaml", project="runs/val")


def parse_opt(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of `argv`, by default of the command line."""
    return with_implied(_parser().parse_args(argv))


def run(**kwargs: Any) -> ValidationSummary:
    """Validate with the given options, the rest at their defaults: ``run(data=…, weights=…, imgsz=320)``.

    Returns ``(metrics, maps, speeds_ms)``: `metrics` is (mean precision, mean recall, mAP50, mAP50-95, box, obj, cls
    loss; the losses are 0 without a training criterion), `maps (nc,)` each class's mAP50-95 (the mean where a class
    has no label), `speeds_ms` pre-processing, inference and NMS per image.
    """
    return main(with_implied(_parser().keywords(kwargs)))


def main(options: argparse.Namespace) -> ValidationSummary:
    """Validate, measure or study, as `options.task` says."""
    from engine.task import DetectionTask
    from engine.validation.command import run_validation
    from engine.validation.options import ValOptions

    return run_validation(options_of(ValOptions, options), DetectionTask())


def _command() -> None:
    main(parse_opt())


if __name__ == "__main__":
    run_command(_command)
