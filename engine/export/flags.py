"""The flags of `export.py`. This file imports nothing heavy, so that ``--help`` is instant."""

from __future__ import annotations

from utils.cli import CommandParser
from utils.commands.values import Fraction, Whole, batch_size, image_side, memory_text, text

detection_limit = Whole(1, 30_000, cost=lambda n: f"the rows of one image alone take {memory_text(24 * n)}")


def export_parser(description: str) -> CommandParser:
    """The parser of the export command."""
    parser = CommandParser(description)
    _add_what(parser)
    _add_network(parser)
    _add_layout(parser)
    parser.refuse("--keras", "this project writes TFLite from PyTorch, without TensorFlow")
    parser.refuse("--workspace", "TensorRT builds its engines itself, from our ONNX file; see docs/export.md")
    parser.refuse("--verbose", "TensorRT builds its engines itself, from our ONNX file; see docs/export.md")
    parser.refuse("--topk-per-class", "there is only --topk-all, the most detections per image")
    parser.refuse("--optimize", "it was for PyTorch Mobile, which is no longer developed; see docs/export.md")
    return parser


def _add_what(parser: CommandParser) -> None:
    add = parser.add_argument
    add("--weights", type=text, nargs="+", default=None, help="checkpoint to export (default: the newest best.pt)")
    add("--include", type=text, nargs="+", default=["torchscript"], help="formats to write; see --list")
    add("--list", action="store_true", help="print a table of the formats, and export nothing")
    add(
        "--data",
        type=text,
        default=None,
        help="data set YAML whose images calibrate --int8 and measure the loss of accuracy",
    )
    add("--device", default="cpu", help="cuda device such as 0, or cpu")
    add("--trust", action="store_true", help="load checkpoints that hold classes outside the allow-list")
    verify = parser.add_mutually_exclusive_group()
    add = verify.add_argument
    add("--verify", action="store_true", default=True, help="run each file on two images and compare with PyTorch")
    add("--no-verify", dest="verify", action="store_false", help="skip the comparison, and the accuracy of --int8")


def _add_network(parser: CommandParser) -> None:
    add = parser.add_argument
    sizes = ("--imgsz", "--img", "--img-size")
    add(*sizes, nargs="+", type=image_side, default=[640], help="image size in pixels: one number, or height and width")
    add("--batch-size", "--batch", type=batch_size, default=1, help="number of images in a batch")
    add("--dynamic", action="store_true", help="let batch size, height and width vary")
    add("--half", action="store_true", help="write weights and input in half precision (fp16)")
    add("--int8", action="store_true", help="quantise to 8 bits; needs --data")
    add("--inplace", action="store_true", help="accepted for scripts written for YOLOv5; changes nothing")
    add("--opset", type=Whole(1), default=None, help="ONNX: version of the operator set (17; with --dynamo 18)")
    add("--simplify", action="store_true", help="ONNX: simplify the graph with onnxslim")
    add("--dynamo", action="store_true", help="ONNX: use PyTorch's newer exporter")


def _add_layout(parser: CommandParser) -> None:
    add = parser.add_argument
    add("--separate-heads", action="store_true", help="give boxes and scores as two outputs")
    add("--raw-heads", action="store_true", help="give the head's feature maps as outputs, without decoding")
    add("--nms", action="store_true", help="include non-maximum suppression in the file")
    add("--agnostic-nms", action="store_true", help="with --nms: boxes of different classes suppress each other")
    add("--topk-all", type=detection_limit, default=100, help="with --nms: the most detections per image")
    add("--iou-thres", type=Fraction(), default=0.45, help="with --nms: IoU above which the lesser box is dropped")
    add("--conf-thres", type=Fraction(), default=0.25, help="with --nms: the lowest confidence of a detection")
