"""Checkpoints on disk: ours, plain data that `torch.load(weights_only=True)` reads, and those that YOLOv5 published.

Both are read by the same inert reader (`published.py`) and never by `torch.load`: the safe mode of the oldest torch we
support could still be made to run code (CVE-2025-32434).
"""

from __future__ import annotations

import datetime
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch

from models.checkpoints.archive import open_archive
from models.checkpoints.contents import FORMAT, FORMAT_VERSION, Checkpoint, StateDict
from models.checkpoints.extraction import extract_checkpoint
from models.checkpoints.plain import relative_paths, to_plain, without_absolute_paths
from models.checkpoints.values import Values
from utils.commands.signals import signals_held
from utils.errors import UserError, one_line
from utils.files import ROOT, atomic_write
from utils.logging import LOGGER
from utils.ops.class_names import check_class_names

__all__ = ["Checkpoint", "load_checkpoint", "save_checkpoint", "strip_optimizer"]

_KINDS: dict[str, tuple[type, ...]] = {
    "task": (str,), "cfg": (dict,), "names": (dict,), "state_dict": (dict,), "ema": (dict, type(None)),
    "ema_updates": (int,), "optimizer": (dict, type(None)), "epoch": (int,), "hyp": (dict, type(None)),
    "opt": (dict, type(None)), "extra": (dict,), "scaler": (dict, type(None)), "rng": (dict, type(None)),
    "best_fitness": (float, int, type(None)), "date": (str,),
}  # fmt: skip


def save_checkpoint(path: str | Path, checkpoint: Checkpoint) -> None:
    """Write `checkpoint` atomically, as a dict of plain values with a `format` and a `version`.

    Paths in `opt` below the working directory or the project are stored relative to it. Raises `TypeError` for a value
    that is not plain, `OSError` with the file's name where it cannot be written; the old file then stays as it was.
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
    except (OSError, RuntimeError) as error:  # torch covers the error of a full disk with one of its own
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        raise OSError(cause.errno, cause.strerror, str(path)) from error


def load_checkpoint(path: str | Path, trust: bool = False, mapped: bool = False) -> Checkpoint:
    """The checkpoint in a file of ours, or in one published by YOLOv5 v3 to v7; no code of the file is ever run.

    trust: also read pickled classes outside the allow-list, as inert data. mapped: map the file instead of reading it;
    for weights that are copied into a model at once, not for a file that is going to be replaced. Raises `UserError`,
    one line, for whatever else the file may be.
    """
    source = str(path)
    try:
        archive = open_archive(path, trust, mapped)
        values, tree = Values(archive), archive.tree
        if isinstance(tree, dict) and tree.get("format") == FORMAT:
            checkpoint = _ours(values.plain(tree), source)
        else:
            checkpoint = extract_checkpoint(tree, values, source)
        _check_content(checkpoint, source)
        return checkpoint
    except UserError as error:
        raise UserError(one_line(str(error))) from error


def _ours(content: dict[str, Any], source: str) -> Checkpoint:
    version = content.get("version")
    if not isinstance(version, int) or not 0 < version < 1000:
        raise UserError(f"{source} is damaged: its format version is no number between 1 and 999")
    if version > FORMAT_VERSION:
        raise UserError(
            f"{source} was written in checkpoint format {version}, this program reads up to {FORMAT_VERSION}; "
            "update the program"
        )
    known = {item.name for item in fields(Checkpoint)}
    for name, kinds in _KINDS.items():
        if not isinstance(content.get(name), kinds):
            raise UserError(f"{source} is damaged: '{name}' is missing or a {type(content.get(name)).__name__}")
    for name in ("state_dict", "ema"):
        for key, value in (content.get(name) or {}).items():
            if not isinstance(key, str) or not isinstance(value, torch.Tensor):
                raise UserError(f"{source} is damaged: '{name}' holds something other than tensors ({key!r})")
    if not all(isinstance(key, int) and isinstance(value, str) for key, value in content["names"].items()):
        raise UserError(f"{source} is damaged: 'names' must map class numbers to names")
    return Checkpoint(**{key: value for key, value in content.items() if key in known})


def _check_content(checkpoint: Checkpoint, source: str) -> None:
    """Raise `UserError` for class names that cannot be printed, and for weights that are no numbers."""
    try:
        check_class_names(checkpoint.names)
    except ValueError as error:
        raise UserError(f"{source}: {error}") from error
    for name, tensor in (*checkpoint.state_dict.items(), *(checkpoint.ema or {}).items()):
        if not is_finite(tensor):
            raise UserError(
                f"{source}: its weights are no numbers (NaN or infinite, in '{name}'), so the training that wrote it "
                "failed; take an earlier checkpoint"
            )


def is_finite(tensor: torch.Tensor) -> bool:
    """True if no element is NaN or infinite. A sum tells, in one pass and with no memory, unless it overflows."""
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    return bool(tensor.sum(dtype=torch.float32).isfinite()) or bool(tensor.isfinite().all())


def strip_optimizer(path: str | Path, output: str | Path | None = None) -> Path:
    """Rewrite a checkpoint, ours or a published one, for use: moving average only, half precision, nothing to resume.

    In place unless `output` is given. Returns the file written.
    """
    checkpoint = load_checkpoint(path)
    target = Path(output or path)
    save_checkpoint(
        target,
        replace(
            checkpoint,
            state_dict=half_precision(checkpoint.weights),
            ema=None,
            ema_updates=0,
            optimizer=None,
            scaler=None,
            rng=None,
            epoch=-1,
            best_fitness=None,
            opt=without_absolute_paths(checkpoint.opt) if checkpoint.opt else None,
            extra={},
        ),
    )
    LOGGER.info(f"{target.as_posix()}: half precision, without the optimiser state, {_megabytes(target):.1f} MB")
    return target


def half_precision(weights: StateDict) -> StateDict:
    """`weights` with floating-point tensors in half precision, but for those that would overflow (above 65504)."""
    halved: StateDict = {}
    for name, tensor in weights.items():
        half = tensor.half() if tensor.is_floating_point() else tensor
        overflows = half.is_floating_point() and not torch.equal(half.isfinite(), tensor.isfinite())
        halved[name] = tensor.float() if overflows else half
    return halved


def _megabytes(path: Path) -> float:
    return path.stat().st_size / 1e6
