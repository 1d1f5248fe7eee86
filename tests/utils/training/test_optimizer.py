"""Parameter groups, and one SGD step by hand."""

from __future__ import annotations

import copy
from collections.abc import Callable
from unittest import mock

import pytest
import torch
from torch import nn

from utils.errors import UserError
from utils.training.optimizer import (
    OPTIMIZERS,
    is_fused,
    load_optimizer_state,
    parameter_groups,
    smart_optimizer,
    step_if,
)

Making = Callable[[nn.Module, str], torch.optim.Optimizer]
FUSED = pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])


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


def _plain(model: nn.Module, name: str) -> torch.optim.Optimizer:
    return smart_optimizer(model, name, lr=0.01, momentum=0.9, decay=0.01)


def _fused(model: nn.Module, name: str) -> torch.optim.Optimizer:
    """As on CUDA: PyTorch has fused optimisers for the CPU, too."""
    with mock.patch.object(torch.Tensor, "is_cuda", True):
        return _plain(model, name)


@FUSED
def test_fused_on_cuda_alone_and_with_the_same_steps(name: str) -> None:
    model = network()
    twin = copy.deepcopy(model)
    plain, fused = _plain(model, name), _fused(twin, name)
    assert (is_fused(plain), is_fused(fused)) == (False, True)
    _steps(plain, model, 3)
    _steps(fused, twin, 3)
    for own, other in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(own, other)


def test_rmsprop_has_no_fused_form() -> None:
    assert not is_fused(_fused(network(), "RMSProp"))


@FUSED
@pytest.mark.parametrize(("first", "then"), [(_plain, _fused), (_fused, _plain), (_fused, _fused)])
@pytest.mark.parametrize("before", [0, 2])
def test_a_training_goes_on_with_the_other_way_of_stepping(name: str, first: Making, then: Making, before: int) -> None:
    model = network()
    optimizer = first(model, name)
    _steps(optimizer, model, before)
    twin = copy.deepcopy(model)
    other = then(twin, name)
    load_optimizer_state(other, copy.deepcopy(optimizer.state_dict()))
    assert is_fused(other) == (then is _fused)
    _steps(optimizer, model, 2, seed=1)
    _steps(other, twin, 2, seed=1)
    for own, found in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(own, found)


def _everything(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    kept = [value for parameter in model.parameters() for value in optimizer.state[parameter].values()]
    return [tensor.detach().clone() for tensor in [*model.parameters(), *kept]]


@FUSED
def test_a_step_that_is_left_out_changes_nothing(name: str) -> None:
    """The first one too, after which PyTorch's fused SGD alone would have momentum that was never written."""
    model = network()
    twin = copy.deepcopy(model)
    optimizer, undisturbed = _fused(model, name), _fused(twin, name)
    generator = torch.Generator().manual_seed(0)
    for finite in (False, True, False, True):
        before = _everything(model, optimizer)
        for parameter, other in zip(model.parameters(), twin.parameters(), strict=True):
            other.grad = torch.randn(parameter.shape, generator=generator)
            parameter.grad = other.grad.clone() if finite else torch.full_like(parameter, float("nan"))
        step_if(optimizer, torch.tensor(finite))
        if finite:
            undisturbed.step()
        elif before[len(list(model.parameters())) :]:  # Adam has nothing to remember before it was asked to step
            assert all(torch.equal(*pair) for pair in zip(before, _everything(model, optimizer), strict=True))
    for own, expected in zip(_everything(model, optimizer), _everything(twin, undisturbed), strict=True):
        assert torch.equal(own, expected)
