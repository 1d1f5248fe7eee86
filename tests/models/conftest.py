"""Small networks with weights on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from models.checkpoints.format import Checkpoint, save_checkpoint

TINY = {
    "nc": 2,
    "depth_multiple": 1.0,
    "width_multiple": 1.0,
    "anchors": [[10, 13, 16, 30], [30, 61, 62, 45]],
    "backbone": [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "Conv", [8, 3, 2]], [-1, 1, "C3", [16]]],
    "head": [[-1, 1, "Conv", [16, 3, 2]], [[2, 3], 1, "Detect", ["nc", "anchors"]]],
}


@pytest.fixture
def make_weights(tmp_path: Path) -> Callable[..., Path]:
    """Writes a checkpoint of a tiny detector with random weights, norm statistics included, and returns its path."""
    from models.yolo import DetectionModel

    def make(name: str = "best.pt", seed: int = 0, names: tuple[str, ...] = ("cat", "dog"), **fields: Any) -> Path:
        cfg = {**TINY, "nc": len(names)}
        torch.manual_seed(seed)
        model = DetectionModel(cfg)
        for value in model.state_dict().values():
            if value.is_floating_point() and value.dim() < 3:
                value.uniform_(0.5, 1.5)
        values = {"task": "detect", "cfg": cfg, "names": dict(enumerate(names)), "state_dict": model.state_dict()}
        save_checkpoint(tmp_path / name, Checkpoint(**{**values, **fields}))
        return tmp_path / name

    return make
