"""The checkpoints that a training writes: last.pt, best.pt and epochN.pt."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from engine.training.session import Session
from models.checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from utils.errors import UserError
from utils.files import make_folder


class Stage:
    """How far a training has come, as its last.pt says (`Checkpoint.extra`)."""

    TRAINING = "training"
    VALIDATING = "validating"  # the last epoch is trained, but not yet validated
    CLOSING = "closing"  # all epochs are done; best.pt is to be stripped and validated
    FINISHED = "finished"


class Saver:
    """Writes checkpoints below `folder`, each atomically; a state that is not finite never replaces a good one."""

    def __init__(self, folder: Path, period: int = -1) -> None:
        self.folder = make_folder(folder)
        self.last = folder / "last.pt"
        self.best = folder / "best.pt"
        self.period = period

    def save(self, session: Session, epoch: int, *, is_best: bool = False, stage: str = Stage.TRAINING) -> None:
        """Save the state after `epoch` (-1: before the first) as last.pt, and as best.pt or epochN.pt where due.

        last.pt comes last. A training killed between two files repeats this epoch and writes the others again; the
        other way round, it would go on without them.
        """
        checkpoint = snapshot(session, epoch, stage)
        if not all(torch.isfinite(v).all() for v in (checkpoint.ema or {}).values() if v.is_floating_point()):
            raise UserError(
                f"epoch {epoch}: the weights are no longer finite; '{self.last.as_posix()}' keeps the last good epoch. "
                "Try --no-amp or a lower lr0"
            )
        if is_best:
            save_checkpoint(self.best, checkpoint)
        if self.period > 0 and epoch >= 0 and epoch % self.period == 0 and stage != Stage.VALIDATING:
            save_checkpoint(self.folder / f"epoch{epoch}.pt", checkpoint)
        save_checkpoint(self.last, checkpoint)


def mark_finished(last: Path) -> None:
    """Record in the file `last` that nothing is left to do."""
    checkpoint = load_checkpoint(last)
    save_checkpoint(last, replace(checkpoint, extra={**checkpoint.extra, "stage": Stage.FINISHED}))


def snapshot(session: Session, epoch: int, stage: str = Stage.TRAINING) -> Checkpoint:
    """A checkpoint with all that is needed to resume after `epoch`, or to use the model."""
    net = session.net
    extra = {"best_epoch": session.stopper.best_epoch, "imgsz": list(session.imgsz), "stage": stage}
    if stage == Stage.VALIDATING and session.trained is not None:
        extra["trained"] = session.trained._asdict()
    return Checkpoint(
        task=session.task.name,
        cfg=net.yaml,  # type: ignore[arg-type]
        names=session.names,
        state_dict=net.state_dict(),
        ema=session.ema.ema.state_dict(),
        ema_updates=session.ema.updates,
        optimizer=session.optimizer.state_dict(),
        scaler=session.scaler.state_dict(),
        epoch=epoch,
        best_fitness=session.best_fitness,
        hyp=session.hyp,
        opt=session.options.to_dict(),
        rng=session.generators,
        extra=extra,
    )
