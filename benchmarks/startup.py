"""From the command to its first useful line, as whole processes: each `--help`, and `detect.py` on two photographs.

Every figure is the median of the repeats, wall seconds and peak resident memory of a fresh process; whether `--help`
imports torch is read from the interpreter's own log. The bare ``import torch`` says how fast the machine is.
"""

from __future__ import annotations

import sys
import tempfile
from statistics import median
from typing import Any

from benchmarks.measuring import ROOT, WEIGHTS, Row, report, rows_table, run_process, sample

OPTIONS = {"repeats": 3, "weights": WEIGHTS, "photos": sample("data/photos", str(ROOT / "data" / "images"))}
COMMANDS = ("train.py", "val.py", "detect.py", "export.py", "segment/train.py", "segment/val.py", "segment/predict.py")


def measure(words: list[object], repeats: int) -> Row:
    """Seconds and the largest peak (MB) of a Python process with `words`."""
    runs = [run_process([sys.executable, *words]) for _ in range(repeats)]
    return {"seconds": median(run.seconds for run in runs), "peak_mb": max(run.peak_mb for run in runs)}


def imports_torch(command: str) -> bool:
    """Whether ``command --help`` imports torch, by the interpreter's own log of imports."""
    log = run_process([sys.executable, "-X", "importtime", command, "--help"]).errors
    return any(line.rsplit("|", 1)[-1].strip() == "torch" for line in log.splitlines())


def main(options: Any) -> None:
    rows = {name: measure(["-c", name], options.repeats) for name in ("import torch", "import torch, torchvision")}
    helps = [{**measure([name, "--help"], options.repeats), "torch": imports_torch(name)} for name in COMMANDS]
    rows |= {f"{name} --help": row for name, row in zip(COMMANDS, helps, strict=True)}
    rows["all --help, the worst"] = {key: max(row[key] for row in helps) for key in helps[0]}
    with tempfile.TemporaryDirectory() as folder:
        words = ["--weights", options.weights, "--source", options.photos, "--device", "cpu", "--project", folder]
        rows["detect.py on photos"] = measure(["detect.py", *words], options.repeats)
    columns = {"seconds": ("s", "{:.2f}"), "peak_mb": ("peak MB", "{:.0f}"), "torch": ("imports torch", "")}
    report(options, rows, rows_table("command", rows, columns))
