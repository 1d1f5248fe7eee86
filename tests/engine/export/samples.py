"""Jobs of tiny networks, and what their files must answer, computed without the code of `engine.export`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import box_convert
from torchvision.ops import nms as torchvision_nms

from engine.export.network import metadata_of
from engine.export.request import ExportRequest
from engine.export.verify import PHOTOGRAPH_FILES
from models.checkpoints.checkpoint import Checkpoint, save_checkpoint
from models.export_metadata import ExportMetadata
from models.yolo import model_of
from utils.files import ROOT

SIZE = (64, 96)
LAYOUTS = ("decoded", "separate", "raw", "nms")
NMS = {"max_det": 20, "conf_thres": 0.25, "iou_thres": 0.45, "agnostic": False}


def lively(head: str = "Detect", seed: int = 0, nc: int = 3) -> Any:
    """A tiny detector or segmenter, strides 4 and 8, in evaluation mode, not fused.

    Its weights are random, but its norms know the images and its head is loud, so that every cell says something else
    and little of it is sure. A network as it is initialised says the same everywhere and would hide mistakes.
    """
    args = ["nc", "anchors", *([4, 8] if head == "Segment" else [])]
    backbone = [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "MobileNetV2_Block", [8, 2, 6]], [-1, 1, "C3", [16]]]
    rows = [[-1, 1, "Conv", [16, 3, 2]], [[2, 3], 1, head, args]]
    sizes = {"nc": nc, "depth_multiple": 1.0, "width_multiple": 1.0, "anchors": [[10, 13, 16, 30], [30, 61, 62, 45]]}
    torch.manual_seed(seed)
    model = model_of({**sizes, "backbone": backbone, "head": rows})
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():
        for norm in norms:
            norm.momentum = None  # a plain mean over the batches
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, 0, 0.3)
        for batch in range(4):
            model(noise(4, seed=batch))
        for conv in model.head.m:
            conv.weight *= 3
            conv.bias.view(model.head.na, -1)[:, 4] += 3
    return model.eval()


def fused(head: str = "Detect", nc: int = 3) -> Any:
    """A `lively` network as exports receive it: fused, its weights fixed."""
    return lively(head, nc=nc).fuse().requires_grad_(False)


def noise(batch: int, size: tuple[int, int] = SIZE, seed: int = 0) -> Tensor:
    """Images (B, 3, H, W) of coarse noise: every image, and every part of it, is another; the same for one `seed`."""
    coarse = torch.rand(batch, 3, size[0] // 8, size[1] // 8, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, size, mode="bilinear")


def save(model: Any, path: Path) -> Path:
    """The checkpoint of a `lively` model."""
    values = {"task": model.task, "cfg": model.yaml, "names": model.names, "state_dict": model.state_dict()}
    save_checkpoint(path, Checkpoint(**values))
    return path


def metadata_for(model: Any, layout: str = "decoded", **values: Any) -> ExportMetadata:
    """The metadata of an export of `model`; `values` replace fields."""
    fields: dict[str, Any] = {"imgsz": list(SIZE), "batch": 1, "dynamic": False, "half": False, "int8": False}
    return metadata_of(model, layout=layout, **fields | (NMS if layout == "nms" else {}) | values)


def request_for(model: Any, layout: str = "decoded", opset: int | None = None, **values: Any) -> ExportRequest:
    """An export of `model` in float32 on the CPU; `values` are fields of the metadata, or "simplify" and "dynamo"."""
    flags = {flag: values.pop(flag, False) for flag in ("simplify", "dynamo")}
    return ExportRequest(model, metadata_for(model, layout, **values), torch.device("cpu"), opset, **flags)


@torch.no_grad()
def threshold_for(model: Any, images: Tensor, count: int) -> float:
    """A confidence that `count` candidates of all `images` are above, in the middle of the gap to the next one."""
    decoded, nc = model(images)[0], len(model.names)
    conf = (decoded[..., 4] * decoded[..., 5 : 5 + nc].amax(2)).flatten().sort(descending=True).values
    return float(conf[count - 1] + conf[count]) / 2


@torch.no_grad()
def answer(model: Any, images: Tensor, metadata: ExportMetadata) -> list[Tensor]:
    """The outputs for `images`, in the order of `metadata.outputs`, from what `model` itself says."""
    decoded, *prototypes, raw = model(images)
    boxes, objectness, classes, masks = decoded.split((4, 1, len(metadata.names), metadata.nm), 2)
    more = [masks * objectness] if metadata.nm else []
    own: list[Tensor]
    if metadata.layout == "decoded":
        own = [decoded]
    elif metadata.layout == "separate":
        own = [boxes, classes * objectness, *more]
    elif metadata.layout == "raw":  # (B, na, ny, nx, no): anchor by anchor, channel by channel
        own = [torch.cat([y[:, a].permute(0, 3, 1, 2) for a in range(y.shape[1])], 1) for y in raw]
    else:
        conf, cls = (classes * objectness).max(2, keepdim=True)
        rows = torch.cat((box_convert(boxes, "cxcywh", "xyxy"), conf, cls, *more), 2)
        own = suppressed(rows, metadata)
    return [*own, *prototypes]


def suppressed(rows: Tensor, metadata: ExportMetadata) -> list[Tensor]:
    """Detections (B, max_det, 6 + nm) and their number, by torchvision, from candidates (B, N, 6 + nm)."""
    assert metadata.max_det is not None
    assert metadata.conf_thres is not None
    assert metadata.iou_thres is not None
    detections = torch.zeros(len(rows), metadata.max_det, rows.shape[2])
    counts = []
    for image, candidates in enumerate(rows):
        found = candidates[candidates[:, 4] > metadata.conf_thres]
        groups = [found] if metadata.agnostic else [found[found[:, 5] == c] for c in range(len(metadata.names))]
        kept = torch.cat([g[torchvision_nms(g[:, :4], g[:, 4], metadata.iou_thres)] for g in groups])
        kept = kept[kept[:, 4].argsort(descending=True)][: metadata.max_det]
        detections[image, : len(kept)] = kept
        counts.append(len(kept))
    return [detections, torch.tensor(counts)]


def assert_close(got: Any, expected: list[Tensor]) -> None:
    """The same outputs, up to rounding: boxes to a hundredth of a pixel, the rest to a ten-thousandth."""
    got = [torch.as_tensor(y) for y in ([got] if isinstance(got, Tensor) else got)]
    assert [tuple(y.shape) for y in got] == [tuple(y.shape) for y in expected]
    for mine, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


PHOTOGRAPHS = tuple(str(ROOT / "data" / "images" / name) for name in PHOTOGRAPH_FILES)  # to calibrate by


def assert_eight_bits(answers: Iterable[Tensor], expected: Iterable[Tensor]) -> None:
    """Head maps a few steps of 1/256 from the `expected` ones, in no more steps than eight bits tell apart."""
    for got, want in zip(answers, expected, strict=True):
        step = float(want.max() - want.min()) / 256
        assert float((got - want).abs().mean()) < 4 * step
        assert len(got.unique()) <= 256
