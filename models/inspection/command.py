"""The command ``python models/yolo.py``: prints a network, times it, or builds every network under models/."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from models.configs import known_cfgs
from models.inspection.profiling import profile_model
from utils.cli import CommandParser, image_size
from utils.commands.values import batch_size, image_side, text
from utils.data.images.memory import check_memory
from utils.devices import select_one_device
from utils.errors import UserError
from utils.logging import LOGGER
from utils.ops.letterbox import make_divisible


def parser() -> CommandParser:
    """The flags of ``python models/yolo.py``."""
    parser = CommandParser("Print a network's layer table and totals.")
    parser.add_argument("--cfg", type=text, default="yolov5_MobileNetv2.yaml", help="path or name of a network YAML")
    parser.add_argument("--batch-size", "--batch", type=batch_size, default=1, help="images per batch for timing")
    parser.add_argument(
        "--imgsz", "--img", "--img-size", nargs="+", type=image_side, default=[640], help="pixels, or height and width"
    )
    parser.add_argument("--device", default="", help="cuda device such as 0, or cpu")
    parser.add_argument("--profile", action="store_true", help="time the forward and backward pass")
    parser.add_argument("--line-profile", action="store_true", help="time each row of the network")
    parser.add_argument("--test", action="store_true", help="build every network under models/ instead")
    return parser


def inspect_network(build: Callable[[str], Any], args: Sequence[str] | None = None) -> int:
    """Print or time the network that `build` makes of ``--cfg``. Returns 1 if ``--test`` finds one that fails."""
    opt = parser().parse_args(args)
    if opt.test:
        return build_all(build)
    size = image_size(opt.imgsz)
    model = build(opt.cfg)
    model.info(verbose=True, imgsz=size)
    if opt.profile or opt.line_profile:
        _check_size(size, int(model.stride.max()))
        check_memory(opt.batch_size, size)
        device = select_one_device(opt.device)
        model.to(device)
        images = torch.rand(opt.batch_size, model.yaml["ch"], *size, device=device)
        if opt.line_profile:
            with torch.no_grad():
                model.eval()(images, profile=True)
        if opt.profile:
            profile_model(model, images)
    return 0


def _check_size(size: tuple[int, int], stride: int) -> None:
    """Raise `UserError` for a size (height, width) at which the maps of the network would not fit together."""
    fit = [max(make_divisible(side, stride), 2 * stride) for side in size]  # BatchNorm needs two cells to train
    if fit != list(size):
        given, better = (" ".join(map(str, sides)) for sides in (size, fit))
        raise UserError(f"--imgsz {given} cannot be timed: give multiples of {stride}, such as --imgsz {better}")


def build_all(build: Callable[[str], Any]) -> int:
    """Build every known network, and log its totals or the error. Returns 1 if any network cannot be built."""
    failures = 0
    for name in known_cfgs():
        try:
            build(name).info()
        except UserError as error:
            failures += 1
            LOGGER.error(f"{name}: {error}")
    return int(failures > 0)
