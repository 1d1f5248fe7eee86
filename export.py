"""Write a trained network as a file for other runtimes, and prove that it computes the same.

Usage:
    python export.py --list                                             # formats, and what each needs
    python export.py --weights best.pt --include onnx                   # best.onnx, of 1×3×640×640
    python export.py --weights best.pt --include onnx --imgsz 480 640 --simplify
    python export.py --weights best.pt --include onnx --dynamic         # any batch, height and width
    python export.py --weights best.pt --include onnx torchscript --nms # detections come out
    python export.py --weights yolov5n.pt --include onnx --raw-heads    # the head's maps come out

From Python: ``import export; files = export.run(weights="best.pt", include=["onnx"])``
Exit code: 0, 1 if something was wrong, a file that differs from PyTorch included, 2 for a wrong flag.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.export.options import export_parser
from utils.cli import CommandParser, run_command


def _parser() -> CommandParser:
    return export_parser("Write a trained network as a file for other runtimes")


def parse_opt(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of `argv`, by default of the command line."""
    return _parser().parse_args(argv)


def run(**kwargs: Any) -> list[Path]:
    """Export with the given options, the rest at their defaults: ``run(weights=…, include=["onnx"], imgsz=320)``.

    Returns the files, in the order of `include`.
    """
    from utils.logging import configure_logging

    configure_logging()
    return main(_parser().keywords(kwargs))


def main(options: argparse.Namespace) -> list[Path]:
    """Export as `options` say."""
    from engine.export.command import run_export

    return run_export(options)


def _command() -> None:
    main(parse_opt())


if __name__ == "__main__":
    run_command(_command)
