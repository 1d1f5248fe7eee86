"""Listeners to the events of a training: console, results.csv, plots, TensorBoard, and the weights of images."""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from engine.task import DetectionTask
from engine.training.events import Events
from engine.training.session import Session
from utils.distributed import is_main_process
from utils.files import atomic_write, refuse_folder
from utils.logging import LOGGER, colorstr
from utils.training.tables import read_number, read_table


def attach_listeners(events: Events, session: Session) -> None:
    """Subscribe the listeners that `session` needs in this process; only the main process records the training."""
    if session.options.image_weights:
        events.subscribe(ImageWeights())
    if not is_main_process():
        return
    events.subscribe(ConsoleLogger())
    events.subscribe(CsvLogger(session.save_dir / "results.csv", session.task, session.start_epoch))
    if not session.options.noplots:
        events.subscribe(PlotLogger())
    if importlib.util.find_spec("tensorboard"):
        events.subscribe(TensorBoardLogger(session.save_dir))


class ConsoleLogger:
    """Prints headings above the progress lines."""

    def train_start(self, session: Session) -> None:
        s = session
        LOGGER.info(
            f"Image size {s.imgsz[0]}x{s.imgsz[1]}, batch {s.options.batch_size}, "
            f"{s.train_loader.num_workers} data loader workers, device {s.device}\n"
            f"Results go to {colorstr('bold', s.save_dir.as_posix())}\n"
            f"Training epochs {s.start_epoch} to {s.epochs - 1}..."
            + (f" (epoch {s.start_epoch} is trained already; its validation comes first)" if s.trained else "")
        )

    def epoch_start(self, session: Session, epoch: int) -> None:
        columns = ["Epoch", "GPU_mem", *(f"{n}_loss" for n in session.task.loss_names), "Instances", "Size"]
        LOGGER.info("\n" + "".join(f"{c:>11}" for c in columns))


def result_columns(task: DetectionTask) -> list[str]:
    """The columns of results.csv, as YOLOv5 names them."""
    metrics = ("precision", "recall", "mAP_0.5", "mAP_0.5:0.95")
    return [
        "epoch",
        *(f"train/{n}_loss" for n in task.loss_names),
        *(f"metrics/{m}{group}" for group in task.metric_groups for m in metrics),
        *(f"val/{n}_loss" for n in task.loss_names),
        *(f"x/lr{i}" for i in range(3)),
    ]


class CsvLogger:
    """Writes one row per epoch. A resumed training continues the table where the checkpoint stands."""

    def __init__(self, path: Path, task: DetectionTask, start_epoch: int = 0) -> None:
        self.path = refuse_folder(path)  # before the first epoch, not after it
        self._columns = result_columns(task)
        self._rows: list[list[Any]] = []
        if start_epoch and path.is_file():
            rows = read_table(path, self._columns, "it is the table of another training; remove it to go on without")
            self._rows = [row for i, row in enumerate(rows, 1) if read_number(path, i, row[0]) < start_epoch]

    def epoch_end(self, session: Session, epoch: int, losses: list[float], result: Any, rates: list[float]) -> None:
        measured = [*result.means, *result.losses] if result else []
        blank = len(self._columns) - 1 - len(losses) - 3 - len(measured)
        values = [*losses, *measured, *([""] * blank), *rates]
        self._rows.append([epoch, *(f"{v:.5g}" if v != "" else "" for v in values)])
        with atomic_write(self.path, "w") as file:
            csv.writer(file).writerows([self._columns, *self._rows])


class PlotLogger:
    """Draws labels.jpg at the start, the first training batches with their boxes, and results.png at the end."""

    def train_start(self, session: Session) -> None:
        from utils.plots.labels import plot_labels

        index = session.train_loader.dataset.index
        if session.start_epoch == 0 and len(index.classes):
            plot_labels(index.classes, index.boxes, session.names, session.save_dir)

    def train_batch_end(self, session: Session, epoch: int, step: int, batch: Any) -> None:
        if step < 3:
            from utils.plots.mosaics import plot_images

            path = session.save_dir / f"train_batch{step}.jpg"
            masks = session.task.target_masks(batch, session.options)
            plot_images(batch.images, batch.targets, batch.paths, path, session.names, masks=masks)

    def train_end(self, session: Session, result: Any) -> None:
        from utils.plots.results import plot_results

        plot_results(session.save_dir / "results.csv")


class TensorBoardLogger:
    """Writes the columns of results.csv as scalars, if the tensorboard package is installed."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder))

    def epoch_end(self, session: Session, epoch: int, losses: list[float], result: Any, rates: list[float]) -> None:
        measured = [*result.means, *result.losses] if result else []
        columns = result_columns(session.task)[1:]
        if not measured:
            columns = columns[: len(losses)] + columns[-len(rates) :]
        for name, value in zip(columns, [*losses, *measured, *rates], strict=True):
            self._writer.add_scalar(name, value, epoch)

    def train_end(self, session: Session, result: Any) -> None:
        self._writer.close()


class ImageWeights:
    """Chooses the images of each epoch for --image-weights: those of classes with a low mAP are drawn more often.

    The weight of an image is the sum over its labels of inverse class frequency times ``(1 - mAP of the class)²``.
    """

    def epoch_start(self, session: Session, epoch: int) -> None:
        dataset = session.train_loader.dataset
        nc = len(session.names)
        maps = np.zeros(nc) if session.class_maps is None else session.class_maps
        weights = dataset.index.image_weights(dataset.index.class_weights(nc) * (1 - maps) ** 2)
        rng = np.random.default_rng((session.options.seed, epoch))
        dataset.indices = rng.choice(len(weights), size=len(weights), p=weights / weights.sum())
