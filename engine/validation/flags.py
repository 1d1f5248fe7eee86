"""The flags of `val.py` and `segment/val.py`. Imports nothing heavy, so that ``--help`` answers at once."""

from __future__ import annotations

import argparse
from importlib.util import find_spec

from utils.cli import CommandParser
from utils.commands.values import Fraction, Whole, batch_size, image_side, processes, text

TASKS = ("train", "val", "test", "speed", "study")


def validation_parser(description: str, *, data: str, project: str) -> CommandParser:
    """The parser; `data` and `project` are the defaults that differ between detection and segmentation."""
    parser = CommandParser(description)
    _add_what(parser, data)
    _add_how(parser)
    _add_output(parser, project)
    parser.take_objects("data", dict)
    return parser


def with_implied(options: argparse.Namespace) -> argparse.Namespace:
    """`options` with those that others imply: --save-hybrid writes text files, COCO is scored by its own evaluator."""
    options.save_txt |= options.save_hybrid
    if str(options.data).endswith("coco.yaml") and find_spec("pycocotools"):
        options.save_json = True
    return options


def _add_what(parser: CommandParser, data: str) -> None:
    parser.add_argument("--data", type=text, default=data, help="data set YAML: a path, or a name under data/")
    parser.add_argument(
        "--weights",
        type=text,
        nargs="+",
        default=None,
        help="checkpoint(s); several make an ensemble (default: newest best.pt)",
    )
    parser.add_argument(
        "--task", choices=TASKS, default="val", help="the split to score; or measure speed, or study image sizes"
    )
    parser.add_argument("--batch-size", "--batch", type=batch_size, default=32, help="images per batch")
    parser.add_argument(
        "--imgsz",
        "--img",
        "--img-size",
        nargs="+",
        type=image_side,
        default=[640],
        help="image size in pixels: one number, or height and width",
    )
    parser.add_argument("--conf-thres", type=Fraction(), default=0.001, help="minimum confidence of a detection")
    parser.add_argument(
        "--iou-thres", type=Fraction(), default=0.6, help="IoU above which NMS drops the less confident of two boxes"
    )
    parser.add_argument("--max-det", type=Whole(1), default=300, help="maximum number of detections per image")
    parser.add_argument("--single-cls", action="store_true", help="treat all classes as one")


def _add_how(parser: CommandParser) -> None:
    parser.add_argument("--device", default="", help="cuda device such as 0, or cpu; '' takes the first GPU there is")
    parser.add_argument("--workers", type=processes, default=8, help="maximum number of data loader processes")
    parser.add_argument("--augment", action="store_true", help="test-time augmentation")
    parser.add_argument("--half", action="store_true", help="half precision (CUDA only)")
    parser.add_argument("--dnn", action="store_true", help="OpenCV DNN for ONNX weights")
    parser.add_argument(
        "--trust", action="store_true", help="run a .torchscript, and read weights with classes outside the allow-list"
    )


def _add_output(parser: CommandParser, project: str) -> None:
    parser.add_argument("--verbose", action="store_true", help="print a line per class")
    parser.add_argument("--save-txt", action="store_true", help="write detections as YOLO text files")
    parser.add_argument("--save-hybrid", action="store_true", help="write text files of labels and detections together")
    parser.add_argument("--save-conf", action="store_true", help="write confidences into the text files")
    parser.add_argument("--save-json", action="store_true", help="write COCO JSON, scored by the official evaluator")
    parser.add_argument(
        "--coco-annotations", type=text, default=None, metavar="JSON", help="official ground truth for --save-json"
    )
    parser.add_argument("--no-plots", action="store_true", help="write no plots")
    parser.add_argument("--project", type=text, default=project, help="folder of the run folders")
    parser.add_argument("--name", type=text, default="exp", help="name of the run folder")
    parser.add_argument("--exist-ok", action="store_true", help="write into the run folder if it exists already")
