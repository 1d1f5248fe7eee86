from __future__ import annotations

import pytest
import torch

from utils.losses.assignment import Assignment, assign

ANCHORS = torch.tensor([[[1.0, 1.0], [10.0, 10.0]]])  # of one level
GRID = [(4, 8)]


def _targets(*rows: list[float]) -> torch.Tensor:
    """(image, class, x, y, w, h in cells of an 8 × 4 grid)."""
    return torch.tensor(rows).view(-1, 6) / torch.tensor([1, 1, 8, 4, 8, 4])


def _cells(found: Assignment) -> list[tuple[int, ...]]:
    """(image, anchor, row, column) of the valid pairs, sorted."""
    return sorted(map(tuple, found.cell[found.valid].tolist()))


def test_own_cell_and_the_two_nearest_neighbours() -> None:
    found = assign(_targets([1, 7, 3.25, 1.75, 2, 1]), ANCHORS, GRID)
    assert _cells(found) == [(1, 0, 1, 2), (1, 0, 1, 3), (1, 0, 2, 3)]
    valid = found.valid
    assert found.classes[valid].tolist() == [7, 7, 7]
    assert found.anchors[valid].tolist() == [[1, 1]] * 3
    torch.testing.assert_close(
        found.xywh[valid], torch.tensor([[0.25, 0.75, 2, 1], [1.25, 0.75, 2, 1], [0.25, -0.25, 2, 1]])
    )
    assert found.weight.sum() == 1
    assert found.weight[valid].tolist() == [pytest.approx(1 / 3)] * 3


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        (0.3, 0.3, [(0, 0)]),  # the neighbours before are off the grid
        (7.7, 3.7, [(3, 7)]),  # and those after
        (0.7, 3.3, [(2, 0), (3, 0), (3, 1)]),
        (2.5, 1.5, [(1, 2)]),  # halfway: no nearest neighbour
        (2.0, 1.5, [(1, 1), (1, 2)]),  # on the line: both sides, once each
        (8.0, 4.0, [(3, 7)] * 3),  # on the image's corner: all three fall into the last cell
    ],
)
def test_cells_by_hand(x: float, y: float, expected: list[tuple[int, int]]) -> None:
    found = assign(_targets([0, 0, x, y, 1, 1]), ANCHORS, GRID)
    assert [(row, column) for _, _, row, column in _cells(found)] == sorted(expected)


def test_the_shape_ratio_is_exclusive_in_both_directions() -> None:
    for size, fits in ((3.99, True), (4.0, False), (0.2501, True), (0.25, False)):
        for box in ([size, 1.0], [1.0, size]):
            found = assign(_targets([0, 0, 2.5, 1.5, *box]), ANCHORS, GRID, anchor_t=4.0)
            assert len(_cells(found)) == int(fits), (size, box)


def test_a_box_without_width_is_nobodys() -> None:
    found = assign(_targets([0, 0, 2.5, 1.5, 0, 0]), ANCHORS, GRID)
    assert not found.valid.any()
    assert torch.isfinite(found.xywh).all()
    assert found.weight.sum() == 0


def test_no_objects() -> None:
    found = assign(torch.zeros(0, 6), ANCHORS, GRID)
    assert found.cell.shape == (0, 4)
    assert found.xywh.shape == (0, 4)
    assert found.owner.shape == (0,)


def test_one_owner_for_each_prediction_and_it_is_the_last() -> None:
    generator = torch.Generator().manual_seed(0)
    targets = torch.rand(60, 6, generator=generator) * torch.tensor([2, 3, 1, 1, 0.5, 0.5])
    found = assign(targets.floor() + targets % 1 * torch.tensor([0, 0, 1, 1, 1, 1]), ANCHORS, GRID)
    owners = found.cell[found.owner]
    assert len(owners.unique(dim=0)) == len(owners)
    assert set(map(tuple, owners.tolist())) == set(_cells(found))
    assert found.valid.sum() > len(owners), "the scene is crowded enough to mean something"
    assert not (found.owner & ~found.valid).any()


def test_of_two_objects_in_one_cell_the_later_owns() -> None:
    found = assign(_targets([0, 0, 2.5, 1.5, 1, 1], [0, 1, 2.5, 1.5, 1, 1]), ANCHORS, GRID)
    assert found.target[found.owner].tolist() == [1]


@pytest.mark.parametrize("targets", [0, 40])
def test_all_levels_at_once_are_each_level_alone(targets: int) -> None:
    generator = torch.Generator().manual_seed(1)
    objects = torch.rand(targets, 6, generator=generator) * torch.tensor([2, 3, 1, 1, 0.5, 0.5])
    objects[:, :2].floor_()
    anchors = torch.rand(3, 2, 2, generator=generator) * 3 + 0.5
    grids = [(16, 24), (8, 12), (4, 6)]
    for together in (assign(objects, anchors, grids), assign(objects, anchors, grids).compact()):
        alone = [assign(objects, anchors[i : i + 1], grids[i : i + 1]) for i in range(3)]
        if together.valid.all():
            alone = [level.compact() for level in alone]
        assert together.counts == tuple(len(level.cell) for level in alone)
        for name in ("cell", "target", "classes", "xywh", "anchors", "valid", "owner", "weight"):
            assert torch.equal(getattr(together, name), torch.cat([getattr(level, name) for level in alone])), name
