"""Non-maximum suppression: from decoded predictions to detections.

Torchvision has a compiled `nms`, but importing torchvision takes about as long as importing torch (1.2 s), which every
`detect.py` would pay. The greedy rule below needs nothing but torch, gives the same boxes (a test compares), and stops
as soon as `max_det` boxes are kept, which makes it the faster one in validation (`benchmarks/nms.py`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

from utils.errors import UserError
from utils.logging import LOGGER
from utils.ops.boxes import xywh2xyxy

_CHUNK = 128  # candidates compared at a time: bounds memory to chunk × (kept + chunk); small enough for one thread


def nms(
    boxes: torch.Tensor,
    scores: torch.Tensor,
    iou_thres: float,
    groups: torch.Tensor | None = None,
    max_keep: int | None = None,
) -> torch.Tensor:
    """Greedy suppression: a box is kept unless a kept, better one of its group overlaps it by more than `iou_thres`.

    Args:
        boxes: (n, 4) xyxy.
        scores: (n,); equal scores keep their order.
        iou_thres: overlap above which (strictly) the lower box goes.
        groups: (n,) boxes of different groups (classes) never touch each other; None for one group.
        max_keep: stop after this many.

    Returns:
        (k,) int64, indices of the kept boxes by falling score.
    """
    order = scores.argsort(descending=True, stable=True)
    sides = boxes[order].float().T.contiguous()  # (4, n): contiguous columns make the pairwise arithmetic fast
    groups = torch.zeros_like(sides[0]) if groups is None else groups[order]
    limit = len(order) if max_keep is None else max_keep
    kept = order[:0]  # positions in the sorted order
    for chunk in torch.arange(len(order), device=order.device).split(_CHUNK):
        if len(kept):
            rivals = _overlaps(sides, groups, kept, chunk, iou_thres)
            chunk = chunk[~rivals.any(0)]
        kept = torch.cat((kept, chunk[_greedy(_overlaps(sides, groups, chunk, chunk, iou_thres))]))
        if len(kept) >= limit:
            break
    return order[kept[:limit]]


def _overlaps(
    sides: torch.Tensor, groups: torch.Tensor, a: torch.Tensor, b: torch.Tensor, iou_thres: float
) -> torch.Tensor:
    """(len(a), len(b)) bool: box of `a` and box of `b` are in one group and overlap by more than `iou_thres`."""
    left_a, top_a, right_a, bottom_a = sides[:, a].unsqueeze(2)
    left_b, top_b, right_b, bottom_b = sides[:, b].unsqueeze(1)
    inter = (right_a.minimum(right_b) - left_a.maximum(left_b)).clamp_(min=0)
    inter *= (bottom_a.minimum(bottom_b) - top_a.maximum(top_b)).clamp_(min=0)
    union = (right_a - left_a) * (bottom_a - top_a) + (right_b - left_b) * (bottom_b - top_b) - inter
    return (inter > union.mul_(iou_thres)) & (groups[a][:, None] == groups[b][None])


def _greedy(overlap: torch.Tensor) -> torch.Tensor:
    """(n,) bool, who survives, from the symmetric (n, n) `overlap` of boxes in falling order.

    Start with everyone and repeat "those whom no survivor above them overlaps". Each round settles at least the next
    box of the order for good, so the fixed point is the greedy answer; real scenes need a handful of rounds.
    """
    above = overlap.triu(1)
    alive = torch.ones(len(above), dtype=torch.bool, device=above.device)
    while True:
        survivors = ~(above & alive[:, None]).any(0)
        if torch.equal(survivors, alive):
            return alive
        alive = survivors


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
    """Detections of each image of a batch.

    Args:
        prediction: (B, N, 5 + nc + nm): xywh pixels, objectness, class probabilities, `nm` more values; or the model's
            evaluation output, a tuple that starts with it.
        conf_thres: a detection's objectness × class probability is above this.
        iou_thres: of two boxes of a class that overlap by more, the better one stays.
        classes: keep only these.
        agnostic: let boxes of different classes suppress each other.
        multi_label: one detection for each class above `conf_thres`, not only for the best (validation).
        labels: per image (m, 5 [+ nm]) class, xywh pixels and the values behind (0 where left out): known objects,
            added as certain detections (auto-labelling).
        max_det: most detections an image.
        nm: values behind the classes, passed through (mask coefficients).
        max_nms: most candidates an image; the most confident ones stay.

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
    """(m, 6 + nm) candidates, float32, above `conf_thres` from the predictions of an image, (n, 5 + nc + nm)."""
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
    rows = rows[row]
    more = rows[:, 5 + nc :] * rows[:, 4:5]  # as the reference does; a mask's outline, where its logit is 0, stays
    return torch.cat((xywh2xyxy(rows[:, :4]), conf[:, None], cls[:, None].to(conf.dtype), more), 1)


def _certain(labels: torch.Tensor, nc: int, nm: int) -> torch.Tensor:
    """Labels (m, 5 [+ nm]) class, xywh pixels, …, as (m, 5 + nc + nm) predictions of probability 1."""
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
