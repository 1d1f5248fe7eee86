"""Resuming a training, for which its last.pt is enough."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from engine.task import DetectionTask, wrong_task
from engine.training.options import TrainOptions
from engine.training.safeguards.checkpoint import check_optimizer, check_progress, check_scaler, reporting_damage
from engine.training.saver import Stage
from engine.training.session import Session, TrainedEpoch
from models.checkpoints.checkpoint import Checkpoint, load_checkpoint
from models.checkpoints.state_dict import load_strictly
from utils.distributed import world_size
from utils.errors import UserError, one_line
from utils.logging import LOGGER
from utils.training.optimizer import load_optimizer_state
from utils.training.seeds import restore_rng_states

RESUME_OVERRIDES = ("epochs", "batch_size", "workers", "device", "data", "patience", "recompute")


def resume_options(
    options: TrainOptions, task: DetectionTask, given: set[str]
) -> tuple[TrainOptions, Checkpoint, Path]:
    """The options of the training to resume, its checkpoint, and its run folder.

    `options.resume` is True (the newest last.pt below runs/) or a path; the options named in `given` and in
    `RESUME_OVERRIDES` replace the stored ones. Stored options that this version does not have are left out, with a
    warning. Raises `UserError` if there is nothing that `task` could resume.
    """
    last = Path(options.resume) if isinstance(options.resume, (str, Path)) else newest_last()
    if not last.is_file():
        raise UserError(f"--resume: '{last}' not found; give the path of a last.pt")
    checkpoint = load_checkpoint(last, trust=options.trust)
    if checkpoint.task != task.name:
        raise wrong_task(str(last), checkpoint.task, "train")
    if not checkpoint.opt or checkpoint.optimizer is None:
        raise UserError(f"'{last}' has no optimiser state to resume from; start from it with --weights {last}")
    if other := sorted(given - {"resume", "trust", *RESUME_OVERRIDES}):
        allowed = ", ".join("--" + o.replace("_", "-") for o in RESUME_OVERRIDES)
        raise UserError(f"--{other[0].replace('_', '-')} cannot change on resume; {allowed} can")
    check_progress(checkpoint, str(last))
    if world_size() > 1:
        given = given | {"device"}  # on which the processes have met already
    known = options.to_dict()
    if unknown := sorted(str(name) for name in checkpoint.opt if name not in known):
        shown = one_line(", ".join(unknown), limit=200)
        LOGGER.warning(f"'{last}' was trained with options that this version does not have: {shown}")
    stored = {name: value for name, value in checkpoint.opt.items() if name in known}
    kept = {"resume": str(last), "trust": options.trust}
    overrides = {name: getattr(options, name) for name in RESUME_OVERRIDES if name in given}
    resumed = replace(options, **{**stored, **kept, **overrides})
    choose_stage(checkpoint, resumed, longer=bool(given & {"epochs", "patience"}), name=str(last))
    return resumed, checkpoint, last.parent.parent


def choose_stage(checkpoint: Checkpoint, options: TrainOptions, longer: bool, name: str) -> None:
    """Set the stage of `checkpoint` to what is left to do: training, a validation first, or the closing validation.

    `longer` says that the user gave options which extend a training that had all its epochs or was stopped early.
    Raises `UserError` if nothing is left to do.
    """
    done = checkpoint.epoch + 1
    stage = checkpoint.extra.get("stage", Stage.TRAINING)
    if longer and done < options.epochs and stage != Stage.VALIDATING:
        stage = Stage.TRAINING
    if stage == Stage.FINISHED and done < options.epochs:
        raise UserError(
            f"'{name}' stopped early and finished after {done} epochs; nothing to resume. "
            f"Go on longer with --patience {2 * options.patience}"
        )
    if stage == Stage.FINISHED or (stage == Stage.TRAINING and done >= options.epochs):
        raise UserError(
            f"'{name}' has finished its {done} epochs; nothing to resume. Go on longer with --epochs {2 * done}"
        )
    checkpoint.extra["stage"] = stage


def newest_last(root: Path = Path("runs")) -> Path:
    """The last.pt below `root` that was written last."""
    found = sorted(root.rglob("last.pt"), key=lambda p: p.stat().st_mtime)
    if not found:
        raise UserError(f"--resume: no last.pt below '{root}'; give its path: --resume runs/train/exp/weights/last.pt")
    return found[-1]


def restore(session: Session, checkpoint: Checkpoint) -> None:
    """Put optimiser, scaler, EMA, generators and counters of `checkpoint` into `session`, which has its weights.

    Raises `UserError` if the checkpoint belongs to another network or optimiser.
    """
    if checkpoint.optimizer is None:
        raise UserError("this checkpoint was stripped for use and cannot be resumed; start from it with --weights")
    name = str(session.options.resume or "the checkpoint")
    if session.names != checkpoint.names:
        raise UserError(
            f"the data set's classes ({_some(session.names)}) are not those that {name} was trained for "
            f"({_some(checkpoint.names)}); start from it with --weights {name}"
        )
    check_optimizer(checkpoint.optimizer, session.optimizer, name)
    with reporting_damage(name, "its optimiser state"):
        load_optimizer_state(session.optimizer, checkpoint.optimizer)
    if checkpoint.scaler:
        check_scaler(checkpoint.scaler, name)
        session.scaler.load_state_dict(checkpoint.scaler)
    if checkpoint.ema is not None:
        load_strictly(session.ema.ema, checkpoint.ema, f"{name}: the moving average")
    session.ema.updates = checkpoint.ema_updates
    session.best_fitness = float(checkpoint.best_fitness or 0.0)
    session.stopper.best_fitness = session.best_fitness
    session.stopper.best_epoch = int(checkpoint.extra.get("best_epoch", max(checkpoint.epoch, 0)))
    session.start_epoch = checkpoint.epoch + 1
    if checkpoint.extra.get("stage") == Stage.CLOSING:
        session.start_epoch = session.epochs
    if checkpoint.extra.get("stage") == Stage.VALIDATING:
        session.start_epoch = checkpoint.epoch
        session.trained = TrainedEpoch(**checkpoint.extra["trained"])
    if checkpoint.rng is not None:
        with reporting_damage(name, "the state of its random numbers"):
            restore_rng_states(checkpoint.rng, seed=session.options.seed + 1000 * session.start_epoch)


def _some(names: dict[int, str]) -> str:
    return ", ".join([*list(names.values())[:5], *(["…"] if len(names) > 5 else [])])
