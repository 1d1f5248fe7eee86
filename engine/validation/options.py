"""The options of `val.py` and `segment/val.py`, as a typed and frozen object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from utils.commands.options import CommandOptions


@dataclass(frozen=True)
class ValOptions(CommandOptions):
    """The options of `val.py` and `segment/val.py`."""

    data: str | dict[str, Any]
    weights: list[str]  # none: the newest training's
    task: str
    batch_size: int
    imgsz: list[int]
    conf_thres: float
    iou_thres: float
    max_det: int
    single_cls: bool
    device: str
    workers: int
    augment: bool
    half: bool
    dnn: bool
    trust: bool
    verbose: bool
    save_txt: bool
    save_hybrid: bool
    save_conf: bool
    save_json: bool
    coco_annotations: str | None
    no_plots: bool
    project: str
    name: str
    exist_ok: bool
