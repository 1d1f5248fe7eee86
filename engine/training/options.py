"""The options of `train.py` and `segment/train.py`, as a typed and frozen object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from utils.commands.options import CommandOptions


@dataclass(frozen=True)
class TrainOptions(CommandOptions):
    """The options of `train.py`. Their names are those in opt.yaml and in the checkpoints' ``opt``."""

    weights: str
    backbone_weights: str
    backbone_norm: str
    cfg: str | dict[str, Any]
    data: str | dict[str, Any]
    hyp: str | dict[str, Any]
    epochs: int
    batch_size: int  # -1 until it is found
    imgsz: list[int]
    rect: bool
    resume: bool | str
    nosave: bool
    noval: bool
    noautoanchor: bool
    noplots: bool
    evolve: int | None  # generations
    cache: str
    image_weights: bool
    device: str
    multi_scale: bool
    single_cls: bool
    optimizer: str
    sync_bn: bool
    workers: int
    project: str
    name: str
    exist_ok: bool
    deterministic: bool
    quad: bool
    cos_lr: bool
    label_smoothing: float
    patience: int
    freeze: list[int | str]
    save_period: int
    seed: int
    local_rank: int
    amp: bool
    amp_dtype: str
    recompute: bool
    trust: bool


@dataclass(frozen=True)
class SegmentTrainOptions(TrainOptions):
    """The options of `segment/train.py`."""

    mask_ratio: int
    no_overlap: bool
