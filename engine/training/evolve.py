"""Genetic search for hyper-parameters: each generation mutates a good earlier one, trains, and records its fitness."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from engine.task import DetectionTask
from engine.training.command import check_options, train_session
from engine.training.options import TrainOptions
from engine.training.setup import build_session
from utils.errors import UserError
from utils.files import atomic_write, increment_path
from utils.hyp import load_hyp
from utils.logging import LOGGER
from utils.training.tables import read_number, read_table
from utils.yamls import save_yaml

# name: (mutation gain; 0 keeps it, lowest, highest), the ranges that YOLOv5 searches
RANGES: dict[str, tuple[float, float, float]] = {
    "lr0": (1, 1e-5, 1e-1),
    "lrf": (1, 0.01, 1.0),
    "momentum": (0.3, 0.6, 0.98),
    "weight_decay": (1, 0.0, 0.001),
    "warmup_epochs": (1, 0.0, 5.0),
    "warmup_momentum": (1, 0.0, 0.95),
    "warmup_bias_lr": (1, 0.0, 0.2),
    "box": (1, 0.02, 0.2),
    "cls": (1, 0.2, 4.0),
    "cls_pw": (1, 0.5, 2.0),
    "obj": (1, 0.2, 4.0),
    "obj_pw": (1, 0.5, 2.0),
    "iou_t": (0, 0.1, 0.7),
    "anchor_t": (1, 2.0, 8.0),
    "fl_gamma": (0, 0.0, 2.0),
    "hsv_h": (1, 0.0, 0.1),
    "hsv_s": (1, 0.0, 0.9),
    "hsv_v": (1, 0.0, 0.9),
    "degrees": (1, 0.0, 45.0),
    "translate": (1, 0.0, 0.9),
    "scale": (1, 0.0, 0.9),
    "shear": (1, 0.0, 10.0),
    "perspective": (0, 0.0, 0.001),
    "flipud": (1, 0.0, 1.0),
    "fliplr": (0, 0.0, 1.0),
    "mosaic": (1, 0.0, 1.0),
    "mixup": (1, 0.0, 1.0),
    "copy_paste": (1, 0.0, 1.0),
}
PARENTS = 5


def evolve(options: TrainOptions, task: DetectionTask, given: set[str]) -> dict[str, Any]:
    """Train `options.evolve` generations; writes evolve.csv and hyp_evolve.yaml, returns the best hyper-parameters.

    A search that was interrupted goes on where evolve.csv ends if it is started again with --exist-ok.
    """
    if options.resume:
        raise UserError(
            "--evolve does not resume a training; run it again with --exist-ok to go on with its evolve.csv"
        )
    assert options.evolve is not None
    check_options(options)
    default = options.project == f"runs/train{task.run_suffix}"
    folder = Path(f"runs/evolve{task.run_suffix}" if default else options.project)
    save_dir = increment_path(folder / options.name, options.exist_ok, mkdir=True)
    start = load_hyp(options.hyp)
    genes = [name for name in RANGES if name in start]
    table = EvolutionTable(save_dir / "evolve.csv", genes, task.metric_groups)
    rng = np.random.default_rng(options.seed)
    for generation in range(len(table.rows), options.evolve):
        hyp = table.child(start, rng)
        LOGGER.info(f"\nGeneration {generation + 1}/{options.evolve}")
        save_yaml(save_dir / "hyp_candidate.yaml", hyp)
        candidate = replace(options, hyp=hyp, noval=True, nosave=True, noplots=True, exist_ok=True)
        result = train_session(build_session(candidate, task, save_dir))
        assert result is not None
        table.add(hyp, [result.fitness, *result.means])
        save_yaml(save_dir / "hyp_evolve.yaml", table.best(start))
    best = table.best(start)
    LOGGER.info(
        f"\nBest of {len(table.rows)} generations: fitness {max(r[0] for r in table.rows):.4f}\n"
        f"Use it with --hyp {(save_dir / 'hyp_evolve.yaml').as_posix()}"
    )
    return best


class EvolutionTable:
    """The generations so far, one CSV row each: fitness, the metrics of each group, then the genes."""

    def __init__(self, path: Path, genes: list[str], groups: tuple[str, ...] = ("",)) -> None:
        self.path = path
        self.metrics = [
            "fitness",
            *(f"{m}{g}" for g in groups for m in ("precision", "recall", "mAP_0.5", "mAP_0.5:0.95")),
        ]
        self.genes = genes
        self.rows: list[list[float]] = []
        if path.is_file():
            rows = read_table(
                path,
                [*self.metrics, *genes],
                "columns differ from this search's hyper-parameters; choose another --name",
            )
            self.rows = [[read_number(path, i, v) for v in row] for i, row in enumerate(rows, 1)]

    def add(self, hyp: dict[str, Any], metrics: list[float]) -> None:
        """Append a generation and write the table."""
        self.rows.append([*metrics, *(float(hyp[g]) for g in self.genes)])
        with atomic_write(self.path, "w") as file:
            csv.writer(file).writerows([[*self.metrics, *self.genes], *self.rows])

    def best(self, start: dict[str, Any]) -> dict[str, Any]:
        """`start` with the genes of the fittest generation."""
        row = max(self.rows, key=lambda r: r[0])
        return {**start, **dict(zip(self.genes, row[len(self.metrics) :], strict=True))}

    def child(self, start: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """A mutation of one of the five fittest, chosen in proportion to how far it is above the worst of them.

        The first generation is `start` itself.
        """
        if not self.rows:
            return dict(start)
        top = sorted(self.rows, key=lambda r: -r[0])[:PARENTS]
        advantage = np.array([r[0] for r in top]) - min(r[0] for r in top) + 1e-6
        parent = top[rng.choice(len(top), p=advantage / advantage.sum())][len(self.metrics) :]
        return {**start, **mutate(dict(zip(self.genes, parent, strict=True)), rng)}


def mutate(genes: dict[str, float], rng: np.random.Generator, probability: float = 0.8, sigma: float = 0.2) -> dict:
    """`genes` times normal factors around 1, clipped to 0.3..3 and to `RANGES`; at least one gene changes."""
    gains = np.array([RANGES[name][0] for name in genes])
    factors = np.ones(len(genes))
    while (factors == 1).all():
        hit = rng.random(len(genes)) < probability
        factors = (gains * hit * rng.standard_normal(len(genes)) * rng.random() * sigma + 1).clip(0.3, 3.0)
    mutated = {}
    for (name, value), factor in zip(genes.items(), factors, strict=True):
        _, low, high = RANGES[name]
        mutated[name] = round(float(np.clip(value * factor, low, high)), 5)
    return mutated
