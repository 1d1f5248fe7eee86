"""The command behind ``python models/yolo.py``: print a network, time it, build all there are."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import torch

from models.configs import known_cfgs
from models.inspection.profiling import profile_model
from utils.cli import CommandParser, image_size
from utils.devices import select_one_device
from utils.errors import UserError
from utils.logging import LOGGER


def parse_opt(args: Sequence[str] | None = None) -> argparse.Namespace:
    """The flags of ``python models/yolo.py``."""
    parser = CommandParser("Print a network's layer table and totals.")
    parser.add_argument("--cfg", default="yolov5_MobileNetv2.yaml", help="network YAML, path or name")
    parser.add_argument("--batch-size", "--batch", type=int, default=1, help="images of the batch that is timed")
    parser.add_argument(
        "--imgsz", "--img", "--img-size", nargs="+", type=int, default=[640], help="size or height width"
    )
    parser.add_argument("--device", default="", help="cuda device, such as 0, or cpu")
    parser.add_argument("--profile", action="store_true", help="time forward and backward")
    parser.add_argument("--line-profile", action="store_true", help="time each row")
    parser.add_argument("--test", action="store_true", help="build every network under models/ instead")
    return parser.parse_args(args)


def inspect_network(build: Callable[[str], Any], args: Sequence[str] | None = None) -> int:
    """Do what the flags ask for with what `build` makes of ``--cfg``; 1 if ``--test`` met a network that fails."""
    opt = parse_opt(args)
    if opt.test:
        return build_all(build)
    size = image_size(opt.imgsz)
    model = build(opt.cfg)
    model.info(verbose=True, imgsz=size)
    if opt.profile or opt.line_profile:
        device = select_one_device(opt.device)
        model.to(device)
        images = torch.rand(opt.batch_size, model.yaml["ch"], *size, device=device)
        if opt.line_profile:
            with torch.no_grad():
                model.eval()(images, profile=True)
        if opt.profile:
            profile_model(model, images)
    return 0


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
