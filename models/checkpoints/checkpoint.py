"""Checkpoints: what they hold, and how they are saved and loaded.

Our own files hold plain data only, so that ``torch.load(weights_only=True)`` reads them. We ourselves read every file
with the restricted unpickler of `unpickler.py`, and never with `torch.load`; docs/checkpoints.md says why.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import torch

from models.checkpoints.archive import open_archive
from models.checkpoints.decoder import Decoder
from models.checkpoints.yolov5 import yolov5_fields
from utils.commands.signals import signals_held
from utils.errors import UserError, one_line
from utils.files import ROOT, atomic_write
from utils.logging import LOGGER
from utils.ops.class_names import check_class_names

FORMAT = "yolov5-mobilenetv2"
FORMAT_VERSION = 1

StateDict = dict[str, torch.Tensor]


@dataclass
class Checkpoint:
    """A network and, while its training is in progress, everything that is needed to resume it.

    task: "detect" or "segment". cfg: the network's YAML as a dict, including `nc`. names: class id → name.
    state_dict: the weights being trained, or the final ones. ema: their moving average, preferred for inference.
    optimizer, scaler: the ``state_dict()`` of each. epoch: the last one finished, -1 in a final checkpoint.
    best_fitness: 0.1 mAP50 + 0.9 mAP50-95 of the best epoch. rng: the states of the random number generators, see
    `utils/training/seeds.py`. extra: any further plain values. date: ISO 8601, local time, set by `save_checkpoint`.
    """

    task: str
    cfg: dict[str, Any]
    names: dict[int, str]
    state_dict: StateDict
    ema: StateDict | None = None
    ema_updates: int = 0
    optimizer: dict[str, Any] | None = None
    scaler: dict[str, Any] | None = None
    epoch: int = -1
    best_fitness: float | None = None
    hyp: dict[str, Any] | None = None
    opt: dict[str, Any] | None = None
    rng: dict[str, Any] | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    version: int = FORMAT_VERSION
    date: str = ""

    @property
    def weights(self) -> StateDict:
        """The tensors to run inference with: the moving average if there is one."""
        return self.ema or self.state_dict


# Saving -------------------------------------------------------------------------------------------------------------


def save_checkpoint(path: str | Path, checkpoint: Checkpoint) -> None:
    """Write `checkpoint` atomically, as a dict of plain values with a `format` and a `version`.

    Paths in `opt` below the working directory or the project are stored relative to it. Raises `TypeError` for values
    that are not plain, and `OSError` with the file name if it cannot be written; an old file then stays as it was.
    """
    content: dict[str, Any] = {"format": FORMAT}
    for item in fields(checkpoint):
        content[item.name] = to_plain(getattr(checkpoint, item.name), item.name)
    if checkpoint.opt is not None:
        content["opt"] = relative_paths(content["opt"], (Path.cwd(), ROOT))
    content["version"] = FORMAT_VERSION
    content["date"] = datetime.datetime.now().isoformat(timespec="seconds")
    try:
        with signals_held(), atomic_write(path) as file:
            torch.save(content, file)
    except (OSError, RuntimeError) as error:  # torch hides the error of a full disk behind one of its own
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        raise OSError(cause.errno, cause.strerror, str(path)) from error


def to_plain(value: Any, where: str = "checkpoint") -> Any:
    """Convert `value` to the types that ``torch.load(weights_only=True)`` accepts: None, bool, int, float, str, list,
    tuple, dict and CPU tensors.

    numpy scalars become numbers, arrays become tensors, paths become strings with forward slashes, sets become lists.
    Raises `TypeError` with the place of anything else, because a file must not need our classes to be read.
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
    if isinstance(value, (list, tuple, set, frozenset)):
        items = [to_plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
        return tuple(items) if isinstance(value, tuple) else items
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
    """`options` with absolute paths below one of `bases` made relative to it; other values stay as they are."""

    def relative(path: str | PurePath) -> str | PurePath:
        if Path(path).is_absolute():
            for base in bases:
                if base.parent != base and Path(path).is_relative_to(base):  # everything is below "/"
                    return Path(path).relative_to(base).as_posix()
        return path

    return {key: _map_paths(value, relative) for key, value in options.items()}


def without_absolute_paths(options: Mapping[str, Any]) -> dict[str, Any]:
    """`options` with each absolute path cut down to its last part: a final file tells nothing about the machine that
    it was made on."""

    def last_part(path: str | PurePath) -> str | PurePath:
        for kind in (PurePosixPath, PureWindowsPath):  # the file may come from either kind of system
            if kind(path).is_absolute():
                return kind(path).name
        return path

    return {key: _map_paths(value, last_part) for key, value in options.items()}


def _map_paths(value: Any, function: Callable[[str | PurePath], str | PurePath]) -> Any:
    """`value` with `function` applied to each string and path, also within lists and tuples."""
    if isinstance(value, (list, tuple)):
        return type(value)(_map_paths(item, function) for item in value)
    return function(value) if isinstance(value, (str, PurePath)) else value


def strip_optimizer(path: str | Path, output: str | Path | None = None) -> Path:
    """Rewrite a checkpoint, ours or a published one, for use: only the moving average, in half precision, and nothing
    that resuming needs.

    Overwrites the file unless `output` is given. Returns the file written.
    """
    checkpoint = load_checkpoint(path)
    target = Path(output or path)
    final = Checkpoint(
        task=checkpoint.task,
        cfg=checkpoint.cfg,
        names=checkpoint.names,
        state_dict=half_precision(checkpoint.weights),
        hyp=checkpoint.hyp,
        opt=without_absolute_paths(checkpoint.opt) if checkpoint.opt else None,
    )
    save_checkpoint(target, final)
    size = target.stat().st_size / 1e6
    LOGGER.info(f"{target.as_posix()}: half precision, without the optimiser state, {size:.1f} MB")
    return target


def half_precision(weights: StateDict) -> StateDict:
    """`weights` with floating-point tensors in half precision, except those that would overflow (above 65504)."""
    halved: StateDict = {}
    for name, tensor in weights.items():
        half = tensor.half() if tensor.is_floating_point() else tensor
        overflows = half.is_floating_point() and not torch.equal(half.isfinite(), tensor.isfinite())
        halved[name] = tensor.float() if overflows else half
    return halved


# Loading ------------------------------------------------------------------------------------------------------------


def load_checkpoint(path: str | Path, trust: bool = False, mapped: bool = False) -> Checkpoint:
    """The checkpoint in a file of ours, or in one published by YOLOv5 v3 to v7; no code in the file is ever run.

    trust: read pickled classes that are not on the allow-list, too, as data. mapped: map the file into memory instead
    of reading it; use this for weights that are copied into a model at once, not for a file that will be overwritten.
    Raises `UserError`, one line, for anything else that the file may be.
    """
    source = str(path)
    try:
        archive = open_archive(path, trust, mapped)
        decoder, tree = Decoder(archive), archive.tree
        if isinstance(tree, dict) and tree.get("format") == FORMAT:
            checkpoint = Checkpoint(**_own_fields(decoder.decode(tree), source))
        else:
            checkpoint = Checkpoint(**yolov5_fields(tree, decoder, source))
        _check_content(checkpoint, source)
        return checkpoint
    except UserError as error:
        raise UserError(one_line(str(error))) from error


_OPTIONAL_DICT = (dict, type(None))
_FIELD_TYPES: dict[str, tuple[type, ...]] = {
    "task": (str,), "cfg": (dict,), "names": (dict,), "state_dict": (dict,), "ema": _OPTIONAL_DICT,
    "ema_updates": (int,), "optimizer": _OPTIONAL_DICT, "scaler": _OPTIONAL_DICT, "epoch": (int,),
    "best_fitness": (float, int, type(None)), "hyp": _OPTIONAL_DICT, "opt": _OPTIONAL_DICT, "rng": _OPTIONAL_DICT,
    "extra": (dict,), "date": (str,),
}  # fmt: skip


def _own_fields(content: dict[str, Any], source: str) -> dict[str, Any]:
    """The fields of a `Checkpoint` in the content of a file of ours, with their types checked."""
    version = content.get("version")
    if not isinstance(version, int) or not 0 < version < 1000:
        raise UserError(f"{source} is damaged: its format version is not a number between 1 and 999")
    if version > FORMAT_VERSION:
        raise UserError(
            f"{source} was written in checkpoint format {version}, but this program reads up to {FORMAT_VERSION}; "
            "update the program"
        )
    for name, types in _FIELD_TYPES.items():
        if not isinstance(content.get(name), types):
            raise UserError(f"{source} is damaged: '{name}' is missing or a {type(content.get(name)).__name__}")
    for name in ("state_dict", "ema"):
        for key, value in (content.get(name) or {}).items():
            if not isinstance(key, str) or not isinstance(value, torch.Tensor):
                raise UserError(f"{source} is damaged: '{name}' holds something other than tensors ({key!r})")
    if not all(isinstance(key, int) and isinstance(value, str) for key, value in content["names"].items()):
        raise UserError(f"{source} is damaged: 'names' must map class numbers to names")
    return {name: content[name] for name in (*_FIELD_TYPES, "version") if name in content}


def _check_content(checkpoint: Checkpoint, source: str) -> None:
    """Raise `UserError` for class names that cannot be printed, and for weights that are NaN or infinite."""
    try:
        check_class_names(checkpoint.names)
    except ValueError as error:
        raise UserError(f"{source}: {error}") from error
    for name, tensor in (*checkpoint.state_dict.items(), *(checkpoint.ema or {}).items()):
        if not is_finite(tensor):
            raise UserError(
                f"{source}: its weights contain NaN or infinite values (in '{name}'), so the training that wrote it "
                "failed; use an earlier checkpoint"
            )


def is_finite(tensor: torch.Tensor) -> bool:
    """True if no element is NaN or infinite.

    The sum tells, in one pass and without more memory; only where the sum overflows are the elements looked at.
    """
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    return bool(tensor.sum(dtype=torch.float32).isfinite()) or bool(tensor.isfinite().all())
