"""Frozen rows keep every tensor, BatchNorm statistics included."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from utils.errors import UserError
from utils.training.freeze import Freezer


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.yaml = {"backbone": [[], []], "head": [[]]}
        self.model = nn.Sequential(*(nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)) for _ in range(3)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x)


@pytest.mark.parametrize(
    ("freeze", "rows"),
    [
        ([0], []),
        ([2], [0, 1]),
        ([0, 2], [0, 2]),
        ([3], [0, 1, 2]),
        (2, [0, 1]),
        ("backbone", [0, 1]),
        (["backbone"], [0, 1]),
        (["backbone", 2], [0, 1, 2]),
    ],
)
def test_one_number_counts_several_name_rows(freeze: list[int | str] | int | str, rows: list[int]) -> None:
    assert Freezer(Net(), freeze).rows == rows


def test_frozen_rows_do_not_move() -> None:
    torch.manual_seed(0)
    net = Net()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    freezer = Freezer(net, [2])
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1)
    for _ in range(3):
        freezer.train(net)
        net(torch.randn(4, 2, 5, 5) + 3).square().mean().backward()
        optimizer.step()
    for key, value in net.state_dict().items():
        same = torch.equal(value, before[key])
        assert same == (not key.startswith("model.2")), key


@pytest.mark.parametrize("word", [7, -1, "backbon", 1.0])
def test_neither_a_row_nor_the_backbone(word: int) -> None:
    with pytest.raises(UserError, match=f"--freeze {word}: this model has rows 0 to 2; a row, or 'backbone'"):
        Freezer(Net(), [0, word])
