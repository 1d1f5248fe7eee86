"""The training command: find the run to go on with, train, validate the best weights, and log the next commands."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from engine.task import COMMANDS, DetectionTask
from engine.training.events import Events
from engine.training.listeners import attach_listeners
from engine.training.options import TrainOptions
from engine.training.restart import Launch
from engine.training.resume import resume_options
from engine.training.safeguards.interruption import resumable
from engine.training.saver import Stage, mark_finished
from engine.training.session import Session
from engine.training.setup import build_session, process_device
from engine.training.trainer import Trainer, smaller_batch
from engine.validation.validator import ValidationResult, validate
from models.checkpoints.checkpoint import Checkpoint, load_checkpoint, strip_optimizer
from models.loading import build_model
from utils.cli import command_of
from utils.distributed import barrier, broadcast, is_main_process, process_group, rank, world_size
from utils.errors import UserError, out_of_memory_means
from utils.files import increment_path, make_folder, remove_leftovers
from utils.hyp import load_hyp
from utils.logging import LOGGER, configure_logging
from utils.yamls import save_yaml

ALONE = {
    "image_weights": "the images of an epoch are drawn at random, and each process would draw its own",
    "evolve": "a generation is one training of one process; start one search a GPU, each with its own --name",
}


def train(options: TrainOptions, task: DetectionTask, given: set[str]) -> ValidationResult | None:
    """Train from start to end; returns the validation of the best weights.

    Returns None in all processes but the main one, and if `torchrun` restarted the processes of a finished training.
    """
    configure_logging(rank=rank())
    if options.resume in (False, None):
        check_options(options)
    with process_group(process_device(options.device)):
        launch = Launch.of(options)
        begun = begin(options, task, given, launch) if is_main_process() else None
        begun = broadcast(begun)  # other machines may not have the file
        if begun is None:
            return None
        options, checkpoint, run = begun
        new = Path(options.project) / options.name
        session = build_session(options, task, run or new, checkpoint)
        if is_main_process():
            session.save_dir = run or increment_path(new, options.exist_ok, mkdir=True)
            if run:
                remove_leftovers(run)
            launch.mark(session.save_dir)
        session.save_dir = run = broadcast(session.save_dir)
        result = train_session(session)
        del session  # and the network's wrapper, before the group is left
        barrier()  # until all have come so far, they may have to be started again
        if is_main_process():
            launch.unmark(run)
        return result


def begin(
    options: TrainOptions, task: DetectionTask, given: set[str], launch: Launch
) -> tuple[TrainOptions, Checkpoint | None, Path | None] | None:
    """The options of the training, and the checkpoint and run folder to resume, which are None for a new training.

    Returns None instead if `torchrun` restarted the processes of a finished training, so that nothing is left to do.
    """
    if options.resume in (False, None):
        run = launch.find(Path(options.project))
        if run is None:
            return options, None, None
        LOGGER.info(f"started again by torchrun: going on with {run.as_posix()}")
        last = run / "weights" / "last.pt"
        if not last.is_file():
            return options, None, run
        if load_checkpoint(last).extra.get("stage") == Stage.FINISHED:
            LOGGER.info("it was finished already")
            launch.unmark(run)
            return None
        options, given = replace(options, resume=str(last)), set()
    options, checkpoint, run = resume_options(options, task, given)
    check_options(options)
    return options, checkpoint, run


def train_session(session: Session) -> ValidationResult | None:
    """Train the `session`, and validate its best weights."""
    events = Events()
    if is_main_process():
        make_folder(session.save_dir)
        save_yaml(session.save_dir / "hyp.yaml", session.hyp)
        save_yaml(session.save_dir / "opt.yaml", session.options.to_dict())
    attach_listeners(events, session)
    last = session.save_dir / "weights" / "last.pt"
    with resumable(last):
        result = Trainer(session, events).fit()
        if not session.options.evolve:
            result = validate_best(session) or result
        if not is_main_process():
            return None
        events.emit("train_end", session=session, result=result)
        mark_finished(last)
    return result


def check_options(options: TrainOptions) -> None:
    """Refuse flags that contradict each other, before anything is written."""
    if options.weights and options.backbone_weights:
        raise UserError("--weights already brings a backbone, --backbone-weights would replace it; give one of them")
    for name, why in ALONE.items():
        if getattr(options, name) and world_size() > 1:
            raise UserError(f"--{name.replace('_', '-')} does not work with several processes: {why}; start one")
    if options.quad and (options.batch_size % 4 or options.rect):
        raise UserError("--quad joins images by fours: --batch-size must be a multiple of 4, and --rect off")
    load_hyp(options.hyp)


def validate_best(session: Session) -> ValidationResult | None:
    """Validate the best weights with all plots, and log where they are and which commands use them."""
    s = session
    weights = s.save_dir / "weights"
    best = weights / "best.pt" if (weights / "best.pt").is_file() else weights / "last.pt"
    if is_main_process():
        if best.name == "best.pt":
            strip_optimizer(best)
        LOGGER.info(f"\nValidating {best.as_posix()}...")
    checkpoint = broadcast(load_checkpoint(best) if is_main_process() else None)  # other machines may lack the file
    if s.val_loader is None:
        return None
    assert checkpoint is not None
    with out_of_memory_means(smaller_batch(s, "in the closing validation")):
        result = validate(
            build_model(checkpoint, best).eval().requires_grad_(False).fuse().to(s.device),
            s.val_loader,
            s.task,
            names=s.names,
            device=s.device,
            amp_dtype=s.amp_dtype,
            single_cls=s.options.single_cls,
            save_dir=s.save_dir,
            plots=not s.options.noplots,
            verbose=True,
            processes=s.val_loader.processes,
        )
    if is_main_process():
        log_next_commands(s, best)
    return result


def log_next_commands(session: Session, best: Path) -> None:
    """Log where the results are, and commands that use the weights `best`."""
    s = session
    size = " ".join(str(n) for n in dict.fromkeys(s.imgsz))
    lines = [f"\nResults saved to {s.save_dir.as_posix()}"]
    if (drawn := s.save_dir / "val_batch0_pred.jpg").is_file():
        lines.append(f"Detections drawn:  {drawn.as_posix()}")
    predict, val = (command_of(COMMANDS[s.task.name][name]) for name in ("predict", "val"))
    lines += [
        "Next:",
        f"  {predict} --weights {best.as_posix()} --img {size} --source path/to/images",
        f"  {val} --weights {best.as_posix()} --img {size} --data {s.options.data} --verbose",
    ]
    LOGGER.info("\n".join(lines))
