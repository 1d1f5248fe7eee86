"""Session: everything that one training consists of. `engine.training.setup` builds it, the trainer updates it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.optim import Optimizer

from engine.task import DetectionTask
from engine.training.options import TrainOptions
from utils.training.ema import ModelEMA
from utils.training.freeze import Freezer
from utils.training.schedule import EarlyStopping, Schedule


class TrainedEpoch(NamedTuple):
    """What is known of an epoch once it is trained, before its validation."""

    losses: list[float]  # the mean of each part of the loss
    rates: list[float]  # learning rates of the parameter groups at the end of the epoch


@dataclass
class Session:
    """The parts of a training, and the few numbers that change while it runs."""

    task: DetectionTask
    options: TrainOptions  # stored in opt.yaml and in the checkpoints
    hyp: dict[str, Any]  # hyper-parameters as the user gave them
    names: dict[int, str]
    save_dir: Path
    device: torch.device

    model: nn.Module  # wrapped for data-parallel training if there are several processes
    net: nn.Module  # the model itself
    ema: ModelEMA
    freezer: Freezer
    criterion: Any
    optimizer: Optimizer
    scaler: torch.amp.GradScaler
    schedule: Schedule
    stopper: EarlyStopping

    train_loader: Any
    val_loader: Any  # this process's share; None if it has none and others validate

    imgsz: tuple[int, int]  # height, width
    epochs: int
    start_epoch: int = 0
    best_fitness: float = 0.0
    amp_dtype: torch.dtype | None = None  # None: no mixed precision
    trained: TrainedEpoch | None = None  # of an epoch whose validation is still to come, else None
    generators: dict[str, Any] | None = None  # states of the random generators of all processes, as they are saved
    class_maps: Any = field(default=None)  # mAP of each class at the last validation, for --image-weights

    def gradient_sync(self, enabled: bool) -> contextlib.AbstractContextManager[None]:
        """Run forward and backward pass within the block; with `enabled`, the processes average their gradients there.

        Gradients that were not averaged are averaged with the next ones, so several batches that make up one optimiser
        step cost one exchange.
        """
        if enabled or not isinstance(self.model, nn.parallel.DistributedDataParallel):
            return contextlib.nullcontext()
        return self.model.no_sync()

    @cached_property
    def stride(self) -> int:
        """The largest stride of the network: image sizes are multiples of it. Read from the device once."""
        return int(max(self.net.stride.tolist()))  # type: ignore[operator, union-attr]
