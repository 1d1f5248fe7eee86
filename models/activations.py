"""Activations by name, and the default activation of the convolutions of a network."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from utils.errors import UserError, first_line, nearest
from utils.yamls import read_expression


class _Clamp6(torch.autograd.Function):
    """ReLU6 in the memory of its input. It saves only its output, which is all that the gradient needs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = x.clamp_(0, 6)
        ctx.mark_dirty(y)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return torch.ops.aten.hardtanh_backward(gradient, y, 0, 6)


class ReLU6(nn.ReLU6):
    """PyTorch's ReLU6, but in training it overwrites its input, the output of a convolution or a norm.

    PyTorch's own saves its input for the gradient, even in place, with which a MobileNetV2 needs a quarter more memory.
    """

    def forward(self, x: Tensor) -> Tensor:
        return _Clamp6.apply(x) if torch.is_grad_enabled() and x.requires_grad else super().forward(x)


ACTIVATIONS: dict[str, type[nn.Module]] = {
    cls.__name__: cls
    for cls in (
        nn.SiLU, nn.ReLU, ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.Mish, nn.Hardswish,
        nn.Hardsigmoid, nn.Hardtanh, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Identity,
    )
}  # fmt: skip

# Set while a network is being built, and never on a class, so that networks built in two threads keep their own. It
# holds the module itself, which all convolutions of one network then share, as they do in YOLOv5.
_default: ContextVar[nn.Module | None] = ContextVar("default_activation", default=None)


@contextmanager
def default_activation(act: str | nn.Module | None) -> Iterator[None]:
    """Within the block, ``act=True`` means `act`: a name, a module, or None for SiLU."""
    token = _default.set(nn.SiLU() if act is None else make_activation(act))
    try:
        yield
    finally:
        _default.reset(token)


def make_activation(act: bool | str | nn.Module | None) -> nn.Module:
    """The module that an ``act`` argument means.

    True means the default activation, which is SiLU unless `default_activation` has set another one. False and None
    mean identity. A name may be ``'ReLU6'``, ``'LeakyReLU(0.1)'`` or, as YOLOv5 writes it, ``'nn.ReLU6()'``. A module
    is returned as it is. Anything else is a `UserError`, because an activation must not vanish silently.
    """
    if act is True:
        default = _default.get()
        return nn.SiLU() if default is None else default
    if act is False or act is None:
        return nn.Identity()
    if isinstance(act, nn.Module):
        return act
    if isinstance(act, str):
        return _from_text(act)
    raise UserError(f"act must be True, False, a name or a module, not {act!r}")


def _from_text(text: str) -> nn.Module:
    try:
        node = read_expression(text)
        args, kwargs = [], {}
        if isinstance(node, ast.Call):
            args = [ast.literal_eval(a) for a in node.args]
            kwargs = {str(k.arg): ast.literal_eval(k.value) for k in node.keywords}
            node = node.func
        path = ast.unparse(node)
    except ValueError as error:
        raise UserError(f"activation '{text[:200]}' is neither a name nor 'Name(number, …)'") from error
    name = path.removeprefix("torch.").removeprefix("nn.")
    if name not in ACTIVATIONS:
        raise UserError(f"unknown activation '{text}'{nearest(name, ACTIVATIONS)}; known are {', '.join(ACTIVATIONS)}")
    try:
        return ACTIVATIONS[name](*args, **kwargs)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise UserError(f"activation '{text}': {first_line(error)}") from error
