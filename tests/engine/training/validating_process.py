"""One of two training processes: ``python validating_process.py FOLDER DATA all|one`` with `torchrun`'s variables.

Trains two epochs; validates with all processes, or with the first alone, which then has all batches.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

import train
from engine.training import command
from engine.training.session import Session
from utils.distributed import rank


def validated_by_one(build: Any) -> Any:
    """`build`, a `build_session` whose first process gets all batches of the validation and the others none."""

    def built(*arguments: Any) -> Session:
        session = build(*arguments)
        session.val_loader.plan.rank, session.val_loader.plan.world = 0, 1
        if rank() > 0:
            session.val_loader = None
        return session

    return built


def main(folder: str, data: str, who: str) -> None:
    """Train; keep the moving average that this process ends with."""
    torch.set_num_threads(1)
    if who == "one":
        command.build_session = validated_by_one(command.build_session)
    averages: list[dict[str, torch.Tensor]] = []
    validate = command.Trainer.validate

    def watched(self: command.Trainer) -> Any:
        result = validate(self)
        averages.append({key: value.clone() for key, value in self.session.ema.ema.state_dict().items()})
        return result

    command.Trainer.validate = watched  # type: ignore[method-assign]
    train.run(
        cfg="yolov5n_MobileNetv2.yaml", data=data, hyp={"nbs": 4, "lr0": 0.01}, imgsz=[64], batch_size=2, epochs=2,
        workers=0, device="cpu", project=folder, name=who, noautoanchor=True,
    )  # fmt: skip
    torch.save(averages, Path(folder) / f"{who}-{rank()}.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
