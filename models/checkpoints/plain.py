"""From what a program holds to what a checkpoint may hold: plain values only, and no path of this machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import torch


def to_plain(value: Any, where: str = "checkpoint") -> Any:
    """`value` in the types that ``torch.load(weights_only=True)`` accepts: None, bool, int, float, str, list, tuple,
    dict and CPU tensors.

    numpy scalars become numbers, arrays tensors, paths posix strings, sets lists. Raises `TypeError` naming the place
    for anything else: what is saved must not need our classes to be read.
    """
    if value is None or isinstance(value, (bool, np.bool_)):
        return None if value is None else bool(value)
    for kind in (int, float, str):
        if isinstance(value, kind):  # subclasses (np.float64, an enum of strings) would be pickled by class
            return kind(value)
    if isinstance(value, np.generic):
        return to_plain(value.item(), where)
    if isinstance(value, torch.Tensor):
        return _compact(value)
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return torch.from_numpy(np.ascontiguousarray(value))
    if isinstance(value, PurePath):
        return value.as_posix()
    if isinstance(value, Mapping):
        return {to_plain(key, f"{where} key"): to_plain(item, f"{where}[{key!r}]") for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(to_plain(item, f"{where}[{i}]") for i, item in enumerate(value))
    if isinstance(value, (list, set, frozenset)):
        return [to_plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, (torch.dtype, torch.device)):
        return str(value)
    raise TypeError(f"{where} is a {type(value).__module__}.{type(value).__qualname__}, which a checkpoint cannot hold")


def _compact(tensor: torch.Tensor) -> torch.Tensor:
    """A plain CPU tensor whose storage holds nothing but its own elements."""
    tensor = tensor.detach().cpu().contiguous()
    if type(tensor) is not torch.Tensor:
        tensor = tensor.as_subclass(torch.Tensor)
    return tensor.clone() if tensor.untyped_storage().nbytes() > tensor.nbytes else tensor


def relative_paths(options: Mapping[str, Any], bases: tuple[Path, ...]) -> dict[str, Any]:
    """`options` with absolute paths below one of `bases` made relative to it, in posix form; others stay as given."""
    return {key: _relative(value, bases) for key, value in options.items()}


def without_absolute_paths(options: Mapping[str, Any]) -> dict[str, Any]:
    """`options` with what is left of absolute paths cut down to the last name: a final file tells nothing of the
    machine it was made on."""
    return {key: _last_name(value) for key, value in options.items()}


def _relative(value: Any, bases: tuple[Path, ...]) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(_relative(item, bases) for item in value)
    if isinstance(value, (str, PurePath)) and str(value) and Path(value).is_absolute():
        for base in bases:
            if base.parent != base and Path(value).is_relative_to(base):  # below "/" is everything
                return Path(value).relative_to(base).as_posix()
    return value


def _last_name(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(_last_name(item) for item in value)
    if isinstance(value, str):
        for kind in (PurePosixPath, PureWindowsPath):  # the file may come from either kind of system
            if kind(value).is_absolute():
                return kind(value).name
    return value
