"""The detection loss: its parts for boxes, objectness and classes, and the gains that weigh them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from utils.losses.assignment import Assignment, assign
from utils.losses.box import BoxLoss
from utils.losses.focal import QFL_BETA, BinaryLoss, smooth_bce
from utils.losses.gather import gather_rows, values_are_at_hand


class Matches(NamedTuple):
    """The predictions of all levels together with the objects that they answer for.

    Attributes:
        assignment: R pairs of a prediction and an object.
        rows: (R, no) float32 raw predictions of the pairs: xywh, objectness, classes, and whatever the head adds behind
            them; 0 in padding.
        objectness: (B·na·ny·nx,) float32 logits of all predictions of each level.
    """

    assignment: Assignment
    rows: torch.Tensor
    objectness: list[torch.Tensor]


class LossTerms(NamedTuple):
    """The parts of the loss: scalars, summed over the levels, before they are multiplied by their gains."""

    box: torch.Tensor
    obj: torch.Tensor
    cls: torch.Tensor


class DetectionLoss:
    """YOLOv5's loss: 1 − CIoU, and binary cross entropy for objectness and classes (variants: docs/losses.md).

    A mask loss is composed of it: it calls `match` once, `terms` for these three parts, and adds its own part.

    Args:
        model: a detection head, or a model whose last layer is one (data-parallel wrappers too). Of the head
            `na, nc, nl, anchors` (nl, na, 2) in grid units and `stride` are used, as they are at each call.
        hyp: box, obj, cls (gains, used as given), cls_pw, obj_pw, fl_gamma, anchor_t, and, if they are there, iou_loss,
            focal_iou, qfl, label_smoothing; ``model.hyp`` if None.
        autobalance: let the objectness weights of the levels follow their losses.
    """

    def __init__(self, model: Any, hyp: Mapping[str, Any] | None = None, autobalance: bool = False) -> None:
        model = getattr(model, "module", model)
        self.hyp = hyp if hyp is not None else model.hyp
        self.head = model if hasattr(model, "nl") else model.model[-1]
        self.box_loss = BoxLoss(self.hyp.get("iou_loss", "ciou"), self.hyp.get("focal_iou", 0.0))
        quality = self.hyp.get("qfl", False)
        gamma = self.hyp["fl_gamma"] or (QFL_BETA if quality else 0.0)
        self.class_loss = BinaryLoss(self.hyp["cls_pw"], gamma, quality=quality)
        self.objectness_loss = BinaryLoss(self.hyp["obj_pw"], gamma, quality=quality)
        self.positive, self.negative = smooth_bce(self.hyp.get("label_smoothing", 0.0))
        self.autobalance = autobalance
        self._reference_level = self.head.stride.tolist().index(16) if autobalance else 0
        weights = {3: (4.0, 1.0, 0.4)}.get(self.head.nl, (4.0, 1.0, 0.25, 0.06, 0.02))  # P3 first
        self.balance: list[float | torch.Tensor] = list(weights[: self.head.nl])

    def __call__(self, predictions: Sequence[torch.Tensor], targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss of a batch.

        Args:
            predictions: per level (B, na, ny, nx, no) raw outputs of the head, any floating type.
            targets: (n, 6) image index, class, xywh normalised; n may be 0.

        Returns:
            The loss (1,), times the batch size, and its detached parts (3,): box, obj, cls, each with its gain.
        """
        terms = self.terms(self.match(predictions, targets))
        parts = torch.stack([term * self.hyp[name] for name, term in zip(LossTerms._fields, terms, strict=True)])
        return parts.sum().view(1) * len(predictions[0]), parts.detach()

    def match(self, predictions: Sequence[torch.Tensor], targets: torch.Tensor) -> Matches:
        """Pair the predictions of all levels with the objects. The arguments are those of the loss."""
        grids = [(prediction.shape[2], prediction.shape[3]) for prediction in predictions]
        assignment = assign(targets.float(), self.head.anchors.float(), grids, self.hyp["anchor_t"])
        if values_are_at_hand(targets):
            assignment = assignment.compact()
        rows, objectness = gather_rows(predictions, assignment.cell, assignment.valid, assignment.counts)
        return Matches(assignment, rows, objectness)

    def terms(self, matches: Matches) -> LossTerms:
        """The three parts of the loss before their gains. With `autobalance` it moves the weights of the levels."""
        assignment, rows, objectness = matches
        raw, logits, classes, _ = rows.split((4, 1, self.head.nc, rows.shape[1] - 5 - self.head.nc), 1)
        weight = assignment.weight
        boxes = self.box_loss(_decode(raw, assignment.anchors), assignment.xywh)
        levels = self._objectness(objectness, logits[:, 0], boxes.quality, assignment)
        obj = torch.stack([level * balance for level, balance in zip(levels, self.balance, strict=True)]).sum()
        if self.autobalance:
            self._rebalance(levels)
        return LossTerms((boxes.loss * weight).sum(), obj, self._classes(classes, assignment.classes, weight))

    def _rebalance(self, levels: list[torch.Tensor]) -> None:
        """Move the weights of the levels towards the inverse of their objectness losses; that of stride 16 stays 1."""
        inverse = 0.0001 / torch.stack(levels).detach()
        moved = [balance * 0.9999 + new for balance, new in zip(self.balance, inverse.unbind(), strict=True)]
        self.balance = [balance / moved[self._reference_level] for balance in moved]

    def _objectness(
        self, everywhere: Sequence[torch.Tensor], logits: torch.Tensor, quality: torch.Tensor, assignment: Assignment
    ) -> list[torch.Tensor]:
        """For each level the mean over all predictions. The target of a prediction that owns an object is how well its
        box fits; the target of all others is 0.

        It is computed as if all targets were 0 and corrected at the few owners, so that no dense target is needed.
        """
        correction = (self.objectness_loss(logits, quality) - self.objectness_loss(logits, 0)) * assignment.owner
        return [
            (self.objectness_loss(level, 0).sum() + own.sum()) / level.numel()
            for level, own in zip(everywhere, assignment.by_level(correction), strict=True)
        ]

    def _classes(self, logits: torch.Tensor, classes: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """The weighted sum over pairs of the mean over classes; 0 if there is one class only."""
        if self.head.nc == 1:
            return logits.new_zeros(())
        true = logits.gather(1, classes[:, None])[:, 0]
        correction = self.class_loss(true, self.positive) - self.class_loss(true, self.negative)
        total = self.class_loss(logits, self.negative).sum(1) + correction
        return (total * weight).sum() / self.head.nc


def _decode(raw: torch.Tensor, anchors: torch.Tensor) -> torch.Tensor:
    """Decode outputs `raw` (R, 4) to xywh (R, 4) in grid units, relative to the corner of the cell."""
    scaled = raw.sigmoid() * 2
    return torch.cat((scaled[:, :2] - 0.5, scaled[:, 2:].square() * anchors), 1)


def scale_gains(hyp: dict[str, Any], nl: int, nc: int, imgsz: tuple[int, int]) -> dict[str, Any]:
    """A copy of `hyp` with the gains scaled to a network. They are given for 3 levels, 80 classes and 640×640 pixels.

    box · 3/nl, cls · nc/80 · 3/nl, obj · (area / 640²) · 3/nl.
    """
    levels = 3 / nl
    area = imgsz[0] * imgsz[1] / 640**2
    return {
        **hyp,
        "box": hyp["box"] * levels,
        "cls": hyp["cls"] * nc / 80 * levels,
        "obj": hyp["obj"] * area * levels,
    }
