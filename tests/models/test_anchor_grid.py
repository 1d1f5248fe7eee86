"""The anchor grid against loops over levels, anchors, rows and columns."""

from __future__ import annotations

import pytest
import torch

from models.anchor_grid import make_anchor_grid

STRIDE = torch.tensor([8.0, 16.0])
ANCHORS = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], [[0.5, 0.25], [2.0, 1.0], [4.0, 8.0]]])


def test_each_prediction_by_loop() -> None:
    sizes = [(2, 3), (1, 2)]
    centre, stride, anchors = make_anchor_grid(sizes, STRIDE, ANCHORS, like=torch.zeros(1))
    expected = [
        [x - 0.5, y - 0.5, float(STRIDE[level]), *(ANCHORS[level, a] * STRIDE[level]).tolist()]
        for level, (ny, nx) in enumerate(sizes)
        for a in range(3)
        for y in range(ny)
        for x in range(nx)
    ]
    assert torch.equal(torch.cat((centre, stride, anchors)).T, torch.tensor(expected))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_type_follows(dtype: torch.dtype) -> None:
    grid = make_anchor_grid([(2, 2), (1, 1)], STRIDE, ANCHORS, like=torch.zeros(1, dtype=dtype))
    assert {part.dtype for part in grid} == {dtype}
