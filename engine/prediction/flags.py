"""The flags of `detect.py` and `segment/predict.py`. Imports nothing heavy, so that ``--help`` answers at once."""

from __future__ import annotations

from utils.cli import CommandParser
from utils.commands.values import Fraction, Whole, batch_size, image_side, text


def prediction_parser(description: str, *, project: str, masks: bool = False) -> CommandParser:
    """The parser; `project` is the default folder of runs, `masks` adds the flags that only segmentation has."""
    parser = CommandParser(description)
    _add_what(parser)
    _add_how(parser)
    _add_output(parser, project, crops="png, the mask as alpha" if masks else "jpg")
    if masks:
        _add_masks(parser)
    parser.take_objects("source", list, tuple)  # of paths
    return parser


def _add_what(parser: CommandParser) -> None:
    add = parser.add_argument
    add(
        "--weights",
        type=text,
        nargs="+",
        default=None,
        help="checkpoint(s); several make an ensemble (default: newest best.pt)",
    )
    add(
        "--source",
        type=text,
        default="data/images",
        help="image, video, folder, glob, .txt list, URL, camera number, rtsp/rtmp/http stream, .streams list, "
        "or 'screen [N] [LEFT TOP WIDTH HEIGHT]'",
    )
    add("--data", type=text, default=None, help="accepted and ignored, because weights hold the class names")
    sizes = ("--imgsz", "--img", "--img-size")
    add(*sizes, nargs="+", type=image_side, default=[640], help="image size in pixels: one number, or height and width")
    add("--conf-thres", type=Fraction(), default=0.25, help="minimum confidence of a detection")
    add("--iou-thres", type=Fraction(), default=0.45, help="IoU above which NMS drops the less confident of two boxes")
    add("--max-det", type=Whole(1), default=1000, help="maximum number of detections per image")
    add("--classes", nargs="+", type=Whole(0), default=None, help="keep these classes only: --classes 0 2 3")
    add("--agnostic-nms", action="store_true", help="let boxes of different classes suppress each other")
    add("--vid-stride", type=Whole(1), default=1, help="take every Nth frame of a video or stream")


def _add_how(parser: CommandParser) -> None:
    add = parser.add_argument
    add("--device", default="", help="cuda device such as 0, or cpu or mps; '' takes the first GPU there is")
    add(
        "--batch-size",
        "--batch",
        type=batch_size,
        default=1,
        help="images or frames per batch",
    )
    add("--augment", action="store_true", help="test-time augmentation")
    add("--half", action="store_true", help="half precision (GPU only)")
    add("--dnn", action="store_true", help="OpenCV DNN for ONNX weights")
    add("--trust", action="store_true", help="run a .torchscript, and read weights with classes outside the allow-list")
    add("--update", action="store_true", help="first remove optimiser and other training state from the weights file")


def _add_output(parser: CommandParser, project: str, crops: str) -> None:
    add = parser.add_argument
    add("--project", type=text, default=project, help="folder of the run folders")
    add("--name", type=text, default="exp", help="name of the run folder")
    add("--exist-ok", action="store_true", help="write into the run folder if it exists already")
    add("--nosave", action="store_true", help="save no images or videos")
    add("--save-txt", action="store_true", help="write a label file per image: labels/NAME.txt")
    add("--save-conf", action="store_true", help="write the confidence into label files")
    add("--save-csv", action="store_true", help="write all detections into one table: predictions.csv")
    add("--save-crop", action="store_true", help=f"write every detection as a crop: crops/CLASS/NAME.{crops}")
    add("--view-img", action="store_true", help="show the images (q or Escape ends the run)")
    add("--visualize", action="store_true", help="write an image of each layer's features")
    add("--line-thickness", type=Whole(0, 1000), default=3, help="line width in pixels; 0 adapts it to the image")
    add("--hide-labels", action="store_true", help="draw boxes without labels")
    add("--hide-conf", action="store_true", help="draw labels without confidences")
    add(
        "--font",
        type=text,
        default=None,
        help="font for labels: a file, or the name of one of this system (default: automatic)",
    )


def _add_masks(parser: CommandParser) -> None:
    add = parser.add_argument
    add("--retina-masks", action="store_true", help="masks at the resolution of the image: finer edges, slower")
    add(
        "--save-mask",
        action="store_true",
        help="write class and instance PNGs: masks/NAME_{classes,instances}.png",
    )
