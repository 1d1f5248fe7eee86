"""The options of `detect.py` and `segment/predict.py`, as a typed and frozen object."""

from __future__ import annotations

from dataclasses import dataclass

from utils.commands.options import CommandOptions


@dataclass(frozen=True)
class DetectOptions(CommandOptions):
    """The options of `detect.py` and `segment/predict.py`."""

    weights: list[str]  # none: the newest training's
    source: str | list[str] | tuple[str, ...]
    data: str | None
    imgsz: list[int]
    conf_thres: float
    iou_thres: float
    max_det: int
    classes: list[int] | None
    agnostic_nms: bool
    vid_stride: int
    device: str
    batch_size: int
    augment: bool
    half: bool
    dnn: bool
    trust: bool
    update: bool
    project: str
    name: str
    exist_ok: bool
    nosave: bool
    save_txt: bool
    save_conf: bool
    save_csv: bool
    save_crop: bool
    view_img: bool
    visualize: bool
    line_thickness: int
    hide_labels: bool
    hide_conf: bool
    font: str | None
    save_mask: bool = False  # segmentation only
