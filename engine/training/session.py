"""Session: everything that one training consists of, built by `engine.training.setup`, run by the trainer beside it."""

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
from utils.training.ema import ModelEMA
from utils.training.freeze import Freezer
from utils.training.schedule import EarlyStopping, Schedule


class Trained(NamedTuple):
    """What the training part of an epoch has to say."""

    losses: list[float]  # the mean of each part
    rates: list[float]  # of learning, of each group of parameters at the end


@dataclass
class Session:
    """The parts and the few numbers of a training."""

    task: DetectionTask
    options: dict[str, Any]  # the command line, as it is stored in opt.yaml and in the checkpoints
    hyp: dict[str, Any]  # hyper-parameters as the user gave them
    names: dict[int, str]
    save_dir: Path
    device: torch.device

    model: nn.Module  # wrapped for several processes, if there are
    net: nn.Module  # the model itself
    ema: ModelEMA
    freezer: Freezer
    criterion: Any
    optimizer: Optimizer
    scaler: torch.amp.GradScaler
    schedule: Schedule
    stopper: EarlyStopping

    train_loader: Any
    val_loader: Any  # this process's share; None where it has none and others validate

    imgsz: tuple[int, int]  # height, width
    epochs: int
    start_epoch: int = 0
    best_fitness: float = 0.0
    amp_dtype: torch.dtype | None = None  # None: no mixed precision
    trained: Trained | None = None  # of the epoch whose validation is still to come, none else
    generators: dict[str, Any] | None = None  # states of the random generators of all processes, as they are saved
    class_maps: Any = field(default=None)  # mAP of each class at the last validation, for --image-weights

    def exchanging(self, gradients: bool) -> contextlib.AbstractContextManager[None]:
        """Forward and backward pass within the block; the processes exchange `gradients` there, or keep their own.

        What was kept is exchanged with the next: several batches that make one step cost one exchange.
        """
        if gradients or not isinstance(self.model, nn.parallel.DistributedDataParallel):
            return contextlib.nullcontext()
        return self.model.no_sync()

    @cached_property
    def stride(self) -> int:
        """The largest stride of the network: image sizes are multiples of it. Read from the device once."""
        return int(max(self.net.stride.tolist()))  # type: ignore[operator, union-attr]
