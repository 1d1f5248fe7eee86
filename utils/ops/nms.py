"""Non-maximum suppression, which turns decoded predictions into detections.

The kernel is torchvision's. Importing torchvision takes nearly as long as importing torch (1.9 s), and every run of
`detect.py` would have to wait for it. Its compiled library alone is loaded in 10 ms.
"""

from __future__ import annotations

import functools
import importlib.util
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from utils.errors import UserError
from utils.logging import LOGGER

_BLOCK = 400  # boxes per call of the kernel on a CPU, unless a group has more (`benchmarks/validate.py`)
_MANY = 8192  # from so many boxes on, the best ones are tried first on a CPU
_COLUMNS = 8  # groups side by side, see `_apart`


def nms(
    boxes: torch.Tensor,
    scores: torch.Tensor,
    iou_thres: float,
    groups: torch.Tensor | None = None,
    max_keep: int | None = None,
) -> torch.Tensor:
    """Keep each box unless a better box of its group is kept and overlaps it by more than `iou_thres`.

    On a CPU overlaps are computed in float64. GPUs compute them in float32, as most of them are slow in float64 or do
    not have it. With `groups`, coordinates are then rounded to 2⁻¹⁰ pixels or finer (80 groups within 1500 pixels, see
    `_apart`).

    Args:
        boxes: (n, 4) xyxy.
        scores: (n,); equal scores keep their order.
        iou_thres: the box with the lower score is dropped if the overlap is larger than this.
        groups: (n,) boxes of different groups (classes) never suppress each other; None for one group.
        max_keep: the most boxes that are kept.

    Returns:
        (k,) int64, indices of the kept boxes by falling score.
    """
    if boxes.device.type != "cpu":
        boxes, scores = boxes.float(), scores.float()
        return _kernel()(boxes if groups is None else _apart(boxes, groups), scores, iou_thres)[:max_keep]
    boxes, scores = boxes.double(), scores.double()
    if max_keep is not None and len(boxes) >= _MANY:  # no box depends on a worse one, so the best eighth may suffice
        chosen = (scores >= scores.topk(len(boxes) // 8).values[-1]).nonzero()[:, 0]
        kept = _by_block(boxes[chosen], scores[chosen], iou_thres, None if groups is None else groups[chosen])
        if len(kept) >= max_keep:
            return chosen[kept[:max_keep]]
    return _by_block(boxes, scores, iou_thres, groups)[:max_keep]


def _apart(boxes: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """Move the `boxes` (n, 4) of each group to a place of their own, in a plane with `_COLUMNS` columns.

    In a single row the last of 80 groups would be moved eight times as far, which in float32 costs three more bits of
    each coordinate. Distances are multiples of an eighth of a pixel, so that nothing else is lost.
    """
    if not len(boxes):
        return boxes
    lowest, highest = boxes.aminmax()
    groups = groups.to(boxes.dtype)  # of the same column, they lie whole rows apart
    corners = torch.stack((groups % _COLUMNS, groups / _COLUMNS), 1) * ((highest - lowest).ceil() + 1)
    return (boxes.view(-1, 2, 2) + corners[:, None]).view(-1, 4)


def _by_block(boxes: torch.Tensor, scores: torch.Tensor, iou_thres: float, groups: torch.Tensor | None) -> torch.Tensor:
    """`nms` of all boxes in float64, a few groups at a time: the kernel compares each kept box with all worse ones."""
    if groups is None:
        return _kernel()(boxes, scores, iou_thres)
    if len(boxes):
        boxes = boxes + groups[:, None] * (boxes.max() - boxes.min() + 1)
    if len(boxes) <= 2 * _BLOCK:  # sorting them would cost what it saves
        return _kernel()(boxes, scores, iou_thres)
    order = groups.argsort(stable=True)
    boxes, ordered = boxes[order], scores[order]
    kept, start, end = [], 0, 0
    for count in [*torch.bincount(groups.long()).tolist(), len(boxes)]:
        if start < end and end - start + count > _BLOCK:
            kept.append(_kernel()(boxes[start:end], ordered[start:end], iou_thres) + start)
            start = end
        end += count
    found = order[torch.cat(kept)].sort()[0]
    return found[scores[found].argsort(descending=True, stable=True)]


@functools.cache
def _kernel() -> Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]:
    """Torchvision's ``nms(boxes, scores, iou_threshold)``, without importing torchvision if that can be avoided."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("non-maximum suppression needs torchvision, which is not installed: pip install torchvision")
    for library in sorted(Path(spec.submodule_search_locations[0]).glob("_C*")):
        if library.suffix in (".so", ".pyd"):
            torch.ops.load_library(str(library))
    if not hasattr(torch.ops.torchvision, "nms"):
        importlib.import_module("torchvision")  # keeps its library elsewhere, and knows where
    return torch.ops.torchvision.nms


def non_max_suppression(
    prediction: torch.Tensor | Sequence,
    conf_thres: float = 0.25,
    iou_thres: float = 0.45,
    classes: Sequence[int] | None = None,
    agnostic: bool = False,
    multi_label: bool = False,
    labels: Sequence[torch.Tensor] = (),
    max_det: int = 300,
    nm: int = 0,
    max_nms: int = 30000,
) -> list[torch.Tensor]:
    """Turn the predictions for a batch into the detections of each image.

    Args:
        prediction: (B, N, 5 + nc + nm): xywh pixels, objectness, class probabilities, `nm` more values; or the model's
            evaluation output, a tuple that starts with it.
        conf_thres: a detection's objectness × class probability is above this.
        iou_thres: of two boxes of a class that overlap by more, only the better one stays.
        classes: keep only these.
        agnostic: let boxes of different classes suppress each other.
        multi_label: one detection for each class above `conf_thres`, not only for the best (validation).
        labels: per image (m, 5 [+ nm]) class, xywh pixels and the values behind (0 where left out): known objects,
            added as certain detections (auto-labelling).
        max_det: the most detections per image.
        nm: values behind the classes, passed through (mask coefficients).
        max_nms: the most candidates per image; the most confident ones stay.

    Returns:
        Per image (n, 6 + nm): xyxy pixels, confidence, class, the `nm` values times objectness; by falling confidence.

    Raises:
        UserError: a threshold outside 0..1.
    """
    for flag, value in (("conf", conf_thres), ("iou", iou_thres)):
        if not 0 <= value <= 1:
            raise UserError(f"--{flag}-thres is {value}, but a threshold lies between 0 and 1")
    decoded: torch.Tensor = prediction if isinstance(prediction, torch.Tensor) else prediction[0]
    nc = decoded.shape[2] - 5 - nm
    start = time.perf_counter()
    output = []
    for i, rows in enumerate(decoded):
        rows = rows[rows[:, 4] > conf_thres]
        if len(labels) and len(labels[i]):
            rows = torch.cat((rows, _certain(labels[i], nc, nm).to(rows)))
        found = _candidates(rows, conf_thres, nc, multi_label and nc > 1, classes, max_nms)
        kept = nms(found[:, :4], found[:, 4], iou_thres, None if agnostic else found[:, 5], max_det)
        output.append(found[kept])
    _tell_if_slow(time.perf_counter() - start, len(output))
    return output


def _candidates(
    rows: torch.Tensor, conf_thres: float, nc: int, multi_label: bool, classes: Sequence[int] | None, max_nms: int
) -> torch.Tensor:
    """The candidates (m, 6 + nm) float32 above `conf_thres` of the predictions (n, 5 + nc + nm) of an image."""
    rows = rows.float()  # half-precision corners are off by up to half a pixel at 640
    scores = rows[:, 5 : 5 + nc]
    if multi_label:
        scores = scores * rows[:, 4:5]
        row, cls = (scores > conf_thres).nonzero(as_tuple=True)
        conf = scores[row, cls]
    else:
        best, best_class = scores.max(1)
        conf = best * rows[:, 4]
        row = (conf > conf_thres).nonzero()[:, 0]
        conf, cls = conf[row], best_class[row]
    if classes is not None:
        wanted = (cls[:, None] == torch.as_tensor(classes, device=cls.device)).any(1)
        row, cls, conf = row[wanted], cls[wanted], conf[wanted]
    if len(row) > max_nms:
        top = conf.argsort(descending=True, stable=True)[:max_nms]
        row, cls, conf = row[top], cls[top], conf[top]
    centre, half = rows[:, :2], rows[:, 2:4] / 2  # what `xywh2xyxy` does, in fewer operations
    more = rows[:, 5 + nc :] * rows[:, 4:5]  # as the reference does; a mask's outline, where its logit is 0, stays
    known = torch.cat((centre - half, centre + half, more), 1)[row]
    return torch.cat((known[:, :4], conf[:, None], cls[:, None].to(conf.dtype), known[:, 4:]), 1)


def _certain(labels: torch.Tensor, nc: int, nm: int) -> torch.Tensor:
    """Turn labels (m, 5 [+ nm]) class, xywh pixels, … into predictions (m, 5 + nc + nm) of probability 1."""
    rows = torch.zeros((len(labels), 5 + nc + nm), device=labels.device)
    rows[:, :4] = labels[:, 1:5]
    rows[:, 4] = 1.0
    rows.scatter_(1, 5 + labels[:, :1].long(), 1.0)
    rows[:, 5 + nc : nc + labels.shape[1]] = labels[:, 5:]
    return rows


def _tell_if_slow(seconds: float, images: int) -> None:
    if seconds > 0.5 + 0.05 * images:
        LOGGER.info(
            f"non-maximum suppression took {seconds:.1f} s for {images} images; a higher --conf-thres is faster"
        )
