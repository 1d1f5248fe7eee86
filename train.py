"""Train a detector.

Usage:
    python train.py                                                        # the embedded data set, yolov5_MobileNetv2
    python train.py --cfg yolov5n_MobileNetv2.yaml --data my.yaml          # your own data, from random weights
    python train.py --weights yolov5n.pt --data my.yaml --img 640          # fine-tune a published checkpoint
    python train.py --resume runs/train/exp/weights/last.pt                # go on after an interruption
    torchrun --nproc_per_node 2 train.py --data my.yaml --device 0,1       # two GPUs
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from engine.training.flags import parse_training, training_keywords, training_parser
from utils.cli import CommandParser, options_of, run_command

if TYPE_CHECKING:
    from engine.task import DetectionTask


def _parser() -> CommandParser:
    return training_parser(
        "Train a detector", data="data/shapes.yaml", project="runs/train", cfg="yolov5_MobileNetv2.yaml"
    )


def parse_opt(argv: list[str] | None = None) -> argparse.Namespace:
    """The options on the command line; `given` holds the names of those that were set there."""
    return parse_training(_parser(), argv)


def main(opt: argparse.Namespace, task: DetectionTask | None = None) -> Any:
    """Train as `opt` says; returns the final validation (`engine.validation.validator.ValidationResult`)."""
    from engine.task import DetectionTask
    from engine.training.command import train
    from engine.training.evolve import evolve

    task = task or DetectionTask()
    options = options_of(task.train_options, opt)
    command = train if options.evolve is None else evolve
    return command(options, task, given=opt.given)


def run(**kwargs: Any) -> Any:
    """``import train; train.run(data='my.yaml', imgsz=320)``: the command line's options as keywords."""
    from utils.logging import configure_logging

    configure_logging()
    return main(training_keywords(_parser(), kwargs))


if __name__ == "__main__":
    run_command(lambda: main(parse_opt()))
