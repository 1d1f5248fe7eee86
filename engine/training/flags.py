"""The flags of `train.py` and `segment/train.py`. Imports nothing heavy, so that ``--help`` answers at once."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from utils.cli import CommandParser
from utils.commands.values import Fraction, Whole, found_batch_size, image_side, processes, text, text_or_nothing
from utils.errors import nearest

WANDB = "this project logs to CSV and TensorBoard only"


def training_parser(description: str, *, data: str, project: str, cfg: str) -> CommandParser:
    """The flags of a training: those of YOLOv5 v7, and a few more; the arguments are what the tasks set differently."""
    parser = CommandParser(description=description)
    _add_what(parser, data, cfg)
    _add_run(parser, project)
    _add_learning(parser)
    for name in ("data", "cfg", "hyp"):  # their content, where Python has it at hand
        parser.take_objects(name, dict)
    parser.refuse("--bucket", "nothing is uploaded or fetched from cloud storage; copy files yourself")
    for flag in ("--entity", "--upload_dataset", "--bbox_interval", "--artifact_alias"):
        parser.refuse(flag, WANDB)
    return parser


def _add_what(parser: CommandParser, data: str, cfg: str) -> None:
    add = parser.add_argument
    add("--weights", type=text_or_nothing, default="", help="checkpoint to start from (ours or published); '' for none")
    add(
        "--backbone-weights",
        type=text_or_nothing,
        default="",
        help="pretrained backbone: imagenet, imagenet-v1 or a .pth",
    )
    add("--backbone-norm", choices=["imagenet", "tf", "none"], default="imagenet", help="its input in training")
    add("--cfg", type=text_or_nothing, default="", help=f"model YAML; '': that of --weights, or {cfg}")
    add("--data", type=text, default=data, help="data set YAML, a path or a name under data/")
    add("--hyp", type=text, default="data/hyps/hyp.scratch-low.yaml", help="hyper-parameter YAML")
    add("--epochs", type=Whole(1), default=100, help="number of epochs")
    batch = ("--batch-size", "--batch")
    add(*batch, type=found_batch_size, default=16, help="images per batch, over all processes; -1 finds it (CUDA)")
    sizes = ("--imgsz", "--img", "--img-size")
    add(*sizes, type=image_side, nargs="+", default=[640], help="image size in pixels: one number, or height and width")


def _add_run(parser: CommandParser, project: str) -> None:
    add = parser.add_argument
    add("--rect", action="store_true", help="rectangular batches of images of similar shape, without mosaic")
    add(
        "--resume",
        type=text,
        nargs="?",
        const=True,
        default=False,
        help="resume the newest last.pt, or this one",
    )
    add("--nosave", action="store_true", help="save only the final checkpoint")
    add("--noval", action="store_true", help="validate only after the final epoch")
    add("--noautoanchor", action="store_true", help="keep the anchors of the model YAML")
    add("--noplots", action="store_true", help="write no plots")
    add("--evolve", type=Whole(1), nargs="?", const=300, help="search for hyper-parameters over this many generations")
    add("--cache", type=str, nargs="?", const="ram", default="", choices=["", "ram", "disk"], help="cache images")
    add("--image-weights", action="store_true", help="take images of classes with a low mAP more often")
    add("--device", default="", help="cuda device such as 0 or 0,1, or cpu; '' takes the first GPU there is")
    add("--multi-scale", action="store_true", help="randomly resize batches to 50-150 %% of --imgsz")
    add("--single-cls", action="store_true", help="treat all classes as one")
    add("--optimizer", choices=["SGD", "Adam", "AdamW", "RMSProp"], default="SGD", help="optimiser to train with")
    add("--sync-bn", action="store_true", help="compute BatchNorm statistics over all processes (DDP)")
    add("--workers", type=processes, default=8, help="most data loader processes; 0 loads in the main process")
    add("--project", type=text, default=project, help="folder of the run folders")
    add("--name", type=text, default="exp", help="name of the run folder")
    add("--exist-ok", action="store_true", help="write into the run folder if it exists already")


def _add_learning(parser: CommandParser) -> None:
    add = parser.add_argument
    add("--deterministic", action="store_true", help="get the same weights each time, also on a GPU; slower")
    add("--quad", action="store_true", help="join four images of a batch into one of twice the side")
    add("--cos-lr", action="store_true", help="cosine instead of linear learning rate schedule")
    add("--label-smoothing", type=Fraction(below=True), default=0.0, help="label smoothing epsilon")
    add("--patience", type=Whole(0), default=100, help="epochs without improvement before stopping; 0 never stops")
    add(
        "--freeze",
        nargs="+",
        type=row_or_backbone,
        default=[0],
        help="rows: 10 is the first ten; 0 1 2; or backbone",
    )
    add("--save-period", type=Whole(-1), default=-1, help="keep a checkpoint every N epochs; -1 for none")
    add("--seed", type=Whole(0, 2**62), default=0, help="seed of all random generators")
    add("--local_rank", "--local-rank", type=Whole(-1), default=-1, help="set by old launchers; torchrun needs no flag")
    add("--amp", action=argparse.BooleanOptionalAction, default=True, help="mixed precision on CUDA")
    add("--amp-dtype", choices=["fp16", "bf16"], default="fp16", help="number format for mixed precision")
    again = "recompute hidden tensors of MobileNetV2 blocks in the backward pass: less memory, more time"
    add("--recompute", action=argparse.BooleanOptionalAction, default=False, help=again)
    add("--trust", action="store_true", help="read checkpoints with classes outside the allow-list (none is run)")


def parse_training(parser: CommandParser, argv: list[str] | None) -> argparse.Namespace:
    """The options of `argv` (the command line's if None); `given` holds the names of those that were set there."""
    options = parser.parse_args(argv)
    options.given = parser.given(argv)
    return options


def training_keywords(parser: CommandParser, values: Mapping[str, Any]) -> argparse.Namespace:
    """The same from the keywords of ``run()``."""
    options = parser.keywords(values)
    options.given = {name for name, value in values.items() if value is not None}
    return options


def row_or_backbone(word: str) -> int | str:
    """A word behind ``--freeze``: the number of a row, or ``backbone``."""
    if word == "backbone":
        return word
    if not word.lstrip("-").isdecimal():
        raise argparse.ArgumentTypeError(f"'{word}' is neither a number nor 'backbone'{nearest(word, ['backbone'])}")
    return Whole(0)(word)
