"""Parameter groups, and one SGD step by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from utils.errors import UserError
from utils.training.optimizer import OPTIMIZERS, parameter_groups, smart_optimizer


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Linear(4, 2), nn.LayerNorm(2))


def test_groups_partition_the_parameters() -> None:
    model = network()
    decayed, norms, biases = parameter_groups(model)
    assert [p.shape for p in decayed] == [model[0].weight.shape, model[2].weight.shape]
    assert [id(p) for p in norms] == [id(model[1].weight), id(model[3].weight)]
    assert len(biases) == 4
    assert len({id(p) for p in decayed + norms + biases}) == len(list(model.parameters()))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_only_weights_decay_and_biases_come_first(name: str) -> None:
    optimizer = smart_optimizer(network(), name, lr=0.1, momentum=0.9, decay=0.01)
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0, 0.01, 0]
    assert all(p.ndim == 1 for p in optimizer.param_groups[0]["params"])


def test_nesterov_sgd_step_by_hand() -> None:
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(model.weight, 2.0)
    optimizer = smart_optimizer(nn.Sequential(model), "SGD", lr=0.1, momentum=0.5, decay=0.01)
    model.weight.grad = torch.full_like(model.weight, 3.0)
    optimizer.step()
    gradient = 3.0 + 0.01 * 2.0
    assert model.weight.item() == pytest.approx(2.0 - 0.1 * (gradient + 0.5 * gradient))


def test_unknown_optimizer() -> None:
    with pytest.raises(UserError, match="unknown optimizer 'SDG'.*did you mean 'SGD'"):
        smart_optimizer(network(), "SDG")
