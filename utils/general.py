"""Façade: the names that YOLOv5's scripts import from ``utils.general``, imported from where each is defined."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import inspect
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2

from models.checkpoints.checkpoint import strip_optimizer
from utils.data.spec import check_dataset
from utils.devices import Profile
from utils.errors import UserError
from utils.files import ROOT, find_file, increment_path
from utils.logging import LOGGER, colorstr
from utils.ops.boxes import clip_boxes, scale_boxes, xyn2xy, xywh2xyxy, xywhn2xyxy, xyxy2xywh, xyxy2xywhn
from utils.ops.letterbox import check_img_size, make_divisible
from utils.ops.nms import non_max_suppression
from utils.ops.segments import resample_segments, scale_segments, segments2boxes
from utils.plots.window import check_imshow
from utils.training.schedule import one_cycle
from utils.training.seeds import init_seeds
from utils.yamls import load_yaml as yaml_load
from utils.yamls import save_yaml as yaml_save

__all__ = [
    "LOGGER",
    "ROOT",
    "Profile",
    "check_dataset",
    "check_file",
    "check_img_size",
    "check_imshow",
    "check_requirements",
    "check_yaml",
    "clip_boxes",
    "colorstr",
    "cv2",
    "increment_path",
    "init_seeds",
    "make_divisible",
    "non_max_suppression",
    "one_cycle",
    "print_args",
    "resample_segments",
    "scale_boxes",
    "scale_segments",
    "segments2boxes",
    "strip_optimizer",
    "xyn2xy",
    "xywh2xyxy",
    "xywhn2xyxy",
    "xyxy2xywh",
    "xyxy2xywhn",
    "yaml_load",
    "yaml_save",
]


def check_file(file: str | Path, suffix: str = "") -> str:
    """The path of `file`, looked up as commands do; `UserError` if it is not there or ends otherwise than `suffix`."""
    if suffix and not str(file).endswith(suffix):
        raise UserError(f"'{file}' should end in {suffix}")
    return str(find_file(file, ("data", "models", "utils")))


def check_yaml(file: str | Path, suffix: str = ".yaml") -> str:
    """`check_file` for YAML files."""
    return check_file(file, suffix)


def check_requirements(requirements: str | Path | Iterable[str], exclude: Iterable[str] = (), **_: Any) -> bool:
    """Whether all packages are installed. A warning names the missing ones; nothing is ever installed."""
    if isinstance(requirements, Path) or str(requirements).endswith(".txt"):
        requirements = Path(str(requirements)).read_text(encoding="utf-8").splitlines()
    entries = [requirements] if isinstance(requirements, str) else requirements
    names = [m[0] for entry in entries if (m := re.match(r"[A-Za-z0-9][\w.\-]*", entry.strip()))]
    missing = []
    for name in set(names) - set(exclude):
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            if importlib.util.find_spec(name.replace("-", "_")) is None:
                missing.append(name)
    if missing:
        LOGGER.warning(f"not installed: {', '.join(sorted(missing))}; pip install {' '.join(sorted(missing))}")
    return not missing


def print_args(args: dict[str, Any] | None = None, show_file: bool = True, show_func: bool = False) -> None:
    """Log `args`, or the arguments of the calling function."""
    frame = inspect.currentframe()
    caller = frame.f_back if frame else None
    name = Path(caller.f_code.co_filename).stem if caller else ""
    if args is None and caller:
        names, _, _, values = inspect.getargvalues(caller)
        args = {n: values[n] for n in names}
    head = " ".join(n for n in (name if show_file else "", caller.f_code.co_name if show_func and caller else "") if n)
    LOGGER.info(colorstr(f"{head}: ") + ", ".join(f"{k}={v}" for k, v in (args or {}).items()))
