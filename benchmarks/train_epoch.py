"""A whole training epoch on the CPU: `train.py` as a process, beside itself the straightforward way; and its memory.

    python benchmarks/train_epoch.py [--data coco128.yaml] [--cfg yolov5_MobileNetv2.yaml] [--img 320] [--batch 16]

Seconds an epoch come from the command's own log; the first epoch of each process (workers start, first allocations) is
left out. Ours and `benchmarks/plainly.py train.py` take turns, one process after the other. Memory: the peak of the
main process alone, and that of all its processes, in which pages that they share count once (on Linux).
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import HERE, ROOT
from benchmarks.measuring import benchmark_parser, conditions, figure, ratio, report, run_process, sample, table
from utils.cli import run_command
from utils.errors import UserError


def train(flags: list[str], plainly: bool) -> tuple[list[float], dict[str, float]]:
    """Seconds of each epoch after the first of one training, and the peaks of its memory."""
    command = [HERE / "benchmarks" / "plainly.py", "train.py"] if plainly else [ROOT / "train.py"]
    with tempfile.TemporaryDirectory() as folder:
        words = [*command, *flags, "--noval", "--noplots", "--nosave", "--project", folder, "--device", "cpu"]
        done = run_process([sys.executable, *words], with_children=True)
    return later_epochs(done.output), {"peak_mb": done.peak_mb, "tree_mb": done.tree_mb}


def later_epochs(log: str) -> list[float]:
    """Seconds of each epoch but the first that the `log` of a training tells of."""
    epochs = [float(seconds) for _, seconds in re.findall(r"^ +\d+/\d+ .* (\d+)/\1 in ([\d.]+) s", log, re.M)]
    if len(epochs) < 2:
        raise UserError(f"train.py told of {len(epochs)} epochs; --epochs must be at least 2")
    return epochs[1:]


def main() -> None:
    """Train in turns, print, write."""
    parser = benchmark_parser(__doc__, "train_epoch", img=320, batch=16, workers=2, epochs=3, turns=2)
    parser.add_argument("--data", default=sample("data/coco128.yaml", "shapes.yaml"))
    parser.add_argument("--cfg", default="yolov5_MobileNetv2.yaml")
    parser.add_argument("--ours", action="store_true", help="leave the straightforward way out")
    options = parser.parse_args()
    names = ("data", "cfg", "img", "batch", "workers", "epochs")
    flags = [word for name in names for word in (f"--{name}", str(getattr(options, name)))]
    ways = {"train.py": False} if options.ours else {"train.py": False, "straightforward": True}
    epochs: dict[str, list[float]] = {name: [] for name in ways}
    rows: dict[str, dict[str, Any]] = {name: {"peak_mb": 0.0, "tree_mb": 0.0} for name in ways}
    for _ in range(options.turns):
        for name, plainly in ways.items():
            seconds, memory = train(flags, plainly)
            epochs[name] += seconds
            rows[name] = {key: max(rows[name][key], value) for key, value in memory.items()}
    for name in ways:
        rows[name]["epoch_s"] = median(epochs[name])
    if not options.ours:
        rows["train.py"]["ratio"] = ratio(epochs["straightforward"], epochs["train.py"])
    cells = [[name, f"{row['epoch_s']:.1f}", f"{row['peak_mb']:.0f}", f"{row['tree_mb']:.0f}",
              figure(row.get("ratio"), 2, "×")] for name, row in rows.items()]  # fmt: skip
    told = conditions(**{name: getattr(options, name) for name in (*names[1:], "turns")}, data=Path(options.data).stem)
    text = table(["training", "s an epoch", "main MB", "all MB", "× straightforward"], cells)
    report(options.output, told, rows, text)


if __name__ == "__main__":
    run_command(main)
