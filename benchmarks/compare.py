"""The same training for several networks (or flags) and several seeds: mean and spread of what comes out.

    python benchmarks/compare.py --run "yolov5n = --cfg yolov5n.yaml" --run "ours = --cfg yolov5n_MobileNetv2.yaml" \\
        --common "--hyp hyp.shapes.yaml --optimizer AdamW --img 256 --batch 8 --epochs 20 --noval --noplots --cache"

Each training is `train.py` (`--command segment/train.py` for masks) in a process of its own, in a folder below
--project; what is finished there is not trained again. --jobs trainings run side by side, each with its share of the
cores. The table is Markdown; the figures go to --output as JSON.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shlex
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measuring import BenchmarkParser, positive, whole
from utils.cli import run_command

ROOT = Path(__file__).resolve().parents[1]


def train_once(options: argparse.Namespace, name: str, flags: list[str], seed: int) -> dict[str, Any]:
    """One training; its last row of results.csv, and seconds."""
    folder = Path(options.project) / f"{name}-{seed}"
    done = folder / "seconds.txt"
    if not done.is_file():
        command = [sys.executable, str(ROOT / options.command), *shlex.split(options.common), *flags]
        command += ["--seed", str(seed), "--project", options.project, "--name", folder.name, "--exist-ok"]
        threads = max(1, (os.cpu_count() or 1) // options.jobs)
        start = time.perf_counter()
        with (Path(options.project) / f"{folder.name}.log").open("w", encoding="utf-8") as log:
            subprocess.run(
                command, check=True, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": str(threads)}
            )  # fmt: skip
        done.write_text(f"{time.perf_counter() - start:.1f}\n", encoding="utf-8")
    with (folder / "results.csv").open(newline="", encoding="utf-8") as file:
        last = list(csv.DictReader(file))[-1]
    figures = {key: float(value) for key, value in last.items() if key.startswith("metrics/")}
    return {**figures, "seconds": float(done.read_text(encoding="utf-8"))}


def spread(values: list[float]) -> str:
    """Mean, and the distance of the farthest value from it."""
    mean = statistics.fmean(values)
    return f"{mean:.3f} ± {max(abs(value - mean) for value in values):.3f}"


def table(results: dict[str, list[dict[str, Any]]]) -> str:
    """Markdown: a line for each run, a column for each metric."""
    metrics = list(next(iter(results.values()))[0])
    lines = [
        "| run | " + " | ".join(m.removeprefix("metrics/") for m in metrics) + " |",
        "|---" * (len(metrics) + 1) + "|",
    ]
    for name, rows in results.items():
        lines.append(f"| {name} | " + " | ".join(spread([row[m] for row in rows]) for m in metrics) + " |")
    return "\n".join(lines)


def main() -> None:
    """Train everything, print the table, write the figures."""
    parser = BenchmarkParser(__doc__)
    parser.add_argument("--run", action="append", required=True, metavar="NAME = FLAGS", help="a network, or flags")
    parser.add_argument("--common", default="", help="flags of all trainings")
    parser.add_argument("--command", default="train.py", help="or segment/train.py")
    parser.add_argument("--seeds", type=whole, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=positive, default=1, help="trainings side by side")
    parser.add_argument("--project", default="runs/compare", help="folder of the trainings")
    parser.add_argument("--output", default=str(ROOT / "benchmarks" / "results" / "compare.json"))
    options = parser.parse_args()
    Path(options.project).mkdir(parents=True, exist_ok=True)
    runs = {name.strip(): shlex.split(flags) for name, _, flags in (run.partition("=") for run in options.run)}
    with ThreadPoolExecutor(options.jobs) as pool:  # seed by seed, so that an interrupted comparison is a fair one
        futures = {
            (name, seed): pool.submit(train_once, options, name, flags, seed)
            for seed in options.seeds
            for name, flags in runs.items()
        }
        results = {name: [futures[name, seed].result() for seed in options.seeds] for name in runs}
    print(f"{options.command} {options.common}\nseeds {options.seeds}; mean ± largest distance from it\n")
    print(table(results))
    Path(options.output).parent.mkdir(parents=True, exist_ok=True)
    Path(options.output).write_text(
        json.dumps({"options": vars(options), "results": results}, indent=1), encoding="utf-8"
    )


if __name__ == "__main__":
    run_command(main)
