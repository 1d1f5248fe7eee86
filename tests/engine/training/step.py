"""The least of a training: real parts, a small network, two batches of random pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import segment.train
import train
from engine.segmentation import SegmentationTask
from engine.task import DetectionTask
from engine.training.events import Events
from engine.training.options import TrainOptions
from engine.training.session import Session
from engine.training.trainer import Trainer
from utils.cli import options_of
from utils.data.batch import Batch
from utils.hyp import load_hyp
from utils.training.ema import ModelEMA
from utils.training.freeze import Freezer
from utils.training.optimizer import smart_optimizer
from utils.training.schedule import EarlyStopping, Schedule

NC = 3
SIZE = 64
BACKBONE = [
    [-1, 1, "Conv", [8, 3, 2]],
    [-1, 1, "MobileNetV2_Block", [8, 2, 2]],
    [-1, 1, "Conv", [8, 3, 2]],  # P3/8
    [-1, 1, "MobileNetV2_Block", [16, 2, 2]],  # P4/16
    [-1, 1, "C3", [16]],
    [-1, 1, "Conv", [16, 3, 2]],
    [-1, 1, "SPPF", [16, 5]],  # P5/32
]
ANCHORS = [[8, 8, 12, 20, 20, 12], [16, 24, 24, 24, 40, 20], [40, 40, 20, 60, 60, 40]]
HEADS = {"detect": ["Detect", ["nc", "anchors"]], "segment": ["Segment", ["nc", "anchors", 4, 8]]}


class Batches(list):
    """A list that the trainer takes for its loader."""

    processes = 1

    def set_epoch(self, epoch: int) -> None:
        """Nothing to shuffle."""


def make_batch(task: DetectionTask, seed: int, overlap: bool = True) -> Batch:
    """Two pictures of noise: three objects in the first, one in the second."""
    rng = np.random.default_rng(seed)
    images = torch.from_numpy(rng.integers(0, 256, (2, 3, SIZE, SIZE), np.uint8))
    targets = torch.tensor(rng.uniform(0.2, 0.8, (4, 6)), dtype=torch.float32)
    targets[:, 0] = torch.tensor([0, 0, 0, 1])
    targets[:, 1] = torch.tensor([0, 1, 2, 1])
    masks = None
    if task.name == "segment":
        cells = (SIZE // 4, SIZE // 4)
        masks = torch.from_numpy(rng.integers(0, 2, (2 if overlap else 4, *cells), np.uint8))
    return Batch(images, targets, ("a.jpg", "b.jpg"), None, masks)


def make_task(name: str) -> DetectionTask:
    """The task called `name`."""
    return SegmentationTask() if name == "segment" else DetectionTask()


def make_options(name: str, **values: Any) -> TrainOptions:
    """The options of a training of task `name`: `values`, the others at their defaults."""
    command = segment.train if name == "segment" else train
    return replace(options_of(make_task(name).train_options, command.parse_opt([])), **values)


def make_network(task: DetectionTask) -> nn.Module:
    """About the smallest network with three levels, the same in every call."""
    torch.manual_seed(0)
    scale = {"depth_multiple": 1.0, "width_multiple": 1.0}
    head = [[[2, 4, 6], 1, *HEADS[task.name]]]
    net = task.build_model({"nc": NC, **scale, "anchors": ANCHORS, "backbone": BACKBONE, "head": head})
    return net.to(memory_format=torch.channels_last)


def make_trainer(
    name: str,
    folder: Path,
    device: str,
    *,
    net: nn.Module | None = None,
    overlap: bool = True,
    scaled: bool = False,
    optimizer: str = "SGD",
    **options: Any,
) -> Trainer:
    """A trainer of task `name`, everything on `device`, as `engine.training.setup` would build it.

    `scaled`: with the gradient scaler of half precision.
    """
    task = make_task(name)
    masks = {"no_overlap": not overlap} if name == "segment" else {}
    given = make_options(name, optimizer=optimizer, **masks, **options)
    net = (net or make_network(task)).to(device)
    hyp = load_hyp("hyp.scratch-low.yaml")
    net.hyp = hyp
    session = Session(
        task=task,
        options=given,
        hyp=hyp,
        names={i: str(i) for i in range(NC)},
        save_dir=folder,
        device=torch.device(device),
        model=net,
        net=net,
        ema=ModelEMA(net),
        freezer=Freezer(net, []),
        criterion=task.criterion(net, hyp, given),
        optimizer=smart_optimizer(net, optimizer, lr=0.01, momentum=0.9, decay=1e-4),
        scaler=torch.amp.GradScaler(device, enabled=scaled),
        schedule=Schedule(lambda epoch: 1.0, momentum=0.9, accumulate=1, warmup_steps=0),
        stopper=EarlyStopping(0),
        train_loader=Batches(make_batch(task, seed, overlap) for seed in range(2)),
        val_loader=None,
        imgsz=(SIZE, SIZE),
        epochs=1,
    )
    return Trainer(session, Events())
