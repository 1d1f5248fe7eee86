"""From the command to its first useful line, as whole processes: each `--help`, and `detect.py` on two photographs.

    python benchmarks/startup.py [--repeats 3] [--weights yolov5n.pt] [--photos folder]

Prints a table and writes ``benchmarks/results/startup.json``. Every figure is the best of the repeats, wall seconds and
peak resident memory of a fresh process. The plain ``import torch`` beside them says how fast the machine is.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = ("train.py", "val.py", "detect.py", "export.py", "segment/train.py", "segment/val.py", "segment/predict.py")
REACH = {"help": (0.5, None), "detect": (4.0, 850)}  # seconds, MB


def measure(words: list[str], repeats: int) -> dict[str, Any]:
    """Best wall seconds and peak memory (MB) of `words` as a process; raises if it fails."""
    runs = [_run(words) for _ in range(repeats)]
    return {"seconds": round(min(r[0] for r in runs), 3), "peak_mb": round(min(r[1] for r in runs), 1)}


def _run(words: list[str]) -> tuple[float, float]:
    start = time.perf_counter()
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)  # the usage of this child alone
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            raise SystemExit(f"{' '.join(words)} failed:\n{errors.read().decode(errors='replace')}")
    return seconds, usage.ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024)


def imports_torch(command: str) -> bool:
    """Whether ``command --help`` imports torch, by the interpreter's own log of imports."""
    words = [sys.executable, "-X", "importtime", command, "--help"]
    answer = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    return any(line.rsplit("|", 1)[-1].strip() == "torch" for line in answer.stderr.splitlines())


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = Path(os.environ.get("YOLO_TEST_DATA", ROOT.parent / "shared"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--weights", type=Path, default=data / "weights" / "yolov5n.pt")
    parser.add_argument("--photos", type=Path, default=data / "data" / "photos", help="folder with two pictures")
    options = parser.parse_args()

    rows: dict[str, dict[str, Any]] = {"import torch": measure([sys.executable, "-c", "import torch"], options.repeats)}
    for command in COMMANDS:
        if (ROOT / command).is_file():
            rows[f"{command} --help"] = measure([sys.executable, command, "--help"], options.repeats)
            rows[f"{command} --help"]["torch"] = imports_torch(command)
    if options.weights.is_file() and options.photos.is_dir():
        with tempfile.TemporaryDirectory() as folder:
            words = ["--weights", options.weights, "--source", options.photos, "--device", "cpu", "--project", folder]
            rows["detect.py on photos"] = measure([sys.executable, "detect.py", *map(str, words)], options.repeats)
    else:
        print(f"detect.py is not measured: no {options.weights} or {options.photos}")
    _report(rows, options.repeats)


def _report(rows: dict[str, dict[str, Any]], repeats: int) -> None:
    conditions = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "repeats": repeats,
    }
    print("  ".join(f"{key} {value}" for key, value in conditions.items()))
    print(f"{'command':28} {'seconds':>8} {'peak MB':>8} {'torch':>6}  to reach")
    for name, row in rows.items():
        seconds, megabytes = REACH["help" if "--help" in name else "detect"] if name != "import torch" else (None, None)
        target = " ".join(f"{value} {unit}" for value, unit in ((seconds, "s"), (megabytes, "MB")) if value is not None)
        torch = {True: "yes", False: "no", None: ""}[row.get("torch")]
        print(f"{name:28} {row['seconds']:8.2f} {row['peak_mb']:8.0f} {torch:>6}  {target}")
    target_file = ROOT / "benchmarks" / "results" / "startup.json"
    target_file.parent.mkdir(exist_ok=True)
    target_file.write_text(json.dumps({"conditions": conditions, "rows": rows}, indent=2) + "\n", encoding="utf-8")
    print(f"written to {target_file.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
