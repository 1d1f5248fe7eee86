"""The flags of `export.py`. Imports nothing heavy: ``--help`` answers at once."""

from __future__ import annotations

from utils.cli import CommandParser
from utils.commands.values import Fraction, Whole, batch_size, image_side, memory_text, text

most_detections = Whole(1, 30_000, cost=lambda n: f"the rows of one image alone take {memory_text(24 * n)}")


def export_parser(description: str) -> CommandParser:
    """The parser of the command."""
    parser = CommandParser(description)
    _add_what(parser)
    _add_network(parser)
    _add_layout(parser)
    parser.refuse("--keras", "this project writes TFLite from PyTorch, without TensorFlow")
    parser.refuse("--workspace", "TensorRT builds its engines itself, from our ONNX file; see docs/export.md")
    parser.refuse("--verbose", "TensorRT builds its engines itself, from our ONNX file; see docs/export.md")
    parser.refuse("--topk-per-class", "only --topk-all, the most detections an image, counts")
    parser.refuse("--optimize", "PyTorch Mobile, which it was for, is no longer developed; see docs/export.md")
    return parser


def _add_what(parser: CommandParser) -> None:
    add = parser.add_argument
    add("--weights", type=text, nargs="+", default=None, help="checkpoint (default: newest best.pt)")
    add("--include", type=text, nargs="+", default=["torchscript"], help="formats; --list tells which there are")
    add("--list", action="store_true", help="print the table of formats, and export nothing")
    add(
        "--data", type=text, default=None, help="data set YAML: its pictures calibrate --int8, and tell what that costs"
    )
    add("--device", default="cpu", help="cuda device such as 0, or cpu")
    add("--trust", action="store_true", help="unpickle weights whose classes are not on the allow-list")
    verify = parser.add_mutually_exclusive_group()
    add = verify.add_argument
    add("--verify", action="store_true", default=True, help="run each file on two pictures and compare with PyTorch")
    add("--no-verify", dest="verify", action="store_false", help="leave that out, and the accuracy of --int8 too")


def _add_network(parser: CommandParser) -> None:
    add = parser.add_argument
    sizes = ("--imgsz", "--img", "--img-size")
    add(*sizes, nargs="+", type=image_side, default=[640], help="pixels: one size, or height and width")
    add("--batch-size", "--batch", type=batch_size, default=1, help="images that go through the network together")
    add("--dynamic", action="store_true", help="let batch, height and width vary")
    add("--half", action="store_true", help="half precision (fp16) weights and input")
    add("--int8", action="store_true", help="quantised weights")
    add("--inplace", action="store_true", help="accepted for scripts written for YOLOv5; changes nothing")
    add("--opset", type=Whole(1), default=None, help="ONNX: version of the operator set (17; with --dynamo 18)")
    add("--simplify", action="store_true", help="ONNX: fewer nodes, by onnxslim")
    add("--dynamo", action="store_true", help="ONNX: PyTorch's newer exporter")


def _add_layout(parser: CommandParser) -> None:
    add = parser.add_argument
    add("--separate-heads", action="store_true", help="boxes and scores as two outputs")
    add("--raw-heads", action="store_true", help="the head's maps as outputs, not decoded")
    add("--nms", action="store_true", help="non-maximum suppression in the file")
    add("--agnostic-nms", action="store_true", help="with --nms: boxes of different classes suppress each other")
    add("--topk-all", type=most_detections, default=100, help="with --nms: most detections an image")
    add("--iou-thres", type=Fraction(), default=0.45, help="with --nms: overlap above which the lesser box goes")
    add("--conf-thres", type=Fraction(), default=0.25, help="with --nms: least confidence of a detection")
