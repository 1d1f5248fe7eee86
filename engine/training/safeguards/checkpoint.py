"""Checks that a checkpoint holds what a training can resume from, before any of it is used."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.optim import Optimizer

from engine.training.flags import training_parser
from models.checkpoints.checkpoint import Checkpoint, is_finite
from utils.errors import UserError, first_line

_ALWAYS = ("data", "epochs", "batch_size", "imgsz", "optimizer")  # options that every training of ours has stored
_MOST_EPOCHS = 1_000_000


@contextmanager
def reporting_damage(name: str, what: str) -> Iterator[None]:
    """Turn an error within the block into a `UserError`: `what` of the checkpoint `name` is not as it was saved."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise UserError(
            f"{name}: {what} does not fit this training or is damaged ({first_line(error)}); start from its weights "
            "with --weights, or resume an earlier checkpoint"
        ) from error


def check_progress(checkpoint: Checkpoint, name: str) -> None:
    """Raise `UserError` for counters that no training saves, and for options that no command line gives."""
    opt = checkpoint.opt or {}
    with reporting_damage(name, "its number of epochs"):
        _check(-1 <= checkpoint.epoch <= _MOST_EPOCHS and checkpoint.ema_updates >= 0, "an impossible count")
    with reporting_damage(name, "its best fitness"):
        _check(math.isfinite(checkpoint.best_fitness or 0.0), f"{checkpoint.best_fitness}")
    with reporting_damage(name, "its best epoch"):
        _check(-1 <= int(checkpoint.extra.get("best_epoch", 0)) <= _MOST_EPOCHS, "an impossible count")
    for key in _ALWAYS:
        if opt.get(key) is None:
            raise UserError(f"{name} does not hold the option '{key}' of its training, so it cannot be resumed")
    parser = training_parser("", data="data.yaml", project="runs", cfg="")
    known = vars(parser.parse_args([])).keys() - {"resume", "trust"}
    try:
        parser.keywords({key: value for key, value in opt.items() if key in known})
    except UserError as error:
        raise UserError(f"{name} is damaged: its option {error}; start from its weights with --weights") from error


def check_optimizer(state: Mapping[str, Any], optimizer: Optimizer, name: str) -> None:
    """Raise `UserError` where `state` is not what ``optimizer.state_dict()`` gives after some steps."""
    own = optimizer.state_dict()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    with reporting_damage(name, "its optimiser state"):
        groups, slots = state["param_groups"], state["state"]
        _check(len(groups) == len(own["param_groups"]), f"{len(groups)} groups of parameters")
        for given, mine in zip(groups, own["param_groups"], strict=True):
            _check(len(given["params"]) == len(mine["params"]), f"{len(given['params'])} parameters in a group")
            for key in ("lr", "momentum", "weight_decay"):
                if key in mine:
                    _check(type(given[key]) in (int, float) and math.isfinite(given[key]), f"{key} {given[key]!r:.80}")
        expected = _slots(optimizer)
        for index, values in slots.items():
            shape = parameters[index].shape
            _check(expected <= set(values), f"parameter {index} has {', '.join(map(str, values))[:80] or 'nothing'}")
            for key, value in values.items():
                if isinstance(value, torch.Tensor):
                    _check(value.shape == shape or value.ndim == 0, f"{key} {list(value.shape)} of {list(shape)}")
                    _check(is_finite(value), f"{key} of parameter {index} is not finite")


def check_scaler(state: Mapping[str, Any], name: str) -> None:
    """Raise `UserError` where `state` is not what a `GradScaler` gives."""
    with reporting_damage(name, "its loss scale"):
        for key in ("scale", "growth_factor", "backoff_factor", "growth_interval", "_growth_tracker"):
            value = state[key]
            _check(type(value) in (int, float) and math.isfinite(value) and value >= 0, f"{key} {value!r:.80}")


def _slots(optimizer: Optimizer) -> set[str]:
    """What `optimizer` remembers of each parameter, found with one number of its own."""
    number = torch.nn.Parameter(torch.zeros(1))
    plain = optimizer.defaults.keys() - {"foreach", "fused", "capturable"}  # how, not what
    twin: Optimizer = type(optimizer)([number], **{k: v for k, v in optimizer.param_groups[0].items() if k in plain})  # type: ignore[call-arg]
    number.grad = torch.zeros(1)
    twin.step()
    return set(twin.state[number])


def _check(right: bool, found: str) -> None:
    if not right:
        raise ValueError(found)
