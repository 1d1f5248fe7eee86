"""The training loop: epochs of batches, each followed by a validation and a checkpoint."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.training.events import Events
from engine.training.safeguards.finite_loss import DELAY, FiniteLossGuard
from engine.training.saver import Saver, Stage
from engine.training.session import Session, TrainedEpoch
from engine.validation.validator import ValidationResult, validate
from utils.distributed import broadcast, broadcast_tensors, is_main_process, world_size
from utils.errors import out_of_memory_means
from utils.progress import Progress
from utils.training.optimizer import is_fused, step_if
from utils.training.schedule import Accumulator
from utils.training.seeds import gather_rng_states

MAX_GRADIENT_NORM = 10.0


class Trainer:
    """Trains a `Session`: epochs of steps, validation of the EMA after each, checkpoints, early stop."""

    def __init__(self, session: Session, events: Events) -> None:
        self.session = session
        self.events = events
        self.saver = Saver(session.save_dir / "weights", session.options.save_period) if is_main_process() else None
        self.guard = FiniteLossGuard(session.task.loss_names, delay=DELAY if is_fused(session.optimizer) else 0)

    def fit(self) -> ValidationResult | None:
        """Train from `start_epoch` to the end (or the early stop); returns the last validation, on the main process."""
        s = self.session
        result = None
        if s.start_epoch >= s.epochs:  # a training that was killed when only its conclusion was left
            return None
        self.events.emit("train_start", session=s)
        s.generators = gather_rng_states()
        if self.saver and s.trained is None:
            self.saver.save(s, s.start_epoch - 1)  # so that there is something to go on with
        for epoch in range(s.start_epoch, s.epochs):
            if s.trained is None:
                with out_of_memory_means(smaller_batch(s, f"in epoch {epoch}")):
                    losses = self.train_epoch(epoch)
                s.trained = TrainedEpoch(losses.tolist(), [group["lr"] for group in s.optimizer.param_groups])
            s.generators = gather_rng_states()
            final = epoch + 1 == s.epochs
            if broadcast(final or s.stopper.possible_stop or not s.options.noval):
                if self.saver and (final or not s.options.nosave):
                    self.saver.save(s, epoch, stage=Stage.VALIDATING)  # whatever happens now, the epoch is not lost
                with out_of_memory_means(smaller_batch(s, f"in the validation of epoch {epoch}")):
                    result = self.validate()
            if broadcast(self.finish_epoch(epoch, s.trained, result, final) if self.saver else False):
                break
            s.trained = None
        s.trained = None
        return result

    def train_epoch(self, epoch: int) -> Tensor:
        """One pass over the data; returns the mean of each part of the loss."""
        s = self.session
        accumulator = Accumulator(epoch * len(s.train_loader))
        losses = RunningMean(len(s.task.loss_names), s.device)
        s.freezer.train(s.model)
        s.optimizer.zero_grad(set_to_none=True)
        self.events.emit("epoch_start", session=s, epoch=epoch)
        s.train_loader.set_epoch(epoch)
        progress = Progress(s.train_loader, unit="batch", enabled=is_main_process())
        for step, batch in enumerate(progress, start=epoch * len(s.train_loader)):
            accumulate = s.schedule.apply(s.optimizer, step, epoch)
            batch = batch.to(s.device)
            with s.gradient_sync(accumulator.due(step, accumulate)):
                with self.autocast():
                    predictions = s.model(self.network_input(batch.images))
                    loss, items = s.task.loss(s.criterion, predictions, batch)
                if not self.guard.accepts(loss, items, epoch=epoch, step=step, paths=batch.paths):
                    continue
                # 0 times what is not finite is not a number, and so are the gradients then: the scaler sees it there
                s.scaler.scale(loss * (self.loss_scale + 0 * loss.detach())).backward()
            if accumulator.ready(step, accumulate):
                self.optimizer_step()
            losses.add(items, self.guard.finite)
            progress.describe(self.status(epoch, losses, batch))
            self.events.emit("train_batch_end", session=s, epoch=epoch, step=step, batch=batch)
        self.guard.end_epoch()
        return losses.mean

    def optimizer_step(self) -> None:
        """Unscale, clip, step, and update the moving average.

        Where the step is left out on the device, because of a loss or a gradient that is not finite, the average moves
        towards the weights as they are, as if they had been trained for another step.
        """
        s = self.session
        s.scaler.unscale_(s.optimizer)
        torch.nn.utils.clip_grad_norm_(s.net.parameters(), max_norm=MAX_GRADIENT_NORM)
        finite = self.guard.since_last_step()
        if finite is None or s.scaler.is_enabled():
            s.scaler.step(s.optimizer)
        else:
            step_if(s.optimizer, finite)
        s.scaler.update()
        s.optimizer.zero_grad(set_to_none=True)
        s.ema.update(s.net)

    def autocast(self) -> torch.autocast:
        """The context of mixed precision, if it is on."""
        s = self.session
        return torch.autocast(s.device.type, dtype=s.amp_dtype, enabled=s.amp_dtype is not None)

    @property
    def loss_scale(self) -> float:
        """Undoes that DDP averages gradients over processes, and that --quad folds four images into one."""
        return world_size() * (4.0 if self.session.options.quad else 1.0)

    def network_input(self, images: Tensor) -> Tensor:
        """Float images in 0..1; with --multi-scale, randomly resized to 50–150 % of --imgsz."""
        s = self.session
        images = images.to(memory_format=torch.channels_last).float().div_(255)
        if s.options.multi_scale:
            ratio = random.uniform(0.5, 1.5)
            size = [max(math.ceil(n * ratio / s.stride), 1) * s.stride for n in s.imgsz]
            if size != list(images.shape[2:]):
                images = F.interpolate(images, size=size, mode="bilinear", align_corners=False)
        return images

    def status(self, epoch: int, losses: RunningMean, batch: Any) -> Callable[[], str]:
        """The columns of the progress line under `heading`, read from the device only when shown."""
        s = self.session

        def text() -> str:
            memory = f"{torch.cuda.memory_reserved(s.device) / 1e9:.3g}G" if s.device.type == "cuda" else "cpu"
            parts = "".join(f"{value:>11.4g}" for value in losses.mean.tolist())
            size = "x".join(str(n) for n in dict.fromkeys(batch.images.shape[2:]))
            return f"{f'{epoch}/{s.epochs - 1}':>11}{memory:>11}{parts}{len(batch.targets):>11}{size:>11}"

        return text

    def validate(self) -> ValidationResult | None:
        """Metrics of the averaged weights on the validation split, by all processes that have a share of it.

        The weights are the main process's, which are those that are saved: the statistics of batch norms are each
        process's own.
        """
        s = self.session
        broadcast_tensors(s.ema.ema.state_dict().values())
        if s.val_loader is None:
            return None
        result = validate(
            s.ema.ema,
            s.val_loader,
            s.task,
            names=s.names,
            device=s.device,
            amp_dtype=s.amp_dtype,
            criterion=s.criterion,
            single_cls=s.options.single_cls,
            save_dir=s.save_dir,
            processes=s.val_loader.processes,
        )
        s.class_maps = result.maps
        return result

    def finish_epoch(self, epoch: int, trained: TrainedEpoch, result: ValidationResult | None, final: bool) -> bool:
        """Record and save the epoch; returns whether to stop early."""
        s = self.session
        assert self.saver is not None
        score = result.fitness if result else 0.0
        stop = s.stopper(epoch, score) if result else False
        is_best = result is not None and score >= s.best_fitness
        if is_best:
            s.best_fitness = score
        self.events.emit("epoch_end", session=s, epoch=epoch, result=result, **trained._asdict())
        if final or stop or not s.options.nosave:
            self.saver.save(s, epoch, is_best=is_best, stage=Stage.CLOSING if final or stop else Stage.TRAINING)
        return stop


class RunningMean:
    """Mean of vectors (n,) seen so far, kept on their device."""

    def __init__(self, n: int, device: torch.device) -> None:
        self._sum = torch.zeros(n, device=device)
        self._count = torch.zeros((), device=device)

    def add(self, values: Tensor, finite: Tensor) -> None:
        """Take `values` (n,) into the mean where `finite`, a boolean scalar on their device, is true."""
        self._sum += values.masked_fill(~finite, 0)
        self._count += finite

    @property
    def mean(self) -> Tensor:
        """(n,), zeros before the first value."""
        return self._sum / self._count.clamp(min=1)


def smaller_batch(session: Session, where: str) -> str:
    """What to do after memory ran out `where`, for the error message."""
    batch_size = session.options.batch_size
    smaller, last = max(batch_size // 2, 1), session.save_dir / "weights" / "last.pt"
    return (
        f"{where} at --batch-size {batch_size}; go on with --resume {last.as_posix()} --batch-size {smaller}, "
        "or start again with -1 to have the size found"
    )
