"""Façade: names that scripts written for YOLOv5 import from ``utils.torch_utils``."""

from __future__ import annotations

from utils.devices import select_device, smart_inference_mode, time_sync
from utils.distributed import main_process_first
from utils.model_info import model_info
from utils.networks import de_parallel, initialize_weights, intersect_dicts
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
