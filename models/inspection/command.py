"""The command behind ``python models/yolo.py``: print a network, time it, build all there are."""

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
    parser.add_argument("--cfg", type=text, default="yolov5_MobileNetv2.yaml", help="network YAML, path or name")
    parser.add_argument("--batch-size", "--batch", type=batch_size, default=1, help="images of the batch that is timed")
    parser.add_argument(
        "--imgsz", "--img", "--img-size", nargs="+", type=image_side, default=[640], help="size or height width"
    )
    parser.add_argument("--device", default="", help="cuda device, such as 0, or cpu")
    parser.add_argument("--profile", action="store_true", help="time forward and backward")
    parser.add_argument("--line-profile", action="store_true", help="time each row")
    parser.add_argument("--test", action="store_true", help="build every network under models/ instead")
    return parser


def inspect_network(build: Callable[[str], Any], args: Sequence[str] | None = None) -> int:
    """Do what the flags ask for with what `build` makes of ``--cfg``; 1 if ``--test`` met a network that fails."""
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
    """Raise `UserError` for a size (height, width) that the network cannot compute: its maps would not fit together."""
    fit = [max(make_divisible(side, stride), 2 * stride) for side in size]  # BatchNorm trains on two cells at least
    if fit != list(size):
        given, better = (" ".join(map(str, sides)) for sides in (size, fit))
        raise UserError(f"--imgsz {given} cannot be timed: give multiples of {stride}, such as --imgsz {better}")


def build_all(build: Callable[[str], Any]) -> int:
    """Build every known network and log its totals, or why it fails; 1 if any does."""
    failures = 0
    for name in known_cfgs():
        try:
            build(name).info()
        except UserError as error:
            failures += 1
            LOGGER.error(f"{name}: {error}")
    return int(failures > 0)
