"""What all benchmarks share: turns and ratios, processes and their memory, command lines, tables and results."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from utils.cli import CommandParser
from utils.commands.values import Fraction, Whole
from utils.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
Row = dict[str, Any]  # a line of a table: the figures of one thing that was measured, by their names


class Times(NamedTuple):
    """Seconds of each turn, by wall clock and by this process's processor time (which hardly feels other processes)."""

    wall: list[float]
    cpu: list[float]

    @property
    def ms(self) -> float:
        """Median milliseconds by wall clock."""
        return 1e3 * statistics.median(self.wall)


def in_turns(work: Mapping[str, Callable[[], object]], turns: int, warm: int = 1) -> dict[str, Times]:
    """Do each piece of `work` once a turn, so that a noisy machine is noisy for all; the first `warm` do not count."""
    times = {name: Times([], []) for name in work}
    for turn in range(turns + warm):
        for name, function in work.items():
            wall, cpu = time.perf_counter(), time.process_time()
            function()
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            if turn >= warm:
                times[name].wall.append(wall)
                times[name].cpu.append(cpu)
    return times


def ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """How many times `slow` is `fast`: the median over the turns of what it was in each."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def median_ms(run: Callable[[], Any], repeats: int) -> float:
    """Median milliseconds of `run`, after three calls to warm up."""
    return round(in_turns({"": run}, repeats, warm=3)[""].ms, 2)


def beside(ours: Times, baseline: Times | None, *, images: int = 1) -> Row:
    """Milliseconds per image of ours and of the baseline, and how many times faster than the baseline ours is."""
    row = {"ms": ours.ms / images}
    if baseline is not None:
        row |= {"baseline_ms": baseline.ms / images, "ratio": ratio(baseline.wall, ours.wall)}
    return row


class Finished(NamedTuple):
    """A process that has come to its end, with what it wrote to standard output and standard error.

    `peak_mb` is the most memory that it held itself, `tree_mb` the most that it held together with its children, looked
    at four times a second where that was asked for (otherwise 0); pages that several processes share count once.
    """

    seconds: float
    peak_mb: float
    tree_mb: float
    output: str
    errors: str


def run_process(
    words: Sequence[object],
    *,
    with_children: bool = False,
    environment: Mapping[str, str] | None = None,
    cwd: Path = ROOT,
) -> Finished:
    """Run the command `words` to its end, with the variables of `environment` added to those of this process.

    Raises `UserError` with the last line that it wrote where it fails.
    """
    command, variables = [str(word) for word in words], {**os.environ, **(environment or {})}
    peak, tree, ended, start = [0.0], [0.0], threading.Event(), time.perf_counter()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(command, cwd=cwd, stdout=out, stderr=err, env=variables)

        def watch() -> None:
            for turn in itertools.count():
                peak.append(_peak_memory(process.pid))
                if with_children and turn % 10 == 0:
                    tree.append(tree_memory(process.pid))
                if ended.wait(0.025):
                    return

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        process.wait()
        seconds = time.perf_counter() - start
        ended.set()
        watcher.join()
        out.seek(0)
        err.seek(0)
        output, errors = (file.read().decode(errors="replace") for file in (out, err))
    if process.returncode:
        lines = (errors.strip() or output.strip()).splitlines()
        told = process.returncode > 0 and lines  # a crash has no last word
        raise UserError(lines[-1].removeprefix("error: ") if told else f"it crashed, exit code {process.returncode}")
    return Finished(seconds, max(peak), max(tree), output, errors)


_CHILD = """
import argparse, importlib, json, sys
from utils.cli import run_command
module, name, options = sys.argv[1:]
function = getattr(importlib.import_module(module), name)
run_command(lambda: print(json.dumps(function(argparse.Namespace(**json.loads(options))))))
"""


def measure_apart(function: Callable[[Any], Row], options: Any, python: str = sys.executable, **more: Any) -> Row:
    """What `function` returns for `options` and `more` in a fresh process, whose interpreter is `python`.

    Raises `UserError` where it fails.
    """
    values = json.dumps({**vars(options), **more}, default=str)
    words = [python, "-c", _CHILD, function.__module__, function.__name__, values]
    return json.loads(run_process(words).output.splitlines()[-1])


def command_in_turns(
    command: str, flags: Sequence[object], turns: int, seconds_of: Callable[[Finished], list[float]]
) -> dict[str, Row]:
    """Rows of running `command` on the CPU in turns: as it is, and under ", baseline" with the baseline's parts.

    The median of the seconds that `seconds_of` reads from each run, its ratio to ours, and the peaks of memory.
    """
    ways = {command: [command], f"{command}, baseline": ["-m", "benchmarks.baseline", command]}
    runs: dict[str, list[Finished]] = {name: [] for name in ways}
    for _, (name, way) in itertools.product(range(turns), ways.items()):
        with tempfile.TemporaryDirectory() as folder:
            words = [sys.executable, *way, *flags, "--project", folder, "--device", "cpu"]
            runs[name].append(run_process(words, with_children=True))
    ours, baseline = seconds = [[value for run in own for value in seconds_of(run)] for own in runs.values()]
    rows: dict[str, Row] = {}
    for (name, own), values in zip(runs.items(), seconds, strict=True):
        rows[name] = {"seconds": statistics.median(values)}
        rows[name] |= {key: max(getattr(run, key) for run in own) for key in ("peak_mb", "tree_mb")}
    rows[command]["ratio"] = ratio(baseline, ours)
    return rows


def peak_memory() -> float:
    """The most memory (MB) that this process has held so far; 0 where the system does not tell."""
    return _peak_memory("self")


def _peak_memory(process: int | str) -> float:
    with suppress(OSError):
        lines = Path(f"/proc/{process}/status").read_text(encoding="ascii", errors="replace").splitlines()
        return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)
    return 0.0


def tree_memory(pid: int) -> float:
    """Memory (MB) that process `pid` and all below it hold now; pages they share count once. 0 where not Linux."""
    kilobytes, waiting = 0, [pid]
    while waiting:
        folder = Path("/proc") / str(waiting.pop())
        with suppress(OSError, StopIteration):  # it has ended meanwhile
            waiting += [int(n) for f in folder.glob("task/*/children") for n in f.read_text().split()]
            lines = (folder / "smaps_rollup").read_text(encoding="ascii").splitlines()
            kilobytes += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return kilobytes / 1024


MAY_BE_0 = ("workers", "threads", "seeds")


def parse(module: Any, words: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a benchmark: a flag for each of its `OPTIONS`, which tell the defaults, and ``--output``.

    A list takes several words; None stands for a share from 0 to 1.
    """
    name = module.__name__.rpartition(".")[2]
    style = argparse.RawDescriptionHelpFormatter
    prog = f"python -m benchmarks {name}".removesuffix(" __main__")
    parser = CommandParser(module.__doc__, prog=prog, formatter_class=style)
    for option, default in module.OPTIONS.items():
        flag, several = f"--{option.replace('_', '-')}", isinstance(default, list)
        first = default[0] if several and default else default
        if first is False:
            parser.add_argument(flag, action="store_true")
            continue
        kind: Any = (
            Whole(int(option not in MAY_BE_0)) if isinstance(first, int) else Fraction() if first is None else str
        )
        choices = getattr(module, "CHOICES", {}).get(option)
        told = f"default: {' '.join(map(str, default)) if several else default}"
        parser.add_argument(
            flag, type=kind, nargs="*" if several else None, choices=choices, default=default, help=told
        )
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / f"{name}.json")
    return parser.parse_args(words)


def sample(name: str, otherwise: str) -> str:
    """The path of `name` (a data set, weights) among the test data, `otherwise` where that is not there."""
    path = Path(os.environ.get("YOLO_TEST_DATA", ROOT.parent / "shared")) / name
    return str(path) if path.exists() else otherwise


WEIGHTS, DATA = sample("weights/yolov5n.pt", "yolov5n.pt"), sample("data/coco128.yaml", "coco128.yaml")


def conditions(**more: Any) -> Row:
    """`more`, of paths only the name, then the machine and the software; no name of a host."""
    told: Row = {}
    for name, value in more.items():
        if value not in (None, "", []):
            words = [
                Path(v).name if isinstance(v, (str, Path)) else v
                for v in (value if isinstance(value, list) else [value])
            ]
            told[name] = words[0] if len(words) == 1 else " ".join(map(str, words))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    told |= {"processor": _processor(), "cores": cores, "python": platform.python_version()}
    if hasattr(os, "getloadavg"):
        told["load"] = round(os.getloadavg()[0], 1)
    for package in ("torch", "numpy", "opencv-python", "opencv-python-headless"):
        with suppress(PackageNotFoundError):
            told[package] = version(package)
    return told


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Markdown that is a table on a terminal, too: the first column to the left, the others to the right."""
    cells = [[str(cell) for cell in row] for row in (heads, *rows)]
    widths = [max(3, *(len(row[i]) for row in cells)) for i in range(len(heads))]
    cells.insert(1, ["-" * width if i == 0 else "-" * (width - 1) + ":" for i, width in enumerate(widths)])
    padded = (
        [f"{row[0]:<{widths[0]}}", *(f"{c:>{w}}" for c, w in zip(row[1:], widths[1:], strict=True))] for row in cells
    )
    return "\n".join(f"| {' | '.join(row)} |" for row in padded)


def figure(value: Any, form: str = "{:.1f}") -> str:
    """`value` for a table: a number in the format `form`, yes or no; a dash where there is none."""
    if value is None:
        return "–"
    return ("yes" if value else "no") if isinstance(value, bool) else form.format(value)


RATIO = {"ratio": ("× baseline", "{:.2f}×")}
BESIDE = {"ms": ("ours ms", "{:.2f}"), "baseline_ms": ("baseline ms", "{:.2f}"), **RATIO}  # what `beside` gives


def rows_table(first: str, rows: Mapping[str, Row], columns: Mapping[str, tuple[str, str]]) -> str:
    """A line for each of `rows`, its name in the column `first`; `columns`: figure → (head, format)."""
    cells = [[name, *(figure(row.get(key), form) for key, (_, form) in columns.items())] for name, row in rows.items()]
    return table([first, *(head for head, _ in columns.values())], cells)


def report(options: argparse.Namespace, rows: Mapping[str, Any], text: str, **more: Any) -> None:
    """Print the conditions (`options` and `more` among them) and `text`; write the conditions and `rows` as JSON."""
    values = conditions(**{name: value for name, value in vars(options).items() if name != "output"} | more)
    print(", ".join(f"{name} {value}" for name, value in values.items()) + f"\n\n{text}")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps({"conditions": values, "rows": rows}, indent=1) + "\n", encoding="utf-8")
