"""Hyper-parameters of training: their names, defaults and ranges, and the YAML files that hold them."""

from __future__ import annotations

import contextlib
import reprlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from utils.errors import UserError, nearest
from utils.files import find_file
from utils.yamls import line_of, load_yaml

Hyp = dict[str, Any]  # numbers, but for the names of `Choice` and the booleans of `Switch`


_MOST = 1e6  # of what has no bound of its own: far above any use, and safe to compute with
_LARGEST = sys.float_info.max

DEFAULT_HYP = "hyp.scratch-low.yaml"


# Each kind has a `default` and reads a value; one that makes no sense is a ValueError whose text follows the key.
class Range(NamedTuple):
    """A number in a closed interval; `positive` excludes zero."""

    default: float | None
    low: float = 0.0
    high: float = _MOST
    positive: bool = False

    def read(self, value: Any) -> float:
        if isinstance(value, str):  # YAML 1.1 reads 1e-3 (no dot) as text
            with contextlib.suppress(ValueError):
                value = float(value)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"must be a number, not {reprlib.repr(value)}")
        if not -_LARGEST <= value <= _LARGEST:  # nor is NaN a number; a whole one of thousands of digits is none here
            raise ValueError(f"must be a number, not {value if isinstance(value, float) else 'one of so many digits'}")
        if not self.low <= value <= self.high or (self.positive and value == 0):
            raise ValueError(f"is {value:g}, but must be {self}")
        return value

    def __str__(self) -> str:
        if self.high == _MOST:
            return ("above 0" if self.positive else f"{self.low:g} or more") + f", at most {_MOST:g}"
        return f"in {self.low:g}..{self.high:g}" + (" and not 0" if self.positive else "")


class Choice(NamedTuple):
    """One of `names`, in capitals or not."""

    default: str
    names: tuple[str, ...]

    def read(self, value: Any) -> str:
        name = str(value).lower()
        if name not in self.names:
            raise ValueError(
                f"is '{str(value)[:80]}', but must be one of {', '.join(self.names)}{nearest(name, self.names)}"
            )
        return name


class Switch(NamedTuple):
    """True or false."""

    default: bool

    def read(self, value: Any) -> bool:
        if not isinstance(value, bool):
            raise ValueError(f"must be true or false, not {reprlib.repr(value)}")
        return value


# The defaults are those of hyp.scratch-low.yaml. None: optional, absent unless given.
KEYS: dict[str, Range | Choice | Switch] = {
    "lr0": Range(0.01, positive=True),
    "lrf": Range(0.01),
    "momentum": Range(0.937, high=1.0),
    "weight_decay": Range(0.0005),
    "nbs": Range(64, low=1.0),
    "warmup_epochs": Range(3.0),
    "warmup_momentum": Range(0.8, high=1.0),
    "warmup_bias_lr": Range(0.1),
    "box": Range(0.05),
    "cls": Range(0.5),
    "cls_pw": Range(1.0, positive=True),
    "obj": Range(1.0),
    "obj_pw": Range(1.0, positive=True),
    "iou_t": Range(0.2, high=1.0),
    "anchor_t": Range(4.0, low=1.0),
    "anchors": Range(None, low=1.0, high=100.0),
    "iou_loss": Choice("ciou", ("ciou", "giou", "diou", "eiou", "siou", "wiou")),
    "focal_iou": Range(0.0),
    "fl_gamma": Range(0.0),
    "qfl": Switch(False),
    "label_smoothing": Range(0.0, high=1.0),
    "hsv_h": Range(0.015, high=1.0),
    "hsv_s": Range(0.7, high=1.0),
    "hsv_v": Range(0.4, high=1.0),
    "degrees": Range(0.0, high=180.0),
    "translate": Range(0.1, high=1.0),
    "scale": Range(0.5, high=0.99),
    "shear": Range(0.0, high=40.0),
    "perspective": Range(0.0, high=0.01),
    "flipud": Range(0.0, high=1.0),
    "fliplr": Range(0.5, high=1.0),
    "mosaic": Range(1.0, high=1.0),
    "mixup": Range(0.0, high=1.0),
    "copy_paste": Range(0.0, high=1.0),
}


def load_hyp(source: str | Path | Mapping[str, Any] | None = None) -> Hyp:
    """Every hyper-parameter, those of `source` over the defaults.

    `source` is a mapping, a path, or a bare file name that is looked up below ``data/hyps`` (None: the defaults).
    An unknown key, a value of another kind, and a value outside its range are `UserError`s that name the line.
    """
    if source is None:
        given: Mapping[str, Any] = {}
        path = None
    elif isinstance(source, Mapping):
        given, path = source, None
    else:
        path = find_file(source, ["data/hyps", "data"], kind="hyper-parameter file")
        given = load_yaml(path)
    hyp: Hyp = {name: kind.default for name, kind in KEYS.items() if kind.default is not None}
    for key, value in given.items():
        hyp[key] = _checked(key, value, f"{line_of(path, key)}" if path else f"hyper-parameter '{key}'")
    return hyp


def _checked(key: str, value: Any, where: str) -> Any:
    if key not in KEYS:
        raise UserError(f"{where}: unknown hyper-parameter '{key}'{nearest(key, KEYS)}")
    try:
        return KEYS[key].read(value)
    except ValueError as error:
        raise UserError(f"{where}: {key} {error}") from None
