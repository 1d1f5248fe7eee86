"""What a training writes so that it can be used and continued: last.pt, best.pt, epochN.pt."""

from __future__ import annotations

from pathlib import Path

import torch

from engine.training.session import Session
from models.checkpoints.format import Checkpoint, save_checkpoint
from utils.errors import UserError
from utils.files import make_folder
from utils.training.seeds import rng_state


class Saver:
    """Writes checkpoints below `folder`, each atomically; a state that is not finite never replaces a good one."""

    def __init__(self, folder: Path, period: int = -1) -> None:
        self.folder = make_folder(folder)
        self.last = folder / "last.pt"
        self.best = folder / "best.pt"
        self.period = period

    def save(self, session: Session, epoch: int, *, is_best: bool) -> None:
        """Save the state after `epoch` (-1: before the first) as last.pt, and as best.pt or epochN.pt where due."""
        checkpoint = snapshot(session, epoch)
        if not all(torch.isfinite(v).all() for v in (checkpoint.ema or {}).values() if v.is_floating_point()):
            raise UserError(
                f"epoch {epoch}: the weights are no longer finite; '{self.last.as_posix()}' keeps the last good epoch. "
                "Try --no-amp or a lower lr0"
            )
        save_checkpoint(self.last, checkpoint)
        if is_best:
            save_checkpoint(self.best, checkpoint)
        if self.period > 0 and epoch >= 0 and epoch % self.period == 0:
            save_checkpoint(self.folder / f"epoch{epoch}.pt", checkpoint)


def snapshot(session: Session, epoch: int) -> Checkpoint:
    """All that is needed to go on after `epoch`, or to use the model, as plain data."""
    net = session.net
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
        opt=session.options,
        rng=rng_state(),
        extra={"best_epoch": session.stopper.best_epoch, "imgsz": list(session.imgsz)},
    )
