"""Verifies that a file computes the same as the model, by comparing their outputs for the same photographs.

The reference is the model itself with its own decoding and `utils.ops.nms`, and not the network that was converted, so
that an error in `engine.export.network` is found too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.export_metadata import ExportMetadata
from models.yolo import DetectionModel
from utils.data.sources.image_io import read_image
from utils.errors import UserError
from utils.files import ROOT
from utils.logging import LOGGER
from utils.ops.letterbox import letterbox
from utils.ops.nms import non_max_suppression

Run = Callable[[Tensor], dict[str, Tensor]]
PHOTOGRAPH_FILES = "astronaut.jpg", "cat.jpg"  # below data/images
_CONFIDENT = 0.1  # in half precision only boxes above this objectness are compared; others differ by pixels


@dataclass
class Difference:
    """The largest differences from the reference.

    `boxes`: in pixels of the input. `values`: of confidences, coefficients, prototypes and head maps; the latter are
    divided by the largest value of their kind where that is above 1. `detections`: the number that was compared, only
    for layout "nms".
    """

    boxes: float = 0.0
    values: float = 0.0
    detections: int = 0

    def see(self, boxes: float = 0.0, values: float = 0.0) -> None:
        """Take further differences into account. NaN counts as infinite."""
        self.boxes = max(self.boxes, boxes if boxes == boxes else float("inf"))
        self.values = max(self.values, values if values == values else float("inf"))

    def __str__(self) -> str:
        return f"boxes {self.boxes:.1e} px, values {self.values:.1e}"


def limits_of(metadata: ExportMetadata) -> Difference:
    """The largest differences that rounding explains."""
    return Difference(4.0, 0.05) if metadata.half else Difference(1e-2, 1e-4)


def verify(run: Run, metadata: ExportMetadata, model: DetectionModel) -> Difference:
    """Compare the file that `run` calls with `model`, which is in float32 and on any device, on two photographs.

    Dynamic files are compared in batches of one to three and in two sizes. Raises `UserError` for outputs of a wrong
    shape, for values that are not finite and for differences above `limits_of`. For 8-bit files only shapes and finite
    values are checked, and `engine.export.accuracy` measures how good they are.
    """
    largest, limits = Difference(), limits_of(metadata)
    device = model.stride.device
    for images in _batches(metadata):
        got = {name: y.detach().cpu() for name, y in run(images.to(device)).items()}
        want = {name: y.cpu() for name, y in expected(model, images.to(device), metadata).items()}
        for name, value in want.items():
            if tuple(got[name].shape) != tuple(value.shape):
                raise UserError(f"{name} is {tuple(got[name].shape)} for images {tuple(images.shape)}, "
                                f"and should be {tuple(value.shape)}")  # fmt: skip
            if not bool(got[name].isfinite().all()):
                raise UserError(f"{name} holds values that are not finite")
        if metadata.int8:
            continue
        if metadata.layout == "nms":
            _compare_detections(got, want, metadata, largest, limits)
        if "boxes" in want and metadata.half:
            confident = want["scores"].amax(2) > _CONFIDENT
            got["boxes"], want["boxes"] = got["boxes"][confident], want["boxes"][confident]
        for name in want.keys() - {"detections", "count"}:
            _compare(name, got[name].float(), want[name].float(), metadata, largest)
    if largest.boxes > limits.boxes or largest.values > limits.values:
        raise UserError(f"it differs from PyTorch by {largest} (limits {limits})")
    if metadata.layout == "nms" and not (largest.detections or metadata.int8):
        LOGGER.warning(
            f"nothing is detected on the two photographs above confidence {metadata.conf_thres}, so no detections "
            "could be compared; a lower --conf-thres, or an export without --nms, allows a comparison"
        )
    return largest


def photographs(size: tuple[int, int]) -> Tensor:
    """The two photographs as images (2, 3, H, W) float RGB 0..1, letterboxed to `size`."""
    images = [
        letterbox(read_image(ROOT / "data" / "images" / name), size, auto=False).image for name in PHOTOGRAPH_FILES
    ]
    return torch.from_numpy(np.stack(images)[..., ::-1].transpose(0, 3, 1, 2).copy()).float() / 255


def _batches(metadata: ExportMetadata) -> Iterator[Tensor]:
    height, width = metadata.imgsz
    two = photographs((height, width))
    if metadata.dynamic:
        yield from (two[:1], two[[1, 0, 1]], photographs((height, width + max(metadata.strides))))
    else:
        batches = -(-2 // metadata.batch)
        yield from two[torch.arange(batches * metadata.batch) % 2].split(metadata.batch)


@torch.no_grad()
def expected(model: DetectionModel, images: Tensor, metadata: ExportMetadata) -> dict[str, Tensor]:
    """Compute with `model` the outputs, by name, that a file with this `metadata` gives for `images` (B, 3, H, W)."""
    decoded, *prototypes, raw = model(images)
    nc = len(metadata.names)
    objectness = decoded[..., 4:5]
    outputs: list[Tensor]
    if metadata.layout == "decoded":
        outputs = [decoded]
    elif metadata.layout == "raw":  # (B, na, ny, nx, no) → (B, na·no, ny, nx)
        outputs = [y.permute(0, 1, 4, 2, 3).flatten(1, 2) for y in raw]
    elif metadata.layout == "separate":
        outputs = [decoded[..., :4], decoded[..., 5 : 5 + nc] * objectness]
        outputs += [decoded[..., 5 + nc :] * objectness] if metadata.nm else []
    else:
        assert metadata.conf_thres is not None  # layout "nms" has all of these
        assert metadata.iou_thres is not None
        assert metadata.max_det is not None
        found = non_max_suppression(
            decoded,
            metadata.conf_thres,
            metadata.iou_thres,
            agnostic=bool(metadata.agnostic),
            max_det=metadata.max_det,
            nm=metadata.nm,
        )
        rows = torch.zeros(len(found), metadata.max_det, 6 + metadata.nm)
        for i, detections in enumerate(found):
            rows[i, : len(detections)] = detections
        outputs = [rows, torch.tensor([len(detections) for detections in found])]
    return dict(zip(metadata.outputs, [*outputs, *prototypes], strict=True))


def _compare(name: str, got: Tensor, want: Tensor, metadata: ExportMetadata, largest: Difference) -> None:
    if name == "boxes":
        largest.see(boxes=_most(got, want))
    elif name == "output0":
        known = 5 + len(metadata.names)
        compared = want[..., 4] > (_CONFIDENT if metadata.half else -1)
        boxes = _most(got[..., :4][compared], want[..., :4][compared])
        largest.see(boxes, _most(got[..., 4:known], want[..., 4:known]))
        largest.see(values=_most_scaled(got[..., known:], want[..., known:]))
    else:
        largest.see(values=_most_scaled(got, want))


def _compare_detections(
    got: dict[str, Tensor], want: dict[str, Tensor], metadata: ExportMetadata, largest: Difference, limits: Difference
) -> None:
    """Compare detections: each must have a counterpart on the other side, except those close to the threshold."""
    for i, (count, truth) in enumerate(zip(got["count"].tolist(), want["count"].tolist(), strict=True)):
        mine, theirs = got["detections"][i], want["detections"][i]
        largest.detections += truth
        if mine[count:].any():
            raise UserError("the rows behind the last detection are not zero")
        full = metadata.max_det in (count, truth)
        edge = min(float(mine[count - 1, 4]), float(theirs[truth - 1, 4])) if full else float(metadata.conf_thres or 0)
        for rows, others in ((mine[:count], theirs[:truth]), (theirs[:truth], mine[:count])):
            _match(rows[rows[:, 4] > edge + limits.values], others, metadata, largest, limits)


def _match(rows: Tensor, others: Tensor, metadata: ExportMetadata, largest: Difference, limits: Difference) -> None:
    """Match each of `rows` (n, 6 + nm) to the nearest of `others` of its class. Half precision may lose one in ten."""
    if not len(rows):
        return
    if not len(others):
        raise UserError(f"{len(rows)} detections have no counterpart in PyTorch's or the file's answer")
    distance = (rows[:, None, :4] - others[None, :, :4]).abs().amax(2)
    distance = distance.masked_fill(rows[:, None, 5] != others[None, :, 5], float("inf"))
    distance += (rows[:, None, 4] - others[None, :, 4]).abs()  # of two at the same place, the one as confident
    partner = distance.argmin(1)
    found = distance.gather(1, partner[:, None])[:, 0] <= limits.boxes + limits.values
    lost = int((~found).sum())
    if lost > len(rows) * (0.1 if metadata.half else 0):
        raise UserError(f"{lost} of {len(rows)} detections have no counterpart in PyTorch's or the file's answer")
    rows, others = rows[found], others[partner[found]]
    largest.see(_most(rows[:, :4], others[:, :4]), _most(rows[:, 4], others[:, 4]))
    largest.see(values=_most_scaled(rows[:, 6:], others[:, 6:]))


def _most(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max()) if a.numel() else 0.0


def _most_scaled(a: Tensor, b: Tensor) -> float:
    return _most(a, b) / max(1.0, float(b.abs().max())) if a.numel() else 0.0
