"""Networks for `torch.hub`: images in, boxes out, without a clone of the project.

Usage:
    import torch
    model = torch.hub.load(".", "custom", path="best.pt", source="local")   # your own weights
    model = torch.hub.load(".", "yolov5s", source="local")                  # published ones
    results = model(["a.jpg", "b.png"], size=640)
    results.print(); results.save(); results.pandas().xyxy[0]

    python hubconf.py --model yolov5n    # tries a network on the sample photographs of data/images

Names: custom; yolov5n … yolov5x and yolov5n6 … yolov5x6, which have published weights; and, with random weights,
yolov5_MobileNetv2, its relatives -lite and -edge, and yolov5_RepVGG, each also with a size: yolov5n_MobileNetv2.
docs/hub.md tells the rest.
"""

from __future__ import annotations

import importlib
import pathlib
from typing import TYPE_CHECKING

# `torch.hub` lists every callable without an underscore as a network, so nothing else of this module may be one.
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from pathlib import Path
    from types import ModuleType

    from torch import nn

    from utils.devices import Device

dependencies = ["torch", "numpy", "cv2", "yaml"]  # `torch.hub` reads this and says which are missing

_SIZES = "nsmlx"
_FAMILIES = ("_MobileNetv2", "_MobileNetv2-lite", "_MobileNetv2-edge", "_RepVGG")
_WITH_WEIGHTS = tuple(f"yolov5{size}{kind}" for kind in ("", "6") for size in _SIZES)
_WITHOUT = tuple(f"yolov5{size}{family}" for family in _FAMILIES for size in ("", *_SIZES))


def custom(
    path: str | Path = "path/to/model.pt",
    autoshape: bool = True,
    _verbose: bool = True,
    device: Device = None,
    trust: bool = False,
) -> nn.Module:
    """The network in `path`, a checkpoint or an exported file; see `models.hub.factory.load_network`."""
    return _factory(_verbose).load_network(path, autoshape, device, trust)


def _network(name: str, has_weights: bool) -> Callable[..., nn.Module]:
    def make(
        pretrained: bool = has_weights,
        channels: int = 3,
        classes: int = 80,
        autoshape: bool = True,
        _verbose: bool = True,
        device: Device = None,
    ) -> nn.Module:
        return _factory(_verbose).make_network(name, pretrained, channels, classes, autoshape, device)

    make.__name__ = make.__qualname__ = name
    make.__doc__ = f"{name}, {'published' if has_weights else 'random'} weights; see `models.hub.factory.make_network`."
    return make


def _factory(verbose: bool) -> ModuleType:
    """`models.hub.factory`, with the log at warnings and above unless `verbose`."""
    for name in ("utils", "models"):
        package = importlib.import_module(name)
        if pathlib.Path(__file__).resolve().parent not in pathlib.Path(package.__file__ or "").resolve().parents:
            raise ImportError(
                f"a module called '{name}' ({package.__file__}) is in the place of this project's; rename it, or load "
                "the network in a process that does not import it"
            )
    logging = importlib.import_module("utils.logging")
    logging.configure_logging()
    if not verbose:
        logging.LOGGER.setLevel("WARNING")
    return importlib.import_module("models.hub.factory")


globals().update({_name: _network(_name, _name in _WITH_WEIGHTS) for _name in (*_WITH_WEIGHTS, *_WITHOUT)})


def _parse_opt(argv: list[str] | None = None) -> argparse.Namespace:
    from utils.cli import CommandParser
    from utils.commands.values import image_side, text

    parser = CommandParser("Try a network of torch.hub on the sample photographs of data/images")
    add = parser.add_argument
    add(
        "--model",
        type=text,
        required=True,
        help="yolov5n (or another name of this file), or your weights: best.pt",
    )
    add("--imgsz", "--img", "--img-size", type=image_side, default=640, help="longer side of an image in pixels")
    add("--device", default="", help="cuda device such as 0, or cpu; '' takes the first GPU there is")
    add("--project", type=text, default="runs/detect", help="folder of the run folders")
    add("--name", type=text, default="exp", help="name of the run folder")
    add("--exist-ok", action="store_true", help="use the run folder again if it exists")
    return parser.parse_args(argv)


def _main(argv: list[str] | None = None) -> None:
    options = _parse_opt(argv)
    from models.hub.samples import run_on_samples

    names = {name: name in _WITH_WEIGHTS for name in (*_WITH_WEIGHTS, *_WITHOUT)}
    folder = pathlib.Path(options.project) / options.name
    run_on_samples(options.model, names, options.imgsz, options.device, folder, options.exist_ok)


if __name__ == "__main__":
    importlib.import_module("utils.cli").run_command(_main)
