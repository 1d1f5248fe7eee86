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
EACH_STEP = {
    ("engine/training/safeguards/guard.py:accepts", "_local_scalar_dense"): (
        STEPS,
        "one number: a loss that is not finite must not reach the gradients, which other batches may have added to",
    ),
    ("engine/training/trainer.py:text", "_to_copy"): (
        1,
        "the progress line, where it is shown: five times a second on a terminal, twice a minute in a log, at the end",
    ),
}
MULTI_SCALE = {
    ("engine/training/session.py:stride", "_to_copy"): (1, "the network's stride, once in a training"),
}
HALF_PRECISION = {
    ("engine/training/trainer.py:optimizer_step", "_local_scalar_dense"): (
        STEPS,
        "GradScaler asks whether a gradient overflowed. A fused SGD would not need to know, but when the very first "
        "step overflows it goes on with momentum that was never written",
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


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize(("task", "overlap"), [("detect", True), ("segment", True), ("segment", False)])
def test_only_what_is_documented(tmp_path: Path, task: str, overlap: bool, scaled: bool) -> None:
    known = EACH_STEP | (HALF_PRECISION | MULTI_SCALE if scaled else {})
    waits = _waits({"name": task, "folder": tmp_path, "overlap": overlap, "scaled": scaled, "multi_scale": scaled})
    assert waits == {where: times for where, (times, _) in known.items()}


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
    more = waits - Counter({where: times for where, (times, _) in EACH_STEP.items()})
    (place, _), times = next(iter(more.items()))  # the mask's backward pass waits too
    assert (place.split(":")[0], times) == ("tests/engine/training/test_synchronisation.py", STEPS)
