"""The segmentation loss: that of detection, and a mask for each pair of a prediction and an object.

A pair's mask logits are the prediction's coefficients times the image's prototypes; their binary cross entropy with
the object's mask is averaged over the object's box (YOLACT, Bolya et al. 2019). The logits of all pairs at once would
take gigabytes: 100 kB a pair, tens of pairs an object, several such tensors. So objects are taken few at a time, and
their gradients computed with their values: nothing is kept but the sums. All pairs of an object share the prototypes
in its box and its mask, and are one product of matrices.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch.nn.functional import softplus

from utils.losses.assignment import Assignment
from utils.losses.detection import DetectionLoss, Matches

CHUNK_BYTES = 256 << 20  # of temporary tensors where windows are whole pictures


class MaskTargets(NamedTuple):
    """What the masks of n objects should be.

    Attributes:
        masks: (k, h, w) layers, at the prototypes' resolution.
        layer: (n,) int64, the layer that holds the object's mask.
        mark: (n,) int64, the value that its pixels have there.
        image: (n,) int64, image within the batch.
        window: (n, 4) int64, the box in cells: first column, first row, and those after the last ones.
    """

    masks: torch.Tensor
    layer: torch.Tensor
    mark: torch.Tensor
    image: torch.Tensor
    window: torch.Tensor


class Piece(NamedTuple):
    """Some objects, the rows (pairs) of each, and a window of the prototypes that holds their boxes.

    Attributes:
        objects: (k,) int64.
        rows: (k, r) int64.
        ys, xs: the window, in cells.
    """

    objects: torch.Tensor
    rows: torch.Tensor
    ys: slice
    xs: slice


class SegmentationLoss:
    """YOLOv5's loss of boxes, masks, objectness and classes. The masks' gain is that of the boxes.

    Args:
        model: as for `DetectionLoss`, its head a `Segment`.
        hyp: likewise.
        overlap: masks come as one index map an image, instead of one mask an object.
    """

    def __init__(self, model: Any, hyp: Mapping[str, Any] | None = None, overlap: bool = True) -> None:
        self.detection = DetectionLoss(model, hyp)
        self.hyp = self.detection.hyp
        self.overlap = overlap

    def __call__(
        self, predictions: tuple[Sequence[torch.Tensor], torch.Tensor], targets: torch.Tensor, masks: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss of a batch.

        Args:
            predictions: per level (B, na, ny, nx, 5 + nc + nm) raw outputs of the head, and prototypes (B, nm, h, w).
            targets: (n, 6) image index, class, xywh normalised; n may be 0.
            masks: with `overlap` (B, H, W) integers: 0 background, k the k-th of the image's rows of `targets`. Else
                (n, H, W) of 0 and 1. Brought to the prototypes' size (nearest) if of another.

        Returns:
            The loss (1,), times the batch size, and its detached parts (4,): box, seg, obj, cls, each with its gain.
        """
        raw, prototypes = predictions
        matches = self.detection.match(raw, targets)
        box, obj, cls = self.detection.terms(matches)
        with torch.autocast(prototypes.device.type, enabled=False):  # the products below want all their digits
            seg = self.mask_term(matches, prototypes.float(), targets.float(), masks)
        gains = [self.hyp[name] for name in ("box", "box", "obj", "cls")]
        parts = torch.stack([term * gain for term, gain in zip((box, seg, obj, cls), gains, strict=True)])
        return parts.sum().view(1) * len(prototypes), parts.detach()

    def mask_term(
        self, matches: Matches, prototypes: torch.Tensor, targets: torch.Tensor, masks: torch.Tensor
    ) -> torch.Tensor:
        """The masks' part before its gain: the mean over the pairs of an image and level, those summed, over B."""
        head = self.detection.head
        coefficients, of_row = matches.rows[:, 5 + head.nc :], matches.assignment.target  # (R, nm), (R,)
        weight = _share_of_image(matches.assignment, len(prototypes))
        sides = targets[:, 4:6].prod(1)[of_row] * prototypes[0, 0].numel()  # cells in the box, fractions counted
        weight = torch.where(weight > 0, weight / sides, 0.0)
        wanted = _mask_targets(targets, masks, prototypes.shape, self.overlap)
        if len(of_row) == len(targets) * 3 * head.na * head.nl:
            pieces = _pieces_of_whole_windows(of_row, wanted, prototypes.shape[1])
        else:  # rows without a pair were dropped: values are at hand
            pieces = _pieces_of_one_object(of_row, wanted)
        return _MaskTerm.apply(coefficients, prototypes, weight, wanted, pieces)


class _MaskTerm(torch.autograd.Function):
    """Σ weight · Σ over the box of the cross entropy of coefficients · prototypes. Gradients come with the value."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        coefficients: torch.Tensor,
        prototypes: torch.Tensor,
        weight: torch.Tensor,
        wanted: MaskTargets,
        pieces: Iterator[Piece],
    ) -> torch.Tensor:
        total = prototypes.new_zeros(())
        learns = any(ctx.needs_input_grad[:2])
        gradients = (torch.zeros_like(coefficients), torch.zeros_like(prototypes)) if learns else None
        for objects, rows, ys, xs in pieces:
            image = wanted.image[objects]
            window = prototypes[:, :, ys, xs][image]  # (k, nm, y, x)
            cells, own, share = window.flatten(2), coefficients[rows], weight[rows]
            inside = _inside(wanted.window[objects], ys, xs).to(window)  # (k, cells)
            mask = (wanted.masks[:, ys, xs][wanted.layer[objects]] == wanted.mark[objects, None, None]).flatten(1)
            mask = mask * inside
            logits = own @ cells  # (k, r, cells)
            entropy = softplus(logits) @ inside[..., None] - logits @ mask[..., None]
            total += (entropy[..., 0] * share).sum()
            if gradients is not None:
                slope = logits.sigmoid_().mul_(inside[:, None]).sub_(mask[:, None]).mul_(share[..., None])
                gradients[0][rows] = slope @ cells.mT
                gradients[1][:, :, ys, xs].index_add_(0, image, (own.mT @ slope).view_as(window))
        if gradients is not None:
            ctx.save_for_backward(*gradients)
        return total

    @staticmethod
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        coefficients, prototypes = ctx.saved_tensors
        return coefficients * slope, prototypes * slope, None, None, None


def _share_of_image(assignment: Assignment, images: int) -> torch.Tensor:
    """(R,) what each pair counts: one over the valid pairs of its image at its level, over the number of images."""
    valid, image = assignment.valid.float(), assignment.cell[:, 0]
    shares = []
    for own, where in zip(assignment.by_level(valid), assignment.by_level(image), strict=True):
        pairs = own.new_zeros(images).index_add_(0, where, own)
        shares.append(own / (pairs.clamp(min=1) * images)[where])
    return torch.cat(shares)


def _mask_targets(targets: torch.Tensor, masks: torch.Tensor, shape: torch.Size, overlap: bool) -> MaskTargets:
    """`targets` (n, 6) and `masks` as the loss takes them, for prototypes of `shape` (B, nm, h, w)."""
    height, width = shape[2:]
    if masks.shape[1:] != (height, width):
        row, column = (
            torch.arange(new, device=masks.device) * old // new
            for new, old in zip((height, width), masks.shape[1:], strict=True)
        )
        masks = masks[:, row[:, None], column]
    image, number = targets[:, 0].long(), torch.arange(len(targets), device=targets.device)
    x, y, w, h = (column * n for column, n in zip(targets[:, 2:].T, (width, height, width, height), strict=True))
    edges = ((x - w / 2, width), (y - h / 2, height), (x + w / 2, width), (y + h / 2, height))
    window = torch.stack([edge.ceil().clamp(0, limit).long() for edge, limit in edges], 1)
    if not overlap:
        return MaskTargets(masks, number, torch.ones_like(number), image, window)
    order = image.argsort(stable=True)
    ordered = image[order]
    rank = torch.empty_like(image).scatter_(0, order, number - torch.searchsorted(ordered, ordered))
    return MaskTargets(masks, image, rank + 1, image, window)


def _pieces_of_one_object(of_row: torch.Tensor, wanted: MaskTargets) -> Iterator[Piece]:
    """Each object alone, in the window of its box, with its pairs. Reads values."""
    order = of_row.argsort(stable=True)
    rows = order.split(of_row.bincount(minlength=len(wanted.image)).tolist())
    for i, (x0, y0, x1, y1) in enumerate(wanted.window.tolist()):
        if len(rows[i]) and x0 < x1 and y0 < y1:
            yield Piece(torch.tensor([i]), rows[i][None], slice(y0, y1), slice(x0, x1))


def _pieces_of_whole_windows(of_row: torch.Tensor, wanted: MaskTargets, nm: int) -> Iterator[Piece]:
    """A few objects at a time over whole pictures, for rows of which every object has equally many. Reads no value."""
    count = len(wanted.image)
    if not count:
        return
    rows = of_row.argsort(stable=True).view(count, -1)
    height, width = wanted.masks.shape[1:]
    numbers = 3 * rows.shape[1] + 2 * nm  # a cell: each row's logits and two more, the prototypes and their gradients
    few = max(1, CHUNK_BYTES // (4 * numbers * height * width))
    for objects, chunk in zip(torch.arange(count, device=rows.device).split(few), rows.split(few), strict=True):
        yield Piece(objects, chunk, slice(height), slice(width))


def _inside(window: torch.Tensor, ys: slice, xs: slice) -> torch.Tensor:
    """(k, cells) bool: which of the cells `ys`, `xs` the windows (k, 4) hold."""
    x0, y0, x1, y1 = window[:, :, None].unbind(1)
    row = torch.arange(ys.start or 0, ys.stop, device=window.device)
    column = torch.arange(xs.start or 0, xs.stop, device=window.device)
    rows, columns = (row >= y0) & (row < y1), (column >= x0) & (column < x1)
    return (rows[:, :, None] & columns[:, None]).flatten(1)
