"""What a checkpoint holds, in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

FORMAT = "yolov5-mobilenetv2"
FORMAT_VERSION = 1

StateDict = dict[str, torch.Tensor]


@dataclass
class Checkpoint:
    """A network and, from a run in progress, everything needed to go on with it.

    task: "detect" or "segment". cfg: the network's YAML as a dict, `nc` included. names: class id → name.
    state_dict: the weights being trained, or the final ones. ema: their moving average, preferred for inference.
    optimizer, scaler: what ``state_dict()`` of these gives. epoch: the last one finished, -1 in a final checkpoint.
    best_fitness: 0.1 mAP50 + 0.9 mAP50-95 of the best epoch. rng: see `utils/training/seeds.py`.
    extra: any further plain values. date: ISO 8601, local time; filled in when saved.
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
        """The tensors to run inference with: the moving average where there is one."""
        return self.ema or self.state_dict
