"""Which predictions answer for which objects: YOLOv5's assignment by anchor shape and neighbouring cells.

An object is given to every anchor of a level whose width and height are within a factor `anchor_t` of its own, in the
cell that holds its centre and in the nearest cell left or right and the nearest one above or below. A centre exactly
on the line between two cells goes to both once; halfway between two lines it has no nearest neighbour.

`assign_level` makes 3 cells × anchors × objects rows, whatever the values, and `valid` says which count: so a GPU is
never waited for, and compilers and fake tensors pass through. On a CPU two thirds of the rows would be wasted work, 6
of 37 ms a step at batch 16 on one core; there `compact` drops them first.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch


@dataclass(frozen=True)
class LevelAssignment:
    """R pairs (prediction, object) of one level; rows without `valid` are padding.

    Attributes:
        cell: (R,) int64, position of the prediction in the level's flattened (B, na, ny, nx); in range for padding too.
        image: (R,) int64, image within the batch.
        target: (R,) int64, row of the targets.
        classes: (R,) int64, class of the object.
        xywh: (R, 4) the object's box in grid units, its centre relative to the cell's corner; 1s in padding.
        anchors: (R, 2) width and height of the prediction's anchor in grid units.
        valid: (R,) bool.
        owner: (R,) bool: of all valid pairs of one prediction, exactly one owns its objectness target.
    """

    cell: torch.Tensor
    image: torch.Tensor
    target: torch.Tensor
    classes: torch.Tensor
    xywh: torch.Tensor
    anchors: torch.Tensor
    valid: torch.Tensor
    owner: torch.Tensor

    @property
    def weight(self) -> torch.Tensor:
        """(R,) float32 that turns a sum over rows into the mean over valid rows (into 0 where there are none)."""
        return self.valid / self.valid.sum().clamp(min=1)

    def compact(self) -> LevelAssignment:
        """The valid rows alone, in their order. Reads values: a GPU is waited for."""
        rows = self.valid.nonzero()[:, 0]
        return LevelAssignment(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})


def assign_level(
    targets: torch.Tensor, anchors: torch.Tensor, grid: tuple[int, int], anchor_t: float = 4.0
) -> LevelAssignment:
    """Pair objects with the predictions of one level.

    Args:
        targets: (n, 6) float32: image index, class, xywh normalised.
        anchors: (na, 2) width and height in grid units.
        grid: (ny, nx), the level's cells.
        anchor_t: largest ratio of object to anchor, and of anchor to object, in width and in height (exclusive).

    Returns:
        3 × na × n rows.
    """
    ny, nx = grid
    n, na = len(targets), len(anchors)
    x, y, w, h = targets[:, 2] * nx, targets[:, 3] * ny, targets[:, 4] * nx, targets[:, 5] * ny  # (n,) each

    ratio = torch.stack((w, h), -1) / anchors[:, None]  # (na, n, 2)
    fits = torch.maximum(ratio, 1 / ratio).amax(-1) < anchor_t  # (na, n)

    step_x, step_y = _nearest_neighbour(x, nx), _nearest_neighbour(y, ny)
    column = torch.stack((x, x + step_x / 2, x)).long().clamp(0, nx - 1)  # (3, n): own cell, beside, above or below
    row = torch.stack((y, y, y + step_y / 2)).long().clamp(0, ny - 1)
    exists = torch.stack((torch.ones_like(step_x), step_x, step_y)) != 0

    shape = (3, na, n)
    valid = exists[:, None] & fits
    image = targets[:, 0].long()
    anchor = torch.arange(na, device=targets.device)[:, None]
    cell = ((image * na + anchor) * ny + row[:, None]) * nx + column[:, None]
    offset_x, offset_y = (x - column)[:, None], (y - row)[:, None]
    xywh = torch.stack([v.expand(shape) for v in (offset_x, offset_y, w, h)], -1)

    # YOLOv5 writes objectness targets in this order (cell: own, left, above, right, below; anchor; object), last wins
    kind = torch.stack((torch.zeros_like(step_x), 2 + step_x, 3 + step_y))  # own 0, left 1, above 2, right 3, below 4
    order = (kind.long()[:, None] * na + anchor) * n + torch.arange(n, device=targets.device)
    return LevelAssignment(
        cell=cell.flatten(),
        image=image.expand(shape).flatten(),
        target=torch.arange(n, device=targets.device).expand(shape).flatten(),
        classes=targets[:, 1].long().expand(shape).flatten(),
        xywh=torch.where(valid[..., None], xywh, 1.0).view(-1, 4),
        anchors=anchors[None, :, None].expand(3, na, n, 2).reshape(-1, 2),
        valid=valid.flatten(),
        owner=_last_of_each(cell.flatten(), order.flatten(), valid.flatten()),
    )


def _nearest_neighbour(position: torch.Tensor, cells: int) -> torch.Tensor:
    """(n,) −1 if the cell before is the nearest other one, +1 if the one after is, 0 if that is off the grid."""
    from_end = cells - position
    before = (position % 1 < 0.5) & (position > 1)
    after = (from_end % 1 < 0.5) & (from_end > 1) & ~before
    return after.to(position.dtype) - before.to(position.dtype)


def _last_of_each(cell: torch.Tensor, order: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """(R,) bool: the valid row of the highest `order` among those that share its `cell`.

    An indexed write with repeated indices would leave this to chance on a GPU; sorting settles it everywhere.
    """
    rows = 5 * max(len(cell) // 3, 1)  # above every order
    key = torch.where(valid, cell * rows + order, -1)
    key, position = key.sort()
    last = torch.ones_like(valid)
    last[:-1] = key[1:] // rows != key[:-1] // rows
    return torch.zeros_like(valid).scatter(0, position, last) & valid
