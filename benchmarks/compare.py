"""The same training for several networks (or flags) and several seeds: mean and spread of what comes out.

    python -m benchmarks compare --run "yolov5n = --cfg yolov5n.yaml" "ours = --cfg yolov5n_MobileNetv2.yaml" \\
        --common "--hyp hyp.shapes.yaml --optimizer AdamW --img 256 --batch 8 --epochs 20 --noval --noplots --cache"

Each training is `train.py` (`--command segment/train.py` for masks) in a process of its own, in a folder below
--project; what is finished there is not trained again. --jobs trainings run side by side, each with its share of the
cores.
"""

from __future__ import annotations

import csv
import os
import shlex
import statistics
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.measuring import Row, report, rows_table, run_process

OPTIONS: dict[str, Any] = {"run": [], "common": "", "command": "train.py", "seeds": [0, 1, 2], "jobs": 1}
OPTIONS |= {"project": "runs/compare"}


def train_once(options: Any, name: str, flags: list[str], seed: int) -> dict[str, float]:
    """One training; the metrics in the last row of its results.csv, and its seconds."""
    folder = Path(options.project).resolve() / f"{name}-{seed}"
    done = folder / "seconds.txt"
    if not done.is_file():
        words = [sys.executable, options.command, *shlex.split(options.common), *flags]
        words += ["--seed", seed, "--project", folder.parent, "--name", folder.name, "--exist-ok"]
        threads = max(1, (os.cpu_count() or 1) // options.jobs)
        finished = run_process(words, environment={"OMP_NUM_THREADS": str(threads)})
        (folder / "log.txt").write_text(finished.output, encoding="utf-8")
        done.write_text(f"{finished.seconds:.1f}\n", encoding="utf-8")
    with (folder / "results.csv").open(newline="", encoding="utf-8") as file:
        last = list(csv.DictReader(file))[-1]
    metrics = {key.removeprefix("metrics/"): float(value) for key, value in last.items() if key.startswith("metrics/")}
    return {**metrics, "seconds": float(done.read_text(encoding="utf-8"))}


def main(options: Any) -> None:
    runs = {name.strip(): shlex.split(flags) for name, _, flags in (run.partition("=") for run in options.run)}
    results: dict[str, list[dict[str, float]]] = {name: [] for name in runs}
    with ThreadPoolExecutor(options.jobs) as pool:  # seed by seed, so that an interrupted comparison is a fair one
        jobs = [(name, pool.submit(train_once, options, name, runs[name], s)) for s in options.seeds for name in runs]
        for name, job in jobs:
            results[name].append(job.result())
    rows: dict[str, Row] = {name: {} for name in runs}
    for name, own in results.items():
        for metric in own[0]:
            values = [row[metric] for row in own]
            mean = statistics.fmean(values)
            rows[name][metric] = f"{mean:.3f} ± {max(abs(value - mean) for value in values):.3f}"
    columns = {metric: (metric, "{}") for row in rows.values() for metric in row}
    report(options, results, f"mean ± largest distance from it\n\n{rows_table('run', rows, columns)}")
