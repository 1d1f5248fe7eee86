"""What an exported file says about itself: all that its reader needs to feed it and to understand its answers."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any

from utils.errors import UserError

PROJECT = "yolov5-mobilenetv2"
VERSION = "0.1.0"  # of the project, as in pyproject.toml
KEY = "yolov5"  # the metadata key, in files that can hold one, whose value is the card as JSON
LAYOUTS = ("decoded", "separate", "raw", "nms")  # docs/export.md describes their outputs


@dataclass(frozen=True)
class ModelCard:
    """The metadata of an exported network.

    task: "detect" or "segment". names: class id → name. strides: (nl) pixels a cell. anchors: (nl, na, 2) width, height
    in pixels of the input. imgsz: [height, width] of the input, the usual ones if `dynamic`; batch likewise. half:
    half-precision weights. int8: quantised weights. layout: one of `LAYOUTS`. activation: all there are, the most
    frequent first, such as "ReLU6+SiLU". nm: prototypes of a segmenter. input: order and range of the channels.
    max_det, conf_thres, iou_thres and agnostic are set for layout "nms" only.
    """

    task: str
    names: dict[int, str]
    strides: list[int]
    anchors: list[list[list[float]]]
    imgsz: list[int]
    batch: int
    dynamic: bool
    half: bool
    int8: bool
    layout: str
    activation: str
    nm: int = 0
    input: str = "RGB 0..1"
    max_det: int | None = None
    conf_thres: float | None = None
    iou_thres: float | None = None
    agnostic: bool | None = None
    project: str = PROJECT
    version: str = VERSION

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the network's outputs, in their order."""
        masked = self.nm > 0
        if self.layout == "decoded":
            return ("output0", "output1")[: 1 + masked]
        if self.layout == "separate":
            return ("boxes", "scores", *(("coefficients", "prototypes") if masked else ()))
        own = ("detections", "count") if self.layout == "nms" else [f"raw{i}" for i in range(len(self.strides))]
        return (*own, *(("prototypes",) if masked else ()))

    def to_json(self) -> str:
        """The card as one line of JSON, without what is None."""
        values = {key: value for key, value in asdict(self).items() if value is not None}
        return json.dumps(values, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str | bytes, source: object = "model card") -> ModelCard:
        """The card that `to_json` wrote. Raises `UserError`, starting with `source`, for anything else."""
        try:
            values = json.loads(text)
        except ValueError as error:
            raise UserError(f"{source}: its metadata are not JSON ({error}); export the checkpoint again") from error
        if not isinstance(values, dict) or values.get("project") != PROJECT:
            raise UserError(f"{source}: not exported by this project; make it with python export.py from a checkpoint")
        try:
            card = cls(**{**values, "names": {int(i): str(name) for i, name in values["names"].items()}})
            card._check()
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise UserError(
                f"{source}: its metadata (version {values.get('version', 'unknown')}) do not fit version {VERSION}: "
                f"{error}; export the checkpoint again"
            ) from error
        return card

    def _check(self) -> None:
        """Raise `ValueError` for a value of the wrong type or size."""
        for field in fields(self):
            value, kinds = getattr(self, field.name), _KINDS[str(field.type).split("[")[0]]
            if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
                raise ValueError(f"{field.name} is {value!r}")
        if self.layout not in LAYOUTS:
            raise ValueError(f"layout is {self.layout!r}")
        if sorted(self.names) != list(range(len(self.names))) or not self.names:
            raise ValueError(f"names has the ids {sorted(self.names)}")
        if len(self.anchors) != len(self.strides) or not self.strides or not all(map(_is_pairs, self.anchors)):
            raise ValueError(f"strides is {self.strides} and anchors {self.anchors}")
        if len(self.imgsz) != 2 or not all(isinstance(side, int) and side > 0 for side in self.imgsz) or self.batch < 1:
            raise ValueError(f"imgsz is {self.imgsz} and batch {self.batch}")


_NONE = type(None)
_KINDS: dict[str, tuple[type, ...]] = {
    "str": (str,), "int": (int,), "bool": (bool,), "dict": (dict,), "list": (list,),
    "int | None": (int, _NONE), "float | None": (float, int, _NONE), "bool | None": (bool, _NONE),
}  # fmt: skip


def _is_pairs(anchors: Any) -> bool:
    """True for a list of [width, height]."""
    return bool(anchors) and all(len(a) == 2 and all(isinstance(v, (int, float)) for v in a) for a in anchors)
