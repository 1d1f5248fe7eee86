"""ModelEMA against the formula, in float64 by hand."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from utils.training.ema import ModelEMA, state_places


def test_update_follows_the_formula() -> None:
    model = nn.Linear(2, 1).double()
    ema = ModelEMA(model, decay=0.9, tau=10)
    expected = model.weight.detach().clone()
    for update in range(1, 4):
        with torch.no_grad():
            model.weight.add_(1.0)
        ema.update(model)
        decay = 0.9 * (1 - math.exp(-update / 10))
        expected = decay * expected + (1 - decay) * model.weight.detach()
    torch.testing.assert_close(ema.ema.weight, expected)


def test_default_decay_ramps_to_0_9999() -> None:
    ema = ModelEMA(nn.Linear(1, 1))
    assert ema.decay_at(1) == 0.9999 * (1 - math.exp(-1 / 2000))
    assert abs(ema.decay_at(10**6) - 0.9999) < 1e-12


def test_integer_state_is_left_alone_and_copy_is_independent() -> None:
    model = nn.BatchNorm1d(3)
    ema = ModelEMA(model)
    model.train()(torch.randn(8, 3))
    ema.update(model)
    assert model.num_batches_tracked == 1
    assert ema.ema.num_batches_tracked == 0
    assert not ema.ema.weight.requires_grad
    assert model.weight.requires_grad
    assert not torch.equal(ema.ema.running_mean, torch.zeros(3))


def test_update_attr_copies_public_attributes() -> None:
    model = nn.Linear(1, 1)
    ema = ModelEMA(model)
    model.names = {0: "a"}  # type: ignore[assignment]
    ema.update_attr(model, include=("names",))
    assert ema.ema.names == {0: "a"}


def _network() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.Conv2d(4, 2, 1), nn.PReLU()))
    net.register_buffer("scratch", torch.zeros(2), persistent=False)
    return net.to(memory_format=torch.channels_last)


def _learn(net: nn.Module) -> None:
    with torch.no_grad():
        for tensor in net.state_dict().values():
            tensor.add_(torch.randn(tensor.shape).to(tensor.dtype))


def _by_state_dict(average: nn.Module, net: nn.Module, weight: float) -> None:
    current = net.state_dict()
    for name, tensor in average.state_dict().items():
        if tensor.is_floating_point():
            tensor.lerp_(current[name], weight)


def test_the_states_are_walked_once_and_the_average_is_the_same_to_the_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    net = _network()
    ema = ModelEMA(net)
    expected = copy.deepcopy(ema.ema)
    walks = []
    monkeypatch.setattr("utils.training.ema.state_places", lambda model: walks.append(model) or state_places(model))
    for update in range(1, 4):
        _learn(net)
        with monkeypatch.context() as context:
            context.setattr(nn.Module, "state_dict", None)
            ema.update(net)
        _by_state_dict(expected, net, 1 - ema.decay_at(update))
    assert walks == [net, ema.ema]
    for name, tensor in expected.state_dict().items():
        assert torch.equal(ema.ema.state_dict()[name], tensor), name
        assert ema.ema.state_dict()[name].stride() == net.state_dict()[name].stride(), name


def _moved(net: nn.Module, ema: ModelEMA) -> None:
    net.double().float()


def _loaded(net: nn.Module, ema: ModelEMA) -> None:
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    net.load_state_dict(state, assign=True)
    ema.ema.load_state_dict({name: tensor.clone() for name, tensor in ema.ema.state_dict().items()}, assign=True)


def _replaced(net: nn.Module, ema: ModelEMA) -> None:
    net[1].running_mean = torch.ones(4)
    net[0].weight = nn.Parameter(torch.ones(4, 3, 3, 3))
    ema.ema[1].running_var = torch.full((4,), 3.0)


@pytest.mark.parametrize("change", [_moved, _loaded, _replaced])
def test_tensors_may_be_bound_anew(change: Callable[[nn.Module, ModelEMA], None]) -> None:
    net = _network()
    ema = ModelEMA(net)
    ema.update(net)
    change(net, ema)
    expected = copy.deepcopy(ema.ema)
    _learn(net)
    ema.update(net)
    _by_state_dict(expected, net, 1 - ema.decay_at(2))
    for name, tensor in expected.state_dict().items():
        assert torch.equal(ema.ema.state_dict()[name], tensor), name


def test_a_copy_follows_its_own_average_and_another_model_is_followed() -> None:
    net, other = _network(), _network()
    ema = ModelEMA(net)
    ema.update(net)
    twin = copy.deepcopy(ema)
    assert twin._paired is None
    _learn(other)
    before = {name: tensor.clone() for name, tensor in ema.ema.state_dict().items()}
    twin.update(other)
    for name, tensor in ema.ema.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    ema.update(other)
    for name, tensor in ema.ema.state_dict().items():
        assert torch.equal(tensor, twin.ema.state_dict()[name]), name
