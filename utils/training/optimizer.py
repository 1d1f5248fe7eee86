"""The optimiser with its three parameter groups."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from utils.errors import UserError, nearest

OPTIMIZERS = ("SGD", "Adam", "AdamW", "RMSProp")
_NORM_LAYERS = tuple(v for k, v in vars(nn).items() if isinstance(v, type) and "Norm" in k)


def parameter_groups(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter], list[nn.Parameter]]:
    """Weights that decay, weights of normalisation layers, and biases. The last two have no weight decay."""
    decayed, norms, biases = [], [], []
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if name == "bias":
                biases.append(parameter)
            elif name == "weight" and isinstance(module, _NORM_LAYERS):
                norms.append(parameter)
            else:
                decayed.append(parameter)
    return decayed, norms, biases


def smart_optimizer(
    model: nn.Module, name: str = "SGD", lr: float = 0.01, momentum: float = 0.9, decay: float = 1e-5
) -> Optimizer:
    """The optimiser `name` with three groups: biases (whose learning rate falls in the warm-up), weights and norms.

    SGD uses Nesterov momentum; for Adam and AdamW `momentum` is beta1. Weight decay applies to the second group only.
    On CUDA all are fused (see `is_fused`) except RMSProp, which PyTorch has in no such form.
    """
    decayed, norms, biases = parameter_groups(model)
    groups = [
        {"params": biases, "weight_decay": 0.0},
        {"params": decayed, "weight_decay": decay},
        {"params": norms, "weight_decay": 0.0},
    ]
    fused = True if all(p.is_cuda and p.is_floating_point() for p in model.parameters()) else None
    try:
        if name == "SGD":  # without momentum there is no Nesterov momentum either
            sgd = torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=momentum > 0, fused=fused)
            _start_from_zero(sgd)
            return sgd
        if name == "Adam":
            return torch.optim.Adam(groups, lr=lr, betas=(momentum, 0.999), fused=fused)
        if name == "AdamW":
            return torch.optim.AdamW(groups, lr=lr, betas=(momentum, 0.999), fused=fused)
        if name == "RMSProp":
            return torch.optim.RMSprop(groups, lr=lr, momentum=momentum)
    except ValueError as error:
        raise UserError(f"--optimizer {name} cannot have momentum {momentum:g} and lr0 {lr:g}: {error}") from error
    raise UserError(f"unknown optimizer '{name}'; one of {', '.join(OPTIMIZERS)}{nearest(name, OPTIMIZERS)}")


def is_fused(optimizer: Optimizer) -> bool:
    """Whether `optimizer` is fused: one kernel updates many tensors and reads on the device whether to step."""
    return bool(optimizer.param_groups[0].get("fused"))


def step_if(optimizer: Optimizer, finite: torch.Tensor) -> None:
    """Call ``optimizer.step()`` if `finite`, a boolean scalar on the device of the parameters, is true.

    The fused `optimizer` reads it on the device, so the host does not wait for it. (It is passed in the way in which
    `torch.amp.GradScaler` tells a fused optimiser of an overflow.)
    """
    optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
    try:
        optimizer.step()
    finally:
        del optimizer.found_inf  # type: ignore[attr-defined]


def _start_from_zero(optimizer: Optimizer) -> None:
    """Give a fused SGD momentum of zeros, which before the first step means the same as none.

    Without it, if the first step is left out (in half precision it usually overflows), PyTorch's fused SGD would go on
    with momentum that was never written.
    """
    if not (isinstance(optimizer, torch.optim.SGD) and is_fused(optimizer)):
        return
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.requires_grad and optimizer.state[parameter].get("momentum_buffer") is None:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter, requires_grad=False)


def load_optimizer_state(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Load a `state` from `Optimizer.state_dict`, of an optimiser on any device.

    Whether `optimizer` is fused does not change. Tensors in the shape of a parameter get the memory layout of that
    parameter, which the kernels for many tensors need; in a checkpoint they are contiguous. Raises `ValueError` if the
    state belongs to other parameters.
    """
    ways = [{way: group[way] for way in ("fused", "foreach") if way in group} for group in optimizer.param_groups]
    if len(ways) == len(state["param_groups"]):
        groups = [{**saved, **way} for saved, way in zip(state["param_groups"], ways, strict=True)]
        state = {**state, "param_groups": groups}
    optimizer.load_state_dict(state)
    _start_from_zero(optimizer)
    for parameter, tensors in optimizer.state.items():
        for name, value in tensors.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                tensors[name] = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)
