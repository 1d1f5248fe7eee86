"""Loads checkpoints into models that are ready to run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from models.checkpoints.checkpoint import Checkpoint, load_checkpoint
from models.checkpoints.state_dict import load_strictly
from models.ensemble import Ensemble
from models.initialization import SkipInitialization
from models.weights import find_weights
from models.yolo import MODELS, Detect, DetectionModel
from utils.errors import UserError


def build_model(checkpoint: Checkpoint, source: str | Path = "checkpoint") -> DetectionModel:
    """The model that `checkpoint` describes, with its weights, or their moving average where there is one, in float32.

    It is in training mode, on the CPU and not fused. Raises `UserError`, starting with `source`, where weights and
    description do not fit together.
    """
    if checkpoint.task not in MODELS:
        raise UserError(f"{source} is for the task '{checkpoint.task}'; this version knows {', '.join(MODELS)}")
    try:
        with SkipInitialization():
            model = MODELS[checkpoint.task](checkpoint.cfg, ch=checkpoint.cfg.get("ch", 3), nc=len(checkpoint.names))
    except UserError as error:
        raise UserError(f"{source}: {error}") from error
    load_strictly(model, checkpoint.weights, source)
    model.names = dict(checkpoint.names)
    return model


def load_model(
    weights: str | Path | Sequence[str | Path],
    device: str | torch.device = "cpu",
    fuse: bool = True,
    half: bool = False,
    trust: bool = False,
) -> DetectionModel | Ensemble:
    """Load a checkpoint, ours or a published one, as a model in evaluation mode; several become an `Ensemble`.

    `fuse` folds batch norms into convolutions, `half` converts to half precision, and `trust` is that of
    `load_checkpoint`. The model has `names`, `nc`, `stride`, `yaml` and `task`. Files are found by `find_weights`.
    Raises `UserError`.
    """
    files = [weights] if isinstance(weights, (str, Path)) else list(weights)
    if not files or not all(str(f) for f in files):
        raise UserError("no weights given; pass --weights with a checkpoint such as runs/train/exp/weights/best.pt")
    models = [_load_one(find_weights(f), trust, fuse) for f in files]
    model = models[0] if len(models) == 1 else Ensemble(models, files)
    model.requires_grad_(False)
    model = model.to(device).eval()
    return model.half() if half else model


def _load_one(path: Path, trust: bool, fuse: bool) -> DetectionModel:
    model = build_model(load_checkpoint(path, trust, mapped=True), path).eval()
    if fuse:
        model.fuse()
    return model


def attempt_load(
    weights: str | Path | Sequence[str | Path],
    device: str | torch.device | None = None,
    inplace: bool = True,
    fuse: bool = True,
) -> nn.Module:
    """`load_model` under the name and with the signature of YOLOv5; `inplace` sets the head's flag of that name."""
    model = load_model(weights, device or "cpu", fuse=fuse)
    for module in model.modules():
        if isinstance(module, Detect):
            module.inplace = inplace
    return model
