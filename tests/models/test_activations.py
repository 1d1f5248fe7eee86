"""Activations by name: what is meant, what is refused, and that a default stays where it was set."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import nn

from models.activations import ACTIVATIONS, default_activation, make_activation
from models.common import Conv
from utils.errors import UserError


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_every_name_gives_its_module(name: str) -> None:
    for text in (name, f"nn.{name}", f"nn.{name}()", f"torch.nn.{name}()"):
        module = make_activation(text)
        assert isinstance(module, getattr(nn, name))
        assert type(module).__name__ == name


def test_arguments_are_literals() -> None:
    leaky = make_activation("nn.LeakyReLU(0.1, inplace=True)")
    assert isinstance(leaky, nn.LeakyReLU)
    assert (leaky.negative_slope, leaky.inplace) == (0.1, True)


def test_meaning_of_true_false_none_and_modules() -> None:
    module = nn.Mish()
    assert isinstance(make_activation(True), nn.SiLU)
    assert isinstance(make_activation(False), nn.Identity)
    assert isinstance(make_activation(None), nn.Identity)
    assert make_activation(module) is module


@pytest.mark.parametrize(
    ("act", "message"),
    [
        ("ReLu", "unknown activation 'ReLu'.*did you mean 'ReLU'"),
        ("nn.Relu6()", "did you mean 'ReLU6'"),
        ("nn.Conv2d(3, 3, 1)", "unknown activation"),
        ("__import__('os').getcwd()", "unknown activation"),
        ("ReLU(os)", "neither a name nor"),
        ("ReLU +", "neither a name nor"),
        ("SiLU(1, 2, 3, 4)", "SiLU"),
        (1, "not 1"),
        (nn.ReLU, "must be True, False, a name or a module"),
    ],
)
def test_what_is_not_an_activation_is_an_error(act: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_activation(act)  # type: ignore[arg-type]


def test_default_is_shared_within_and_gone_afterwards() -> None:
    with default_activation("ReLU6"):
        first, second, named = Conv(3, 4), Conv(4, 4), Conv(4, 4, act="ReLU")
        with default_activation(None):
            assert isinstance(Conv(3, 4).act, nn.SiLU)
        assert Conv(3, 4).act is first.act
    assert isinstance(first.act, nn.ReLU6)
    assert first.act is second.act
    assert type(named.act) is nn.ReLU
    assert isinstance(Conv(3, 4).act, nn.SiLU)


def test_default_is_reset_after_an_error() -> None:
    with pytest.raises(RuntimeError, match="stop"), default_activation("ReLU"):
        raise RuntimeError("stop")
    assert isinstance(Conv(3, 4).act, nn.SiLU)


def test_threads_do_not_see_each_others_default() -> None:
    barrier, seen = threading.Barrier(2), {}

    def build(name: str) -> None:
        with default_activation(name):
            barrier.wait(10)  # both defaults are set now
            seen[name] = type(Conv(3, 4).act).__name__
            barrier.wait(10)

    threads = [threading.Thread(target=build, args=(name,)) for name in ("ReLU", "Hardswish")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {"ReLU": "ReLU", "Hardswish": "Hardswish"}


def test_relu6_in_training_has_the_gradient_of_torchs_and_no_memory_of_its_own() -> None:
    x = torch.linspace(
        -9, 15, 49, dtype=torch.float64
    ).requires_grad_()  # 0 and 6, where the slope breaks, are among it
    expected = torch.nn.functional.relu6(x)
    weights = torch.arange(49.0).double()
    (gradient,) = torch.autograd.grad((expected * weights).sum(), x)

    made = x * 1
    found = make_activation("ReLU6")(made)
    assert found.data_ptr() == made.data_ptr()
    assert torch.equal(found, expected)
    assert torch.equal(torch.autograd.grad((found * weights).sum(), x)[0], gradient)
    with torch.no_grad():
        assert torch.equal(make_activation("ReLU6")(x), expected)


def test_a_convolution_with_relu6_keeps_two_tensors_for_the_gradient() -> None:
    """Its image, what the convolution made, and what the activation left of what the norm made of it."""
    layers = [Conv(4, 4, 3, act="ReLU6") for _ in range(3)]
    kept = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.dim() == 4 and tensor.shape[2] == 16:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        nn.Sequential(*layers)(torch.rand(1, 4, 16, 16)).sum()
    assert len(kept) == 1 + 2 * 3
