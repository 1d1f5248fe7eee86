"""YOLOv5's heads and models. As a script it prints a network's layer table and totals.

Usage:
    python models/yolo.py --cfg yolov5_MobileNetv2.yaml
    python models/yolo.py --cfg yolov5s.yaml --line-profile --device 0
"""

from __future__ import annotations

import argparse
import importlib
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

if __package__ in {None, ""}:  # run as a script: models/ is on the path, the project is not
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch
from torch import Tensor, nn

from models.configs import find_cfg, known_cfgs, load_cfg
from models.parser import BuiltRow, Row, absolute_sources, output_shapes, parse_model
from models.profiling import RowTimer, Watcher, profile_model
from models.registry import head, register
from models.summary import layer_table, network_name, summary_line
from models.tta import VIEWS, look, look_back, without_tails
from utils.cli import CommandParser, image_size, run_command
from utils.devices import select_device
from utils.errors import UserError
from utils.logging import LOGGER
from utils.networks import initialize_weights
from utils.plots.features import FeaturePlotter

Anchors = int | Sequence[Sequence[float]]


class Cells(NamedTuple):
    """The N predictions of an image, all levels one behind another, in pixels of the network's input but for `centre`."""

    centre: Tensor  # (N, 2) column - 0.5, row - 0.5 in cells
    stride: Tensor  # (N, 1)
    anchors: Tensor  # (N, 2) w, h


class Detect(nn.Module):
    """The detection head: one 1×1 convolution a level, and the decoding of what they say.

    `anchors` are w, h, w, h, … a level, or how many a level is to have (placeholders, for auto-anchor to replace); the
    network that owns the head sets `stride` and divides them by it. A subclass may put channels behind the classes (set
    `no` before the convolutions are made); they are passed through.
    """

    anchors: Tensor  # (nl, na, 2) w, h in cells of their level
    stride: Tensor  # (nl) pixels a cell

    def __init__(self, nc: int = 80, anchors: Anchors = (), ch: Sequence[int] = (), inplace: bool = True) -> None:
        super().__init__()
        if isinstance(anchors, int):
            anchors = [list(range(1, 2 * anchors + 1))] * len(ch)
        if len(anchors) != len(ch):
            raise UserError(f"anchors for {len(anchors)} levels, but the head reads {len(ch)}")
        self.nc = nc
        self.no = nc + 5  # outputs an anchor
        self.nl = len(ch)
        self.na = len(anchors[0]) // 2
        self.inplace = inplace
        self.stride = torch.zeros(self.nl)
        self.register_buffer("anchors", torch.tensor(anchors, dtype=torch.float32).view(self.nl, self.na, 2))
        self.m = nn.ModuleList(nn.Conv2d(c, self.no * self.na, 1) for c in ch)
        self._cells: tuple[Any, Cells] | None = None

    def forward(self, x: list[Tensor]) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Maps (B, c, ny, nx) of all levels to raw predictions, and, in evaluation mode, to ``(decoded, raw)``.

        Raw: a view (B, na, ny, nx, no) of each level's convolution, its strides those of the convolution's output.
        Decoded: (B, N, no), all levels one behind another: centre x, y, width, height in pixels of the network's input,
        objectness and class probabilities, then what a subclass put behind them, as it is.
        """
        raw = []
        for level, conv in zip(x, self.m, strict=True):
            y = conv(level)
            b, _, ny, nx = y.shape
            raw.append(y.view(b, self.na, self.no, ny, nx).permute(0, 1, 3, 4, 2))
        return raw if self.training else (self.decode(raw), raw)

    def decode(self, raw: list[Tensor]) -> Tensor:
        """Raw predictions of all levels to (B, N, no); see `forward`. Half precision becomes float32: pixels need it."""
        flat = torch.cat([level.reshape(level.shape[0], -1, self.no) for level in raw], 1)
        if flat.dtype in (torch.float16, torch.bfloat16):
            flat = flat.float()
        centre, stride, anchors = self.cells(raw, flat.dtype)
        parts = [4, self.nc + 1, self.no - self.nc - 5]
        boxes, scores, *rest = flat.split(parts if parts[-1] else parts[:-1], -1)
        xy, wh = (boxes.sigmoid() * 2).split(2, -1)
        return torch.cat([(xy + centre) * stride, wh * wh * anchors, scores.sigmoid(), *rest], -1)

    def cells(self, raw: list[Tensor], dtype: torch.dtype) -> Cells:
        """Where the N predictions of these levels sit.

        Kept from call to call while shapes, device and anchors stay, except while a graph is being recorded: that would
        keep the recorder's stand-ins for later.
        """
        first = raw[0]
        if torch.jit.is_tracing() or torch.compiler.is_compiling() or type(first) is not Tensor:
            return self._make_cells(raw, dtype)
        version = None if self.anchors.is_inference() else self.anchors._version  # anchors may be written in place
        key = (tuple(level.shape[1:4] for level in raw), dtype, first.device, version)
        if self._cells is None or self._cells[0] != key:
            with torch.inference_mode(False):  # made under inference_mode, they could not serve where gradients flow
                self._cells = key, self._make_cells(raw, dtype)
        return self._cells[1]

    def _make_cells(self, raw: list[Tensor], dtype: torch.dtype) -> Cells:
        device, levels = raw[0].device, []
        for level, stride, anchors in zip(raw, self.stride, self.anchors, strict=True):
            _, na, ny, nx, _ = level.shape
            rows = torch.arange(ny, device=device, dtype=dtype).view(ny, 1).expand(ny, nx)
            columns = torch.arange(nx, device=device, dtype=dtype).expand(ny, nx)
            centre = torch.stack((columns, rows), -1).expand(na, ny, nx, 2) - 0.5
            cell = stride.to(device, dtype).expand(na, ny, nx, 1)
            size = (anchors * stride).to(device, dtype).view(na, 1, 1, 2).expand(na, ny, nx, 2)
            levels.append((centre.reshape(-1, 2), cell.reshape(-1, 1), size.reshape(-1, 2)))
        centre, cell, size = (torch.cat(parts) for parts in zip(*levels, strict=True))
        return Cells(centre, cell, size)

    def set_stride(self, stride: Tensor) -> None:
        """Take the pixels a cell of each level (nl), put the anchors in the same order, and measure them in cells."""
        areas = self.anchors.prod(-1).mean(-1)
        if (areas[-1] - areas[0]) * (stride[-1] - stride[0]) < 0:
            self.anchors.copy_(self.anchors.flip(0))
        self.stride = stride
        self.anchors /= stride.view(-1, 1, 1)

    @torch.no_grad()
    def initialize_biases(self, class_counts: Tensor | None = None) -> None:
        """Start from what is likely: 8 objects in a 640 image, classes rare alike or as `class_counts` (nc) says.

        Focal loss (Lin et al. 2017), section 3.3.
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
        self._cells = None
        return self


register("Detect", Detect, head)


class BaseModel(nn.Module):
    """Rows (`models.parser.parse_model`) that read each other's outputs: what every YOLOv5 network is."""

    model: nn.Sequential
    save: list[int]  # rows whose output is read later
    title: str = "network"  # in the line of totals

    def forward(self, x: Tensor, profile: bool = False, visualize: str | Path | bool = False) -> Any:
        """What the last row makes of images (B, ch, H, W), 0 to 1, H and W multiples of the largest stride.

        `profile` logs time, operations and parameters of each row; `visualize` names a folder that gets a picture of
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
        """Simplify every block that can be (``fuse()``), for inference, in place; a second call changes nothing."""
        for module in list(self.model.modules()):
            if callable(fuse := getattr(module, "fuse", None)):
                fuse()
        return self

    def info(self, verbose: bool = False, imgsz: int | tuple[int, int] = 640) -> None:
        """Log the totals, after the layer table if `verbose`; `imgsz` is what the operations are counted for."""
        if verbose:
            LOGGER.info(layer_table(self.model))
        LOGGER.info(summary_line(self, self.title, imgsz))


class DetectionModel(BaseModel):
    """A YOLOv5 detector, built from its YAML.

    `cfg` is a path, a name (`models.configs.find_cfg`) or a dict; `nc` and `anchors` replace the YAML's; `ch` is the
    number of image channels where the YAML does not say. A description that no network can be built from is a
    `UserError` that names its row.
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
        self.yaml = _overridden(load_cfg(cfg), nc, anchors)
        channels = self.yaml.setdefault("ch", ch)
        self.nc: int = self.yaml["nc"]
        self.names = {i: str(i) for i in range(self.nc)}
        self.inplace: bool = self.yaml.get("inplace", True)
        self.model, self.save = parse_model(self.yaml, channels, source)
        self.head.set_stride(strides_of(self.model, channels))
        self.head.initialize_biases()
        initialize_weights(self)

    @property
    def head(self) -> Detect:
        """The last row."""
        return cast(Detect, self.model[-1])

    @property
    def stride(self) -> Tensor:
        """Pixels a cell of each level (nl), the head's."""
        return self.head.stride

    def forward(  # type: ignore[override]
        self, x: Tensor, augment: bool = False, profile: bool = False, visualize: str | Path | bool = False
    ) -> Any:
        """Images (B, ch, H, W), 0 to 1, to predictions, as `Detect.forward` describes them for either mode.

        `augment` (evaluation mode) joins the predictions of three views and returns ``(decoded, None)``; `profile` and
        `visualize` as in `BaseModel.forward`.
        """
        return self._forward_augment(x) if augment else super().forward(x, profile, visualize)

    def _forward_augment(self, x: Tensor) -> tuple[Tensor, None]:
        stride, width = int(self.stride.max()), x.shape[3]
        views = [look_back(self._forward_once(look(x, view, stride))[0], view, width) for view in VIEWS]
        return torch.cat(without_tails(views, self.head.nl), 1), None


Model = DetectionModel  # the name in older checkpoints and scripts


def strides_of(rows: nn.Sequential, ch: int) -> Tensor:
    """Pixels a cell of each level that the head, the last of `rows`, reads, measured on a small image."""
    head, size = rows[-1], 128
    if not isinstance(head, Detect):
        raise UserError(f"{_row_of(head)}: the last row must be a detection head, such as Detect")
    if not isinstance(head.f, list):
        raise UserError(f"{_row_of(head)}: a head reads a list of rows, such as [[17, 20, 23], 1, Detect, …]")
    shapes = output_shapes(rows, ch, size)
    return torch.tensor([size / shapes[source][2] for source in absolute_sources(_row_of(head))])


def _row_of(layer: nn.Module) -> Row:
    return cast(BuiltRow, layer.built).row


def _overridden(description: dict[str, Any], nc: int | None, anchors: Anchors | None) -> dict[str, Any]:
    if nc is not None and nc != description["nc"]:
        LOGGER.info(f"nc={description['nc']} of the network's YAML overridden with nc={nc}")
        description["nc"] = nc
    if anchors is not None:
        LOGGER.info(f"anchors of the network's YAML overridden with anchors={anchors}")
        description["anchors"] = anchors if isinstance(anchors, int) else [list(level) for level in anchors]
    return load_cfg(description)


# Command line --------------------------------------------------------------------------------------------------------


def parse_opt(args: Sequence[str] | None = None) -> argparse.Namespace:
    """The flags of ``python models/yolo.py``."""
    parser = CommandParser("Print a network's layer table and totals.")
    parser.add_argument("--cfg", default="yolov5_MobileNetv2.yaml", help="network YAML, path or name")
    parser.add_argument("--batch-size", type=int, default=1, help="images of the profiled batch")
    parser.add_argument(
        "--imgsz", "--img", "--img-size", nargs="+", type=int, default=[640], help="size, or height width"
    )
    parser.add_argument("--device", default="", help="cuda device, such as 0, or cpu")
    parser.add_argument("--profile", action="store_true", help="time forward and backward")
    parser.add_argument("--line-profile", action="store_true", help="time each row")
    parser.add_argument("--test", action="store_true", help="build every network under models/ instead")
    return parser.parse_args(args)


def main(args: Sequence[str] | None = None) -> int:
    """Print what the flags ask for; 1 if ``--test`` met a network that does not build."""
    opt = parse_opt(args)
    if opt.test:
        return _test_all()
    model = DetectionModel(opt.cfg)
    size = image_size(opt.imgsz)
    model.info(verbose=True, imgsz=size)
    if opt.profile or opt.line_profile:
        device = select_device(opt.device)
        images = torch.rand(opt.batch_size, model.yaml["ch"], *size, device=device)
        model.to(device)
        if opt.line_profile:
            with torch.no_grad():
                model.eval()(images, profile=True)
        if opt.profile:
            profile_model(model, images)
    return 0


def _test_all() -> int:
    failures = 0
    for name in known_cfgs():
        try:
            DetectionModel(name).info()
        except UserError as error:
            failures += 1
            LOGGER.error(f"{name}: {error}")
    return int(failures > 0)


if __name__ == "__main__":  # hand over to the importable twin, so that classes are models.yolo's and not __main__'s
    run_command(importlib.import_module("models.yolo").main)
