"""Target assignment: which predictions answer for which objects, by anchor shape and neighbouring cells as in YOLOv5.

An object is assigned to every anchor of a level whose width and height are within a factor `anchor_t` of its own, in
the cell that holds its centre, in the nearest cell to its left or right, and in the nearest cell above or below. If the
centre lies exactly on the line between two cells, each of the two gets it once; halfway between two lines there is no
nearest neighbour.

`assign` treats all levels at once, because on a GPU the time depends on the number of operations. It makes levels × 3
cells × anchors × objects rows, whatever their values are, and `valid` says which of them count. So no one has to wait
for a GPU, and compilers and fake tensors pass through. On a CPU two thirds of the rows would be wasted work (6 of 37 ms
per step at batch 16 on one core), so there `compact` drops them first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

Grids = Sequence[tuple[int, int]]  # (ny, nx) of each level


@dataclass(frozen=True)
class Assignment:
    """R pairs of a prediction and an object, level after level. Rows that are not `valid` are padding.

    Attributes:
        counts: how many of the rows belong to each level.
        cell: (R, 4) int64, the prediction's image, anchor, row and column; within its level for padding too.
        target: (R,) int64, row of the targets.
        classes: (R,) int64, class of the object.
        xywh: (R, 4) the object's box in grid units, its centre relative to the cell's corner; 1s in padding.
        anchors: (R, 2) width and height of the prediction's anchor in grid units.
        valid: (R,) bool.
        owner: (R,) bool: of all valid pairs of one prediction, exactly one owns its objectness target.
    """

    counts: tuple[int, ...]
    cell: torch.Tensor
    target: torch.Tensor
    classes: torch.Tensor
    xywh: torch.Tensor
    anchors: torch.Tensor
    valid: torch.Tensor
    owner: torch.Tensor

    @property
    def weight(self) -> torch.Tensor:
        """Weights (R,) float32 that make a sum over rows the sum over levels of the means over their valid rows.

        A level without valid rows adds 0.
        """
        return torch.cat([valid / valid.sum().clamp(min=1) for valid in self.by_level(self.valid)])

    def by_level(self, rows: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Split `rows` (R, …) into views of the rows of each level."""
        return rows.split(list(self.counts))

    def compact(self) -> Assignment:
        """Keep only the valid rows, in their order. This reads values, so it waits for a GPU."""
        counts = tuple(int(valid.sum()) for valid in self.by_level(self.valid))
        rows = self.valid.nonzero()[:, 0]
        names = ("cell", "target", "classes", "xywh", "anchors", "valid", "owner")
        return Assignment(counts, *(getattr(self, name)[rows] for name in names))


def assign(targets: torch.Tensor, anchors: torch.Tensor, grids: Grids, anchor_t: float = 4.0) -> Assignment:
    """Assign the objects to predictions of all levels.

    Args:
        targets: (n, 6) float32: image index, class, xywh normalised.
        anchors: (L, na, 2) width and height in grid units.
        grids: the cells of each of the L levels.
        anchor_t: largest ratio of object to anchor, and of anchor to object, in width and in height (exclusive).

    Returns:
        3 × na × n rows per level.
    """
    levels, na, n = *anchors.shape[:2], len(targets)
    shape = (levels, 3, na, n)
    # filled on the device, because copying these numbers from the host would make it wait for a GPU
    size = torch.stack([targets.new_full((), cells) for ny, nx in grids for cells in (nx, ny)]).view(levels, 1, 2)
    xy, wh = targets[:, 2:4] * size, targets[:, 4:6] * size  # (L, n, 2)

    ratio = wh[:, None] / anchors[:, :, None]  # (L, na, n, 2)
    fits = torch.maximum(ratio, 1 / ratio).amax(-1) < anchor_t  # (L, na, n)

    step = _nearest_neighbour(xy, size)
    (x, y), (beside, above), (step_x, step_y) = (pair.unbind(-1) for pair in (xy, xy + step / 2, step))
    own_beside_above = torch.stack((xy, torch.stack((beside, y), -1), torch.stack((x, above), -1)), 1)  # (L, 3, n, 2)
    limit = size.long()[:, None]
    position = own_beside_above.long().clamp(min=0).minimum(limit - 1)
    steps = torch.stack((torch.full_like(step_x, -1), step_x, step_y), 1)  # (L, 3, n), 0 where there is no such cell
    valid = ((steps != 0)[:, :, None] & fits[:, None]).flatten()

    image, number = targets[:, 0].long(), torch.arange(n, device=targets.device)
    anchor = torch.arange(na, device=targets.device)[:, None]
    column, row = position[:, :, None].unbind(-1)  # (L, 3, 1, n)
    nx, ny = limit[..., None, :].unbind(-1)  # (L, 1, 1, 1)
    flat = ((image * na + anchor) * ny + row) * nx + column
    level = torch.arange(levels, device=targets.device).view(-1, 1, 1, 1)

    # YOLOv5 writes objectness targets in this order (cell: own, left, above, right, below; anchor; object), last wins
    kind = steps.long() + torch.arange(1, 4, device=targets.device)[:, None]
    # that is own 0, left 1, above 2, right 3, below 4
    order = (kind[:, :, None] * na + anchor) * n + number
    orders = max(5 * na * n, 1)
    key = (flat * levels + level) * orders + order
    offset = (xy[:, None] - position)[:, :, None]
    xywh = torch.cat([pair.expand(*shape, 2) for pair in (offset, wh[:, None, None])], -1).view(-1, 4)
    return Assignment(
        counts=(3 * na * n,) * levels,
        cell=torch.stack([index.expand(shape) for index in (image, anchor, row, column)], -1).view(-1, 4),
        target=number.expand(shape).flatten(),
        classes=targets[:, 1].long().expand(shape).flatten(),
        xywh=torch.where(valid[:, None], xywh, 1.0),
        anchors=anchors[:, None, :, None].expand(*shape, 2).reshape(-1, 2),
        valid=valid,
        owner=_last_of_each(key.flatten(), orders, valid),
    )


def _nearest_neighbour(position: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
    """In the shape of `position`: −1 if the nearest other cell is the one before, +1 if it is the one after, else 0."""
    from_end = cells - position
    before = (position % 1 < 0.5) & (position > 1)
    after = (from_end % 1 < 0.5) & (from_end > 1) & ~before
    return after.to(position.dtype) - before.to(position.dtype)


def _last_of_each(key: torch.Tensor, orders: int, valid: torch.Tensor) -> torch.Tensor:
    """Mark (R,) the last of the valid rows whose `key` is equal up to the remainder by `orders`, which is their order.

    An indexed write with repeated indices would leave the choice to chance on a GPU; sorting makes it certain.
    """
    key, position = torch.where(valid, key, -1).sort()
    prediction = key // orders
    last = torch.ones_like(valid)
    last[:-1] = prediction[1:] != prediction[:-1]
    return torch.zeros_like(valid).scatter(0, position, last) & valid
