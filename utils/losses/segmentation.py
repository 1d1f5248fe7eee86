"""The segmentation loss: the detection loss, and a mask loss for each pair of a prediction and an object.

The mask logits of a pair are the coefficients of the prediction times the prototypes of the image. Their binary cross
entropy with the mask of the object is averaged over the object's box (YOLACT, Bolya et al. 2019). The logits of all
pairs at once would take gigabytes: a pair has 100 kB, an object has tens of pairs, and there would be several such
tensors. So a few objects are treated at a time, and their gradients are computed together with their losses; only the
sums are kept. All pairs of an object share the prototypes in its box and its mask, and are one product of matrices.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch.nn.functional import softplus

from utils.losses.assignment import Assignment
from utils.losses.detection import DetectionLoss, Matches

CHUNK_BYTES = 256 << 20  # of temporary tensors where chunks cover whole images


class MaskTargets(NamedTuple):
    """The target masks of n objects.

    Attributes:
        masks: (k, h, w) layers, at the resolution of the prototypes.
        layer: (n,) int64, the layer that holds the object's mask.
        mark: (n,) int64, the value that the pixels of the object have in that layer.
        image: (n,) int64, image within the batch.
        cells: (n, 4) int64, the cells of the object's box: first column, first row, and the ones after the last.
    """

    masks: torch.Tensor
    layer: torch.Tensor
    mark: torch.Tensor
    image: torch.Tensor
    cells: torch.Tensor


class Chunk(NamedTuple):
    """A few objects, the rows (pairs) of each, and the region of the prototypes that holds their boxes.

    Attributes:
        objects: (k,) int64.
        rows: (k, r) int64.
        ys, xs: the region, in cells.
    """

    objects: torch.Tensor
    rows: torch.Tensor
    ys: slice
    xs: slice


class SegmentationLoss:
    """YOLOv5's loss of boxes, masks, objectness and classes. The gain of the masks is that of the boxes.

    Args:
        model: as for `DetectionLoss`, its head a `Segment`.
        hyp: as for `DetectionLoss`.
        overlap: masks come as one index map per image instead of one mask per object.
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
            masks: with `overlap` (B, H, W) integers: 0 is background, k the k-th of the image's rows of `targets`. Else
                (n, H, W) of 0 and 1. Masks of another size are resized to that of the prototypes (nearest).

        Returns:
            The loss (1,), times the batch size, and its detached parts (4,): box, seg, obj, cls, each with its gain.
        """
        raw, prototypes = predictions
        matches = self.detection.match(raw, targets)
        box, obj, cls = self.detection.terms(matches)
        with torch.autocast(prototypes.device.type, enabled=False):  # the products below need full precision
            seg = self.mask_term(matches, prototypes.float(), targets.float(), masks)
        gains = [self.hyp[name] for name in ("box", "box", "obj", "cls")]
        parts = torch.stack([term * gain for term, gain in zip((box, seg, obj, cls), gains, strict=True)])
        return parts.sum().view(1) * len(prototypes), parts.detach()

    def mask_term(
        self, matches: Matches, prototypes: torch.Tensor, targets: torch.Tensor, masks: torch.Tensor
    ) -> torch.Tensor:
        """The mask loss before its gain: means over the pairs of each image and level, summed, and divided by B."""
        head = self.detection.head
        coefficients, of_row = matches.rows[:, 5 + head.nc :], matches.assignment.target  # (R, nm), (R,)
        weight = _share_of_image(matches.assignment, len(prototypes))
        sides = targets[:, 4:6].prod(1)[of_row] * prototypes[0, 0].numel()  # cells in the box, with fractions
        weight = torch.where(weight > 0, weight / sides, 0.0)
        wanted = _mask_targets(targets, masks, prototypes.shape, self.overlap)
        if len(of_row) == len(targets) * 3 * head.na * head.nl:
            chunks = _chunks_of_whole_images(of_row, wanted, prototypes.shape[1])
        else:  # rows without a pair were dropped, so values are at hand
            chunks = _chunks_of_one_object(of_row, wanted)
        return _MaskTerm.apply(coefficients, prototypes, weight, wanted, chunks)


class _MaskTerm(torch.autograd.Function):
    """Σ weight · Σ over the box of the cross entropy of coefficients · prototypes, computed with its gradients."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        coefficients: torch.Tensor,
        prototypes: torch.Tensor,
        weight: torch.Tensor,
        wanted: MaskTargets,
        chunks: Iterator[Chunk],
    ) -> torch.Tensor:
        total = prototypes.new_zeros(())
        learns = any(ctx.needs_input_grad[:2])
        gradients = (torch.zeros_like(coefficients), torch.zeros_like(prototypes)) if learns else None
        for objects, rows, ys, xs in chunks:
            image = wanted.image[objects]
            region = prototypes[:, :, ys, xs][image]  # (k, nm, y, x)
            cells, own, share = region.flatten(2), coefficients[rows], weight[rows]
            inside = _inside(wanted.cells[objects], ys, xs).to(region)  # (k, cells)
            mask = (wanted.masks[:, ys, xs][wanted.layer[objects]] == wanted.mark[objects, None, None]).flatten(1)
            mask = mask * inside
            logits = own @ cells  # (k, r, cells)
            entropy = softplus(logits) @ inside[..., None] - logits @ mask[..., None]
            total += (entropy[..., 0] * share).sum()
            if gradients is not None:
                slope = logits.sigmoid_().mul_(inside[:, None]).sub_(mask[:, None]).mul_(share[..., None])
                gradients[0][rows] = slope @ cells.mT
                gradients[1][:, :, ys, xs].index_add_(0, image, (own.mT @ slope).view_as(region))
        if gradients is not None:
            ctx.save_for_backward(*gradients)
        return total

    @staticmethod
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        coefficients, prototypes = ctx.saved_tensors
        return coefficients * slope, prototypes * slope, None, None, None


def _share_of_image(assignment: Assignment, images: int) -> torch.Tensor:
    """The weight (R,) of each pair: 1 / (valid pairs of its image at its level · number of images)."""
    valid, image = assignment.valid.float(), assignment.cell[:, 0]
    shares = []
    for own, where in zip(assignment.by_level(valid), assignment.by_level(image), strict=True):
        pairs = own.new_zeros(images).index_add_(0, where, own)
        shares.append(own / (pairs.clamp(min=1) * images)[where])
    return torch.cat(shares)


def _mask_targets(targets: torch.Tensor, masks: torch.Tensor, shape: torch.Size, overlap: bool) -> MaskTargets:
    """The target masks of `targets` (n, 6) and `masks` for prototypes of `shape` (B, nm, h, w)."""
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
    cells = torch.stack([edge.ceil().clamp(0, limit).long() for edge, limit in edges], 1)
    if not overlap:
        return MaskTargets(masks, number, torch.ones_like(number), image, cells)
    order = image.argsort(stable=True)
    ordered = image[order]
    rank = torch.empty_like(image).scatter_(0, order, number - torch.searchsorted(ordered, ordered))
    return MaskTargets(masks, image, rank + 1, image, cells)


def _chunks_of_one_object(of_row: torch.Tensor, wanted: MaskTargets) -> Iterator[Chunk]:
    """Each object alone with its pairs, in the region of its box. This reads values."""
    order = of_row.argsort(stable=True)
    rows = order.split(of_row.bincount(minlength=len(wanted.image)).tolist())
    for i, (x0, y0, x1, y1) in enumerate(wanted.cells.tolist()):
        if len(rows[i]) and x0 < x1 and y0 < y1:
            yield Chunk(torch.tensor([i]), rows[i][None], slice(y0, y1), slice(x0, x1))


def _chunks_of_whole_images(of_row: torch.Tensor, wanted: MaskTargets, nm: int) -> Iterator[Chunk]:
    """A few objects at a time over whole images, if all objects have equally many rows. This reads no values."""
    count = len(wanted.image)
    if not count:
        return
    rows = of_row.argsort(stable=True).view(count, -1)
    height, width = wanted.masks.shape[1:]
    floats = 3 * rows.shape[1] + 2 * nm  # per cell: three for each row, the prototypes and their gradients
    few = max(1, CHUNK_BYTES // (4 * floats * height * width))
    for objects, chunk in zip(torch.arange(count, device=rows.device).split(few), rows.split(few), strict=True):
        yield Chunk(objects, chunk, slice(height), slice(width))


def _inside(boxes: torch.Tensor, ys: slice, xs: slice) -> torch.Tensor:
    """(k, cells) bool: which of the cells `ys`, `xs` lie in the `boxes` (k, 4)."""
    x0, y0, x1, y1 = boxes[:, :, None].unbind(1)
    row = torch.arange(ys.start or 0, ys.stop, device=boxes.device)
    column = torch.arange(xs.start or 0, xs.stop, device=boxes.device)
    rows, columns = (row >= y0) & (row < y1), (column >= x0) & (column < x1)
    return (rows[:, :, None] & columns[:, None]).flatten(1)
