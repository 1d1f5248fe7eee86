"""Bounds on the size of a network, because a few characters of a YAML or a checkpoint can ask for any size.

The bounds are far above every useful network: yolov5x6, the largest published one, has 141 million weights in about a
hundred blocks.
"""

from __future__ import annotations

import math
import reprlib
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from utils.commands.values import memory_text
from utils.errors import UserError

MOST_BLOCKS = 2000  # rows, with their repeats
MOST_WEIGHTS = 1 << 28  # 1 GiB in float32
MOST_VALUES_OF_MAP = 1 << 25  # in a row's output for an image of 128 × 128; at 640 × 640 it is 25 times as large
MOST_ANCHORS = 100  # per level
MOST_UPSAMPLING = 4096  # as a size in pixels or as a scale

_FACTORIES = {torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn}


class Budget(TorchFunctionMode):
    """Within this context, the weights of new modules are counted before their memory is allocated.

    Above `MOST_WEIGHTS` a `UserError` names the memory that they would take.
    """

    def __init__(self) -> None:
        super().__init__()
        self._blocks = self._weights = 0

    def spend_blocks(self, count: int) -> None:
        """Count `count` more blocks that are about to be built. Raises `UserError` above `MOST_BLOCKS`."""
        self._blocks += count
        if self._blocks > MOST_BLOCKS:
            raise UserError(f"{self._blocks} blocks up to here, but networks of up to {MOST_BLOCKS} are built")

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _FACTORIES and args:
            self._spend_weights(args[0] if isinstance(args[0], (tuple, list)) else args)
        return func(*args, **(kwargs or {}))

    def _spend_weights(self, size: Any) -> None:
        self._weights += math.prod(n for n in size if isinstance(n, int))
        if self._weights > MOST_WEIGHTS:
            raise UserError(
                f"the weights up to here take {memory_text(4 * self._weights)}, but networks of up to "
                f"{memory_text(4 * MOST_WEIGHTS)} are built; give fewer channels, a smaller kernel or fewer classes"
            )


def check_resizing(layer: nn.Module) -> None:
    """Raise `UserError` for an `nn.Upsample` in `layer` to a senseless size, which could occupy PyTorch for hours.

    PyTorch makes tables as long as the output is wide before it looks at the images, even if there are none.
    """
    for module in layer.modules():
        if isinstance(module, nn.Upsample):
            given = module.size if module.size is not None else module.scale_factor
            numbers = given if isinstance(given, (tuple, list)) else [given]
            if not all(isinstance(n, (int, float)) and 0 < n <= MOST_UPSAMPLING for n in numbers):
                raise UserError(f"a size or a scale is a number up to {MOST_UPSAMPLING}, not {reprlib.repr(given)}")


def check_map(shape: torch.Size, size: int) -> None:
    """Raise `UserError` where `shape`, a row's output for one image of `size` × `size`, is too large or empty."""
    if math.prod(shape) > MOST_VALUES_OF_MAP:
        raise UserError(
            f"its output {tuple(shape)} for one image of {size} × {size} takes {memory_text(4 * math.prod(shape))}, "
            f"at most {memory_text(4 * MOST_VALUES_OF_MAP)} is allowed"
        )
    if math.prod(shape) == 0:
        raise UserError(f"its output {tuple(shape)} for an image of {size} × {size} is empty")


def check_anchor_count(count: int) -> None:
    """Raise `UserError` for a number of anchors per level below 1 or above `MOST_ANCHORS`."""
    if not 1 <= count <= MOST_ANCHORS:
        raise UserError(f"a level has 1 to {MOST_ANCHORS} anchors, not {count}")
