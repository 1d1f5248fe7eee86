"""Parameter groups, and one SGD step by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from utils.errors import UserError
from utils.training.optimizer import OPTIMIZERS, load_optimizer_state, parameter_groups, smart_optimizer


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


def _steps(optimizer: torch.optim.Optimizer, model: nn.Module, times: int, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(times):
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()


@pytest.mark.parametrize("fused", [False, True])
def test_how_steps_are_computed_is_not_loaded(fused: bool) -> None:
    """A state that was saved where another way served."""
    model = network()
    state = smart_optimizer(model).state_dict()
    for group in state["param_groups"]:
        group["fused"] = fused
    again = smart_optimizer(model)
    load_optimizer_state(again, state)
    assert [group["fused"] for group in again.param_groups] == [None] * 3


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_loaded_state_lies_in_memory_as_its_parameter(name: str) -> None:
    """A checkpoint holds it contiguous, and kernels for many tensors want all in one order."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)).to(memory_format=torch.channels_last)
    optimizer = smart_optimizer(model, name)
    _steps(optimizer, model, 1)
    state = optimizer.state_dict()
    for values in state["state"].values():
        values.update({key: value.contiguous() for key, value in values.items() if value.ndim})
    again = smart_optimizer(model, name)
    load_optimizer_state(again, state)
    found = 0
    for parameter, values in again.state.items():
        for key, value in values.items():
            if value.ndim:
                found += 1
                assert value.stride() == parameter.stride()
                assert torch.equal(value, optimizer.state[parameter][key])
    assert found >= 4


def test_state_of_other_parameters_is_refused() -> None:
    with pytest.raises(ValueError, match="parameter group"):
        load_optimizer_state(smart_optimizer(network()), smart_optimizer(nn.Linear(1, 1)).state_dict())
