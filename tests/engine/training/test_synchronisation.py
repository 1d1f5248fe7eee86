"""Who makes the CPU wait for the GPU in a training step: those named here, and nobody else."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.training.trainer import Trainer
from tests.engine.cuda import stand_in_cuda
from tests.engine.training.step import make_trainer

STEPS = 2  # batches; each is one optimiser step
# Place, what: (how often in an epoch of so many steps, why it has to be)
EPOCH = {
    ("engine/training/trainer.py:text", "_to_copy"): (
        1,
        "the progress line, where it is shown: five times a second on a terminal, twice a minute in a log, at the end",
    ),
}
MULTI_SCALE = {
    ("engine/training/session.py:stride", "_to_copy"): (1, "the network's stride, once in a training"),
}
NOT_FUSED = {  # PyTorch has no fused RMSProp, so the CPU has to know whether to step
    ("engine/training/safeguards/finite_loss.py:_read", "_to_copy"): (
        STEPS,
        "one copy: a loss that is not finite must not reach the gradients, which other batches may have added to",
    ),
    ("engine/training/trainer.py:optimizer_step", "_local_scalar_dense"): (
        STEPS,
        "GradScaler asks whether a gradient overflowed",
    ),
}


def _waits(trainer_of: dict[str, Any], plant: Any = None) -> Counter[tuple[str, str]]:
    with stand_in_cuda() as watch:
        trainer: Trainer = make_trainer(device="cuda", **trainer_of)
        if plant is not None:
            plant(trainer)
        watch.waits.clear()  # building may wait
        trainer.train_epoch(0)
        return watch.waits


def _times(*known: dict[tuple[str, str], tuple[int, str]]) -> dict[tuple[str, str], int]:
    return {where: times for part in known for where, (times, _) in part.items()}


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize(
    ("task", "overlap", "optimizer"),
    [
        ("detect", True, "SGD"),
        ("detect", True, "Adam"),
        ("detect", True, "AdamW"),
        ("segment", True, "SGD"),
        ("segment", False, "SGD"),
    ],
)
def test_no_step_waits(tmp_path: Path, task: str, overlap: bool, optimizer: str, scaled: bool) -> None:
    """In half precision neither, where `scaled`: GradScaler, too, tells a fused optimiser on the device."""
    options = {"overlap": overlap, "scaled": scaled, "multi_scale": scaled, "optimizer": optimizer}
    waits = _waits({"name": task, "folder": tmp_path, **options})
    assert waits == _times(EPOCH, MULTI_SCALE if scaled else {})


def test_what_is_not_fused_waits(tmp_path: Path) -> None:
    waits = _waits({"name": "detect", "folder": tmp_path, "scaled": True, "optimizer": "RMSProp"})
    assert waits == _times(EPOCH, NOT_FUSED)


READERS = {
    "item": lambda loss: loss * loss.item(),
    "bool": lambda loss: loss * 2 if loss > 0 else loss,
    "cpu": lambda loss: loss * loss.detach().cpu()[0],
    "tolist": lambda loss: loss * loss.tolist()[0],
    "nonzero": lambda loss: loss[loss.nonzero()[:, 0]],
    "mask": lambda loss: loss[loss > 0],
    "constant": lambda loss: loss * torch.tensor([1.0], device=loss.device),
}


@pytest.mark.parametrize("name", READERS)
def test_one_more_is_noticed(tmp_path: Path, name: str) -> None:
    def plant(trainer: Trainer) -> None:
        criterion = trainer.session.criterion

        def reading(*arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
            loss, items = criterion(*arguments)
            return READERS[name](loss), items

        trainer.session.criterion = reading

    waits = _waits({"name": "detect", "folder": tmp_path}, plant)
    more = waits - Counter(_times(EPOCH))
    (place, _), times = next(iter(more.items()))  # the mask's backward pass waits too
    assert (place.split(":")[0], times) == ("tests/engine/training/test_synchronisation.py", STEPS)
