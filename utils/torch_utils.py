"""Façade: names that scripts written for YOLOv5 import from ``utils.torch_utils``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from models.initialization import initialize_weights
from utils.devices import select_device, smart_inference_mode, time_sync
from utils.distributed import de_parallel, main_process_first
from utils.model_info import model_info
from utils.ops.fusion import fuse_conv_and_bn
from utils.training.ema import ModelEMA
from utils.training.optimizer import smart_optimizer
from utils.training.schedule import EarlyStopping

__all__ = [
    "EarlyStopping",
    "ModelEMA",
    "de_parallel",
    "fuse_conv_and_bn",
    "initialize_weights",
    "intersect_dicts",
    "main_process_first",
    "model_info",
    "select_device",
    "smart_inference_mode",
    "smart_optimizer",
    "time_sync",
]


def intersect_dicts(
    source: Mapping[str, Tensor], target: Mapping[str, Tensor], exclude: Iterable[str] = ()
) -> dict[str, Tensor]:
    """The entries of `source` that `target` has with the same shape, without those whose name contains an `exclude`."""
    exclude = tuple(exclude)
    return {
        name: value
        for name, value in source.items()
        if name in target and value.shape == target[name].shape and not any(part in name for part in exclude)
    }
