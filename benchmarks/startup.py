"""From the command to its first useful line, as whole processes: each `--help`, and `detect.py` on two photographs.

    python benchmarks/startup.py [--repeats 3] [--weights yolov5n.pt] [--photos folder]

Every figure is the median of the repeats, wall seconds and peak resident memory of a fresh process; whether `--help`
imports torch is read from the interpreter's own log. The plain ``import torch`` says how fast the machine is.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import HERE, ROOT
from benchmarks.measuring import benchmark_parser, conditions, report, run_process, sample, table
from utils.cli import run_command

COMMANDS = ("train.py", "val.py", "detect.py", "export.py", "segment/train.py", "segment/val.py", "segment/predict.py")
REACH = {"help": (0.5, None), "detect": (4.0, 850)}  # seconds, MB


def measure(words: list[object], repeats: int) -> dict[str, Any]:
    """Seconds and the largest peak (MB) of a Python process with `words`."""
    runs = [run_process([sys.executable, *words]) for _ in range(repeats)]
    return {"seconds": median(run.seconds for run in runs), "peak_mb": max(run.peak_mb for run in runs)}


def imports_torch(command: str) -> bool:
    """Whether ``command --help`` imports torch, by the interpreter's own log of imports."""
    words = [sys.executable, "-X", "importtime", command, "--help"]
    answer = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    return any(line.rsplit("|", 1)[-1].strip() == "torch" for line in answer.stderr.splitlines())


def main() -> None:
    """Measure, print, write."""
    parser = benchmark_parser(__doc__, "startup", repeats=3)
    parser.add_argument("--weights", default=sample("weights/yolov5n.pt", "yolov5n.pt"))
    photos = sample("data/photos", str(HERE / "data" / "images"))
    parser.add_argument("--photos", default=photos, help="folder with two pictures")
    options = parser.parse_args()

    rows: dict[str, dict[str, Any]] = {"import torch": measure(["-c", "import torch"], options.repeats)}
    for command in COMMANDS:
        if (ROOT / command).is_file():
            rows[f"{command} --help"] = measure([command, "--help"], options.repeats)
            rows[f"{command} --help"]["torch"] = imports_torch(command)
    helps = [row for name, row in rows.items() if "--help" in name]
    rows["all --help, the worst"] = {key: max(row[key] for row in helps) for key in helps[0]}
    with tempfile.TemporaryDirectory() as folder:
        words = ["--weights", options.weights, "--source", options.photos, "--device", "cpu", "--project", folder]
        rows["detect.py on photos"] = measure(["detect.py", *words], options.repeats)

    cells = []
    for name, row in rows.items():
        seconds, megabytes = REACH["help" if "--help" in name else "detect"] if name != "import torch" else (None, None)
        target = " ".join(f"{value} {unit}" for value, unit in ((seconds, "s"), (megabytes, "MB")) if value is not None)
        torch = {True: "yes", False: "no", None: ""}[row.get("torch")]
        cells.append([name, f"{row['seconds']:.2f}", f"{row['peak_mb']:.0f}", torch, target])
    told = conditions(repeats=options.repeats, weights=Path(options.weights).name)
    report(options.output, told, rows, table(["command", "s", "peak MB", "imports torch", "to reach"], cells))


if __name__ == "__main__":
    run_command(main)
