"""A whole training epoch on the CPU: `train.py` as a process, beside the same with the baseline's parts; its memory.

Seconds per epoch come from the command's own log; the first epoch of each process (workers start, first allocations) is
left out. Ours and the baseline's take turns, one process after the other. Memory: the peak of the main process alone,
and that of all its processes, in which pages that they share count once (on Linux).
"""

from __future__ import annotations

import re
from typing import Any

from benchmarks.measuring import RATIO, command_in_turns, report, rows_table, sample
from utils.errors import UserError

OPTIONS = {"data": sample("data/coco128.yaml", "shapes.yaml"), "cfg": "yolov5_MobileNetv2.yaml", "img": 320}
OPTIONS |= {"batch": 16, "workers": 2, "epochs": 3, "turns": 2}


def later_epochs(log: str) -> list[float]:
    """Seconds of each epoch but the first that the `log` of a training tells of."""
    epochs = [float(seconds) for _, seconds in re.findall(r"^ +\d+/\d+ .* (\d+)/\1 in ([\d.]+) s", log, re.M)]
    if len(epochs) < 2:
        raise UserError(f"train.py told of {len(epochs)} epochs; --epochs must be at least 2")
    return epochs[1:]


def main(options: Any) -> None:
    names = ("data", "cfg", "img", "batch", "workers", "epochs")
    flags = [word for name in names for word in (f"--{name}", getattr(options, name))]
    flags += ["--noval", "--noplots", "--nosave"]
    rows = command_in_turns("train.py", flags, options.turns, lambda run: later_epochs(run.output))
    columns = {"seconds": ("s per epoch", "{:.1f}"), "peak_mb": ("main MB", "{:.0f}"), "tree_mb": ("all MB", "{:.0f}")}
    report(options, rows, rows_table("training", rows, {**columns, **RATIO}))
