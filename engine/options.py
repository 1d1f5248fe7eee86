"""What the options of all commands share: a typed, frozen object, made once from what the command's parser gives.

What has to change later (the batch size that was found, the settings of a training that is resumed) goes into a copy,
made with `dataclasses.replace`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import PurePath
from typing import Any, TypeVar

from utils.cli import image_size
from utils.logging import LOGGER

_Options = TypeVar("_Options", bound="CommandOptions")


@dataclass(frozen=True)
class CommandOptions:
    """One field for each flag, in the order of the flags."""

    @classmethod
    def from_namespace(cls: type[_Options], namespace: argparse.Namespace) -> _Options:
        """The options that a parser gave; only fields with a default may be missing from `namespace`."""
        wanted = [f.name for f in fields(cls) if f.default is MISSING or hasattr(namespace, f.name)]
        return cls(**{name: getattr(namespace, name) for name in wanted})

    def to_dict(self) -> dict[str, Any]:
        """Names and values in the order of the flags, as opt.yaml and checkpoints hold them."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


def list_of_weights(weights: Any) -> list[str]:
    """The value of --weights as a list, where a script may have set a single path, or None."""
    return [str(weights)] if isinstance(weights, (str, PurePath)) else [str(path) for path in weights or ()]


def network_size(imgsz: int | Sequence[int], stride: int, minimum: int = 0) -> tuple[int, int]:
    """The (height, width) that --imgsz means for a network of `stride`: multiples of it, none below `minimum`.

    Logs a warning if that is not the size given.
    """
    from utils.ops.letterbox import make_divisible

    given = image_size(imgsz)
    height, width = (max(make_divisible(side, stride), minimum) for side in given)
    if (height, width) != given:
        LOGGER.warning(f"--imgsz {given[0]}x{given[1]} is no multiple of the stride {stride}; using {height}x{width}")
    return height, width
