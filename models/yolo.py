"""YOLOv5's heads and models. Run as a script, this file prints the layer table and the totals of a network.

Usage:
    python models/yolo.py --cfg yolov5_MobileNetv2.yaml
    python models/yolo.py --cfg yolov5s-seg.yaml --line-profile --device 0
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

if __name__ == "__main__":  # Python has put models/ on the path, and not the project
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch
from torch import Tensor, nn

from models.anchor_grid import AnchorGrid, is_traced, make_anchor_grid
from models.budget import check_anchor_count
from models.configs import find_cfg, load_cfg, override
from models.ensemble import join_masked
from models.initialization import initialize_weights
from models.inspection.command import inspect_network
from models.inspection.profiling import RowTimer, Watcher
from models.inspection.summary import layer_table, network_name, summary_line
from models.parser import measure_strides, parse_model, read_rows, row_of
from models.registry import BLOCKS, find_prototypes, head, register, segment_head
from models.tta import VIEWS, augment_images, restore_boxes, restore_prototypes
from utils.cli import run_command
from utils.errors import UserError
from utils.logging import LOGGER
from utils.plots.features import FeaturePlotter

Anchors = int | Sequence[Sequence[float]]  # their number per level, or w, h, w, h, … in pixels for each level


class Detect(nn.Module):
    """The detection head: one 1×1 convolution per level, and the decoding of their outputs.

    Where `anchors` is only a number, placeholders stand in until auto-anchor replaces them. The network calls
    `set_stride`. A subclass may put `extra` channels behind the classes of each anchor; they are passed through.
    """

    __module__ = "models.yolo"  # in layer tables and pickles, also where this file runs as a script
    task = "detect"
    anchors: Tensor  # (nl, na, 2) w, h in cells of their level
    stride: Tensor  # (nl) pixels per cell

    def __init__(
        self, nc: int = 80, anchors: Anchors = (), ch: Sequence[int] = (), inplace: bool = True, *, extra: int = 0
    ) -> None:
        super().__init__()
        if not isinstance(nc, int) or nc < 1:
            raise UserError(f"the number of classes must be a positive whole number, not {nc!r}")
        check_anchor_count(anchors if isinstance(anchors, int) else max(map(len, anchors), default=0) // 2)
        if isinstance(anchors, int):
            anchors = [list(range(1, 2 * anchors + 1))] * len(ch)
        if len(anchors) != len(ch):
            raise UserError(f"anchors for {len(anchors)} levels, but the head reads {len(ch)}")
        self.nc = nc
        self.no = nc + 5 + extra  # outputs per anchor
        self.nl = len(ch)
        self.na = len(anchors[0]) // 2
        self.inplace = inplace
        self.stride = torch.zeros(self.nl)
        self.register_buffer("anchors", torch.tensor(anchors, dtype=torch.float32).view(self.nl, self.na, 2))
        self.m = nn.ModuleList(nn.Conv2d(c, self.no * self.na, 1) for c in ch)
        self._kept_grid: tuple[Any, AnchorGrid] | None = None

    def forward(self, x: list[Tensor]) -> Any:
        """Turn the maps (B, c, ny, nx) of all levels into ``raw``, or in evaluation mode into ``(decoded, raw)``.

        raw: for each level a view (B, na, ny, nx, no) of its convolution's output, without a copy.
        decoded: (B, N, no), the predictions of all levels in one list: centre x, y, width and height in pixels of the
        network's input, objectness, class probabilities, and the extra channels of a subclass as they are.
        """
        raw = []
        for level, conv in zip(x, self.m, strict=True):
            y = conv(level)
            b, _, ny, nx = y.shape
            raw.append(y.view(b, self.na, self.no, ny, nx).permute(0, 1, 3, 4, 2))
        return raw if self.training else (self.decode(raw), raw)

    def decode(self, raw: list[Tensor]) -> Tensor:
        """Decode the raw predictions of all levels to (B, N, no), as `forward` describes them.

        Half precision becomes float32, because pixels need it. The result is a transposed view of memory that holds one
        channel after another, as convolutions write and non-maximum suppression reads it. It is computed in place
        unless gradients or a traced graph need the intermediate values.
        """
        flat = torch.cat([y.permute(0, 4, 1, 2, 3).flatten(2) for y in raw], 2)  # (B, no, N)
        if flat.dtype in (torch.float16, torch.bfloat16):
            flat = flat.float()
        centre, stride, anchors = self._anchor_grid(raw, like=flat)
        known = self.nc + 5
        in_place = not (flat.requires_grad or is_traced(flat))
        values = flat[:, :known].sigmoid_() if in_place else flat[:, :known].sigmoid()
        xy, wh = (values[:, :4] * 2).split(2, 1)
        boxes = torch.cat(((xy + centre) * stride, wh * wh * anchors), 1)
        if in_place:
            flat[:, :4] = boxes
        else:
            flat = torch.cat([boxes, values[:, 4:], *([flat[:, known:]] if self.no > known else [])], 1)
        return flat.transpose(1, 2)

    def _anchor_grid(self, raw: list[Tensor], like: Tensor) -> AnchorGrid:
        """The result of `make_anchor_grid`, kept while sizes, type, device and anchors stay the same."""
        sizes = [(y.shape[2], y.shape[3]) for y in raw]
        if is_traced(like):  # a tensor made now belongs to the traced graph and must not be kept
            return make_anchor_grid(sizes, self.stride, self.anchors, like)
        version = None if self.anchors.is_inference() else self.anchors._version  # anchors may be written in place
        key = sizes, like.dtype, like.device, version
        if self._kept_grid is None or self._kept_grid[0] != key:
            with torch.inference_mode(False):  # tensors made in inference mode could not be used with gradients later
                self._kept_grid = key, make_anchor_grid(sizes, self.stride, self.anchors, like)
        return self._kept_grid[1]

    def set_stride(self, stride: Tensor) -> None:
        """Set the stride (nl) of each level, put the anchors in the same order, and convert them to cells."""
        areas = self.anchors.prod(-1).mean(-1)
        if (areas[-1] - areas[0]) * (stride[-1] - stride[0]) < 0:
            self.anchors.copy_(self.anchors.flip(0))
        self.stride = stride
        self.anchors /= stride.view(-1, 1, 1)

    @torch.no_grad()
    def initialize_biases(self, class_counts: Tensor | None = None) -> None:
        """Start from likely probabilities: 8 objects per image of 640 pixels, and equally rare classes.

        With `class_counts` (nc), classes start as frequent as these counts. Focal loss (Lin et al. 2017), section 3.3.
        """
        for conv, stride in zip(self.m, self.stride, strict=True):
            bias = conv.bias.view(self.na, -1)  # type: ignore[operator, union-attr]
            bias[:, 4] += math.log(8 / (640 / float(stride)) ** 2)
            bias[:, 5 : 5 + self.nc] += (
                math.log(0.6 / (self.nc - 0.99999))
                if class_counts is None
                else (class_counts / class_counts.sum()).log()
            )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Detect:
        super()._apply(fn, recurse)
        self.stride = fn(self.stride)
        self._kept_grid = None
        return self


class Segment(Detect):
    """The segmentation head: `Detect` with `nm` mask coefficients per anchor, and `nm` mask prototypes per image.

    The block named `proto` (see `models.registry.PROTOTYPES`) makes prototypes from the finest level, with `npr` hidden
    channels. A mask is the sigmoid of their sum, weighted by the object's coefficients (Bolya et al. 2019).
    """

    __module__ = "models.yolo"
    task = "segment"

    def __init__(
        self,
        nc: int = 80,
        anchors: Anchors = (),
        nm: int = 32,
        npr: int = 256,
        ch: Sequence[int] = (),
        inplace: bool = True,
        proto: str = "Proto",
    ) -> None:
        super().__init__(nc, anchors, ch, inplace, extra=nm)
        self.nm, self.npr = nm, npr
        self.proto = find_prototypes(proto)(ch[0], npr, nm)

    def forward(self, x: list[Tensor]) -> Any:
        """``(raw, prototypes)`` in training mode, and ``(decoded, prototypes, raw)`` in evaluation mode.

        raw and decoded are as `Detect.forward` describes them; prototypes are (B, nm, 2H, 2W), where (H, W) is the size
        of the finest level. decoded and prototypes have the same type.
        """
        prototypes = self.proto(x[0])
        if self.training:
            return super().forward(x), prototypes
        decoded, raw = super().forward(x)
        return decoded, prototypes.to(decoded.dtype), raw


register("Detect", Detect, head)
register("Segment", Segment, segment_head)


class BaseModel(nn.Module):
    """A network of rows, built by `models.parser.parse_model`, that read the outputs of earlier rows."""

    model: nn.Sequential
    save: list[int]  # the rows whose output a later row reads
    title: str = "network"  # its name in the line of totals

    def forward(self, x: Tensor, profile: bool = False, visualize: str | Path | bool = False) -> Any:
        """The output of the last row for images (B, ch, H, W), 0 to 1, H and W multiples of the largest stride.

        `profile` logs the time, the operations and the parameters of each row. `visualize` names a folder for plots of
        each row's feature maps.
        """
        if not (profile or visualize):
            return self._forward_once(x)
        watchers: list[Watcher] = []
        if visualize:
            watchers.append(FeaturePlotter(Path(str(visualize))))
        if profile:
            watchers.append(timer := RowTimer())
        y = self._forward_once(x, watchers)
        if profile:
            timer.log_total()
        return y

    def _forward_once(self, x: Tensor, watchers: Sequence[Watcher] = ()) -> Any:
        value: Any = x
        y: list[Any] = []
        for m in self.model:
            if m.f != -1:
                value = y[m.f] if isinstance(m.f, int) else [value if j == -1 else y[j] for j in m.f]  # type: ignore
            inputs, value = value, m(value)
            y.append(value if m.i in self.save else None)
            for watch in watchers:
                watch(m, inputs, value)
        return value

    def fuse(self) -> BaseModel:
        """Simplify every block that has a method ``fuse()`` for inference, in place. A second call changes nothing."""
        for module in list(self.model.modules()):
            if callable(fuse := getattr(module, "fuse", None)):
                fuse()
        return self

    def info(self, verbose: bool = False, imgsz: int | tuple[int, int] = 640) -> None:
        """Log the totals, and before them the layer table if `verbose`. Operations are counted for size `imgsz`."""
        if verbose:
            LOGGER.info(layer_table(self.model))
        LOGGER.info(summary_line(self, self.title, imgsz))


class DetectionModel(BaseModel):
    """A YOLOv5 detector, built from its YAML.

    `cfg` is a path, a name (`models.configs.find_cfg`) or a dict. `nc` and `anchors` replace the values in the YAML.
    `ch` is the number of image channels where the YAML gives none. Raises `UserError` that names a row at fault.
    """

    task = "detect"

    def __init__(
        self,
        cfg: str | Path | Mapping[str, Any] = "yolov5_MobileNetv2.yaml",
        ch: int = 3,
        nc: int | None = None,
        anchors: Anchors | None = None,
    ) -> None:
        super().__init__()
        source = None if isinstance(cfg, Mapping) else find_cfg(cfg).path
        self.title = network_name(cfg)
        self.yaml = override(load_cfg(cfg), nc, anchors)
        channels = self.yaml.setdefault("ch", ch)
        self.nc: int = self.yaml["nc"]
        self.names = {i: str(i) for i in range(self.nc)}
        self.inplace: bool = self.yaml.get("inplace", True)
        self.model, self.save = parse_model(self.yaml, channels, source)
        stride = strides_of(self.model, channels)
        if self.head.task != self.task:
            raise UserError(
                f"{row_of(self.head)}: a head for the task '{self.head.task}', in a network for '{self.task}'; give "
                f"another --cfg, or use the commands for '{self.head.task}'"
            )
        self.head.set_stride(stride)
        self.head.initialize_biases()
        initialize_weights(self)

    @property
    def head(self) -> Detect:
        """The last row, which makes the predictions."""
        return cast(Detect, self.model[-1])

    @property
    def stride(self) -> Tensor:
        """The strides (nl) of the head's levels, in pixels per cell."""
        return self.head.stride

    def forward(  # type: ignore[override]
        self, x: Tensor, augment: bool = False, profile: bool = False, visualize: str | Path | bool = False
    ) -> Any:
        """Predictions for images (B, ch, H, W), 0 to 1, as `Detect.forward` describes them for each mode.

        `augment` (in evaluation mode) joins the predictions of three views and returns ``(decoded, None)``. `profile`
        and `visualize` are as for `BaseModel.forward`.
        """
        return self._forward_augment(x) if augment else super().forward(x, profile, visualize)

    def _forward_augment(self, x: Tensor) -> Any:
        return torch.cat(restore_boxes([y[0] for y in self._views(x)], x.shape[2:], self.head.nl), 1), None

    def _views(self, x: Tensor) -> list[Any]:
        """The predictions for each of `VIEWS`, in the frame of that view."""
        return [self._forward_once(augment_images(x, view, int(self.stride.max()))) for view in VIEWS]


Model = DetectionModel  # the name in older checkpoints and scripts


class SegmentationModel(DetectionModel):
    """A YOLOv5 instance segmenter: a `DetectionModel` with a `Segment` head.

    With `augment` it returns ``(decoded, prototypes, None)`` with the prototypes of all views, three times as many.
    Each candidate has coefficients for the prototypes of its own view, and zeros for those of the others.
    """

    task = "segment"

    def _forward_augment(self, x: Tensor) -> tuple[Tensor, Tensor, None]:
        views, size = self._views(x), x.shape[2:]
        decoded = restore_boxes([y[0] for y in views], size, self.head.nl)
        return *join_masked(decoded, restore_prototypes([y[1] for y in views], size)), None


MODELS: dict[str, type[DetectionModel]] = {model.task: model for model in (DetectionModel, SegmentationModel)}


def model_of(cfg: str | Path | Mapping[str, Any]) -> DetectionModel:
    """The model that `cfg` describes: a detector or a segmenter, as its head requires."""
    last = BLOCKS.get(read_rows(load_cfg(cfg))[-1].module)
    return MODELS[getattr(last and last.cls, "task", DetectionModel.task)](cfg)


def strides_of(rows: nn.Sequential, ch: int) -> Tensor:
    """The strides (nl) of the levels that the head, the last of `rows`, reads, measured on a small image."""
    head = rows[-1]
    if not isinstance(head, Detect):
        raise UserError(f"{row_of(head)}: the last row must be a detection head, such as Detect")
    if not isinstance(head.f, list):
        raise UserError(f"{row_of(head)}: a head reads a list of rows, such as [[17, 20, 23], 1, Detect, …]")
    return measure_strides(rows, ch)


def main(args: Sequence[str] | None = None) -> int:
    """The command ``python models/yolo.py``, whose flags are in `models.inspection.command.parser`."""
    return inspect_network(model_of, args)


if __name__ == "__main__":
    run_command(main)
