"""The metadata of an exported file: all that its reader needs to feed it images and to interpret its outputs."""

from __future__ import annotations

import json
import math
import reprlib
from dataclasses import asdict, dataclass, fields
from typing import Any

from models.budget import MOST_ANCHORS
from utils.errors import UserError
from utils.ops.class_names import check_class_names

PROJECT = "yolov5-mobilenetv2"
VERSION = "0.1.0"  # of the project, as in pyproject.toml
KEY = "yolov5"  # in files that hold metadata by key; the value is the JSON of `ExportMetadata`
TASKS = ("detect", "segment")
INPUT = "RGB 0..1"  # order and range of the channels
LAYOUTS = ("decoded", "separate", "raw", "nms")  # docs/export.md describes the outputs of each
MOST_BYTES = 16_000_000  # of the JSON, which has 3,000,000 with 100,000 classes
_LARGEST = {"stride": 4096, "side": 1 << 16, "batch": 1 << 16, "prototypes": 4096, "detections": 1 << 20}
_MOST_INPUT = 1 << 29  # values in a batch of images: 2 GiB in float32


@dataclass(frozen=True)
class ExportMetadata:
    """The metadata of an exported network.

    Attributes:
        task: "detect" or "segment".
        names: class id → name.
        strides: (nl) pixels per cell of each level.
        anchors: (nl, na, 2) width and height in pixels of the input.
        imgsz, batch: [height, width] and batch size of the input; a `dynamic` file takes others too.
        half, int8: whether the weights are in half precision, or quantised.
        layout: one of `LAYOUTS`.
        activation: the activations in the network, the most frequent first, such as "ReLU6+SiLU".
        nm: number of prototypes of a segmenter.
        input: order and range of the channels.
        max_det, conf_thres, iou_thres, agnostic: set for layout "nms" only.
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
    input: str = INPUT
    max_det: int | None = None
    conf_thres: float | None = None
    iou_thres: float | None = None
    agnostic: bool | None = None
    project: str = PROJECT
    version: str = VERSION

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the network's outputs, in their order."""
        masked = self.nm > 0
        if self.layout == "decoded":
            return ("output0", "output1")[: 1 + masked]
        if self.layout == "separate":
            return ("boxes", "scores", *(("coefficients", "prototypes") if masked else ()))
        own = ("detections", "count") if self.layout == "nms" else [f"raw{i}" for i in range(len(self.strides))]
        return (*own, *(("prototypes",) if masked else ()))

    def shapes(self, batch: int, height: int, width: int) -> dict[str, tuple[int | None, ...]]:
        """The shape of each of `outputs` for images (batch, 3, height, width); None stands for any size."""
        nc, na = len(self.names), len(self.anchors[0])
        sizes = [(-(-height // s), -(-width // s)) for s in self.strides]
        n = sum(na * ny * nx for ny, nx in sizes)
        ends: dict[str, tuple[int | None, ...]] = {
            "output0": (n, 5 + nc + self.nm),
            "boxes": (n, 4),
            "scores": (n, nc),
            "coefficients": (n, self.nm),
            "detections": (self.max_det, 6 + self.nm),
            "count": (),
            **dict.fromkeys(("output1", "prototypes"), (self.nm, None, None)),
            **{f"raw{i}": (na * (5 + nc + self.nm), ny, nx) for i, (ny, nx) in enumerate(sizes)},
        }
        return {name: (batch, *ends[name]) for name in self.outputs}

    def to_json(self) -> str:
        """The metadata as one line of JSON, without the fields that are None."""
        values = {key: value for key, value in asdict(self).items() if value is not None}
        return json.dumps(values, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str | bytes, source: object = "export metadata") -> ExportMetadata:
        """The metadata of a JSON `text`. Raises `UserError`, starting with `source`, where no export wrote it."""
        if len(text) > MOST_BYTES:
            raise UserError(f"{source}: its metadata are larger than any export writes; export the checkpoint again")
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:  # not JSON, too long a number, or nested too deeply
            reason = str(error)[:200]
            raise UserError(f"{source}: its metadata are not JSON ({reason}); export the checkpoint again") from error
        if not isinstance(values, dict) or values.get("project") != PROJECT:
            raise UserError(f"{source}: not exported by this project; make it with python export.py from a checkpoint")
        try:
            metadata = cls(**{**values, "names": {int(i): str(name) for i, name in values["names"].items()}})
            metadata._check()
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise UserError(
                f"{source}: its metadata (version {str(values.get('version', 'unknown'))[:20]}) do not fit version "
                f"{VERSION}: {_shown(error)}; export the checkpoint again"
            ) from error
        return metadata

    def _check(self) -> None:
        """Raise `ValueError` for a value of the wrong type, and for a value that no export writes."""
        for field in fields(self):
            value, kinds = getattr(self, field.name), _KINDS[str(field.type).split("[")[0]]
            if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
                raise ValueError(f"{field.name} is {_shown(value)}")
        for name, allowed in (("task", TASKS), ("layout", LAYOUTS), ("input", (INPUT,))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {_shown(getattr(self, name))}, not {' or '.join(allowed)}")
        if sorted(self.names) != list(range(len(self.names))) or not self.names:
            raise ValueError(f"names has the ids {_shown(sorted(self.names))}")
        check_class_names(self.names)
        self._check_head()
        if len(self.imgsz) != 2 or not all(_is_count(side, "side") for side in self.imgsz):
            raise ValueError(f"imgsz is {_shown(self.imgsz)}")
        if not _is_count(self.batch, "batch") or self.batch * 3 * math.prod(self.imgsz) > _MOST_INPUT:
            raise ValueError(f"batch is {_shown(self.batch)} of images of imgsz {self.imgsz}")
        if self.layout == "nms":
            self._check_suppression()

    def _check_head(self) -> None:
        """Check strides, anchors and the number of prototypes."""
        if not 1 <= len(self.strides) <= 16 or not all(_is_count(stride, "stride") for stride in self.strides):
            raise ValueError(f"strides is {_shown(self.strides)}")
        if len(self.anchors) != len(self.strides) or not all(map(_is_pairs, self.anchors)):
            raise ValueError(f"strides is {_shown(self.strides)} and anchors {_shown(self.anchors)}")
        if len({len(level) for level in self.anchors}) != 1:
            raise ValueError(f"anchors has levels of different lengths: {_shown(self.anchors)}")
        if (self.nm and not _is_count(self.nm, "prototypes")) or (self.nm > 0) != (self.task == "segment"):
            raise ValueError(f"task is {self.task} and nm {_shown(self.nm)}")

    def _check_suppression(self) -> None:
        """Check the settings of non-maximum suppression inside the file."""
        if not _is_count(self.max_det, "detections"):
            raise ValueError(f"max_det is {_shown(self.max_det)}")
        for name in ("conf_thres", "iou_thres"):
            value = getattr(self, name)
            if value is None or not 0 <= value <= 1:
                raise ValueError(f"{name} is {_shown(value)}")


_NONE = type(None)
_KINDS: dict[str, tuple[type, ...]] = {
    "str": (str,), "int": (int,), "bool": (bool,), "dict": (dict,), "list": (list,),
    "int | None": (int, _NONE), "float | None": (float, int, _NONE), "bool | None": (bool, _NONE),
}  # fmt: skip


def _is_count(value: Any, what: str) -> bool:
    """True for a whole number from 1 to the largest that `what` may have."""
    return type(value) is int and 1 <= value <= _LARGEST[what]


def _shown(value: Any) -> str:
    """`value` as one printable line of at most 80 characters, or the text of an exception in at most 300."""
    text, most = (str(value), 300) if isinstance(value, Exception) else (reprlib.repr(value), 80)
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[: most + 1])
    return text if len(text) <= most else f"{text[:most]} …"


def _is_pairs(anchors: Any) -> bool:
    """True for a list of pairs of numbers, [width, height]."""
    return isinstance(anchors, list) and 0 < len(anchors) <= MOST_ANCHORS and all(map(_is_pair, anchors))


def _is_pair(anchor: Any) -> bool:
    return (
        isinstance(anchor, list)
        and len(anchor) == 2
        and all(type(v) in (int, float) and 0 <= v <= _LARGEST["side"] for v in anchor)
    )
