"""Export a trained network to files for other runtimes, and check that they compute the same as PyTorch.

Usage:
    python export.py --list                                             # the formats, and the packages they need
    python export.py --weights best.pt --include onnx                   # best.onnx, for images 1×3×640×640
    python export.py --weights best.pt --include onnx --imgsz 480 640 --simplify
    python export.py --weights best.pt --include onnx --dynamic         # any batch size, height and width
    python export.py --weights best.pt --include onnx torchscript --nms # the outputs are detections
    python export.py --weights yolov5n.pt --include onnx --raw-heads    # the outputs are the head's feature maps

From Python: ``import export; files = export.run(weights="best.pt", include=["onnx"])``
Exit code: 0 on success, 1 for an error or a file that differs from PyTorch, 2 for a wrong flag.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.export.flags import export_parser
from utils.cli import CommandParser, run_command


def _parser() -> CommandParser:
    return export_parser("Export a trained network to files for other runtimes")


def parse_opt(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse `argv`, by default the command line."""
    return _parser().parse_args(argv)


def run(**kwargs: Any) -> list[Path]:
    """Export with the given options and the defaults of the others: ``run(weights=…, include=["onnx"], imgsz=320)``.

    Returns the files in the order of `include`.
    """
    from utils.logging import configure_logging

    configure_logging()
    return main(_parser().keywords(kwargs))


def main(options: argparse.Namespace) -> list[Path]:
    """Export with the parsed `options`, and return the files in the order of ``--include``."""
    from engine.export.command import run_export

    return run_export(options)


def _command() -> None:
    main(parse_opt())


if __name__ == "__main__":
    run_command(_command)
