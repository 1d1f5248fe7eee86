"""What all benchmarks share: turns, ratios, processes and their memory, conditions, tables, results."""

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
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from benchmarks import HERE, ROOT
from utils.errors import UserError

# Time -----------------------------------------------------------------------------------------------------------------


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


# Processes and memory -------------------------------------------------------------------------------------------------


class Finished(NamedTuple):
    """A process that has come to its end. `peak_mb`: the most memory that it held itself; `tree_mb`: with its children.

    `output` and `errors` are what it wrote to standard output and standard error.

    `tree_mb` is sampled four times a second where it was asked for (0 elsewhere): pages that several processes share
    count once.
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
    """Run `words` to their end, with the variables of `environment` set, too.

    Raises `UserError` with the last line that they wrote where they fail.
    """
    command = [str(word) for word in words]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        start = time.perf_counter()
        environment = {**os.environ, **(environment or {})}
        process = subprocess.Popen(command, cwd=cwd, stdout=out, stderr=errors, env=environment)
        with _Watch(process.pid, with_children) as watch:
            _, status, usage = os.wait4(process.pid, 0)  # the usage of this child alone
            seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        errors.seek(0)
        output, told = (file.read().decode(errors="replace") for file in (out, errors))
    if process.returncode:
        last = (told.strip() or output.strip() or f"exit code {process.returncode}").splitlines()[-1]
        raise UserError(f"{Path(command[1]).name if len(command) > 1 else command[0]}: {last.removeprefix('error: ')}")
    return Finished(seconds, watch.peak_mb or _megabytes(usage.ru_maxrss), watch.tree_mb, output, told)


class _Watch(threading.Thread):
    """Follows the memory of process `pid` until the block ends, that of its children only if wanted. 0 off Linux.

    What the system says of a process that has ended would count what its parent held when it started it.
    """

    def __init__(self, pid: int, with_children: bool) -> None:
        super().__init__(daemon=True)
        self.pid, self.with_children = pid, with_children
        self.peak_mb = self.tree_mb = 0.0
        self._ended = threading.Event()

    def __enter__(self) -> _Watch:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self.join()

    def run(self) -> None:
        for turn in itertools.count():
            self.peak_mb = max(self.peak_mb, _status_peak(self.pid))
            if self.with_children and turn % 10 == 0:
                self.tree_mb = max(self.tree_mb, tree_memory(self.pid))
            if self._ended.wait(0.025):
                return


def peak_memory() -> float:
    """The most memory (MB) that this process has held so far."""
    if peak := _status_peak("self"):
        return peak
    import resource

    return _megabytes(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def _status_peak(process: int | str) -> float:
    """The most memory (MB) that a running process has held; 0 where the system does not tell."""
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


def tree_memory(pid: int) -> float:
    """Memory (MB) that process `pid` and all below it hold now; pages they share count once. 0 where not Linux."""
    kilobytes, waiting = 0, [pid]
    while waiting:
        folder = Path("/proc") / str(waiting.pop())
        try:
            waiting += [int(n) for f in folder.glob("task/*/children") for n in f.read_text().split()]
            lines = (folder / "smaps_rollup").read_text(encoding="ascii").splitlines()
            kilobytes += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        except (OSError, StopIteration):
            continue  # it has ended meanwhile
    return kilobytes / 1024


def _megabytes(maxrss: int) -> float:
    return maxrss / (1024**2 if sys.platform == "darwin" else 1024)


# Conditions, tables, results ------------------------------------------------------------------------------------------


def conditions(**more: Any) -> dict[str, Any]:
    """`more`, then the machine and the software; no name of a host or a path."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    told = {**more, "processor": processor(), "cores": cores, "python": platform.python_version()}
    if hasattr(os, "getloadavg"):
        told["load"] = round(os.getloadavg()[0], 1)
    for package in ("torch", "numpy", "opencv-python", "opencv-python-headless"):
        try:
            told[package] = version(package)
        except PackageNotFoundError:
            continue
    return told


def processor() -> str:
    """What the system calls its processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Markdown that is a table on a terminal, too: the first column to the left, the others to the right."""
    cells = [[str(cell) for cell in row] for row in (heads, *rows)]
    widths = [max(3, *(len(row[i]) for row in cells)) for i in range(len(heads))]
    lines = [
        "| "
        + " | ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        for row in cells
    ]
    rule = "| " + " | ".join("-" * w if i == 0 else "-" * (w - 1) + ":" for i, w in enumerate(widths))
    return "\n".join(f"{line} |" for line in (lines[0], rule, *lines[1:]))


def figure(value: float | None, digits: int = 1, unit: str = "") -> str:
    """`value` for a table; a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}{unit}"


def told(values: Mapping[str, Any]) -> str:
    """Conditions as one line."""
    return ", ".join(f"{name} {value}" for name, value in values.items())


def report(output: Path, values: Mapping[str, Any], rows: Mapping[str, Any], text: str) -> None:
    """Print the conditions `values` and the table `text`, and write both the conditions and `rows` as JSON."""
    print(f"{told(values)}\n\n{text}")
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps({"conditions": values, "rows": rows}, indent=1) + "\n", encoding="utf-8")


# Command lines --------------------------------------------------------------------------------------------------------


class BenchmarkParser(argparse.ArgumentParser):
    """A parser whose errors are one line. (Not the commands' own: the code that is measured may be an older one.)"""

    def __init__(self, documentation: str | None) -> None:
        super().__init__(description=documentation, formatter_class=argparse.RawDescriptionHelpFormatter)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; {self.prog} --help lists the flags\n")


def whole(word: str) -> int:
    """A number on the command line: 0 or more."""
    if not word.isdecimal() or len(word) > 9:
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 to 999999999, not '{word}'")
    return int(word)


def positive(word: str) -> int:
    """A number on the command line: 1 or more."""
    if (number := whole(word)) < 1:
        raise argparse.ArgumentTypeError("must be 1 or more, not 0")
    return number


def benchmark_parser(documentation: str | None, name: str, **numbers: int) -> BenchmarkParser:
    """A parser with ``--output`` (results/`name`.json) and a flag for each of `numbers`, their defaults.

    A number whose default is 0 may be 0.
    """
    parser = BenchmarkParser(documentation)
    for flag, default in numbers.items():
        parser.add_argument(
            f"--{flag}", type=positive if default else whole, default=default, help=f"default {default}"
        )
    parser.add_argument("--output", type=Path, default=HERE / "benchmarks" / "results" / f"{name}.json")
    return parser


def sample(name: str, otherwise: str) -> str:
    """The path of `name` (a data set, weights) among the test data, `otherwise` where that is not there."""
    path = Path(os.environ.get("YOLO_TEST_DATA", HERE.parent / "shared")) / name
    return str(path) if path.exists() else otherwise
