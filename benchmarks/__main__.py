"""A short version of all benchmarks, and one table: what is to be reached, what was measured, whether that is enough.

    python -m benchmarks                        about eight minutes on two quiet cores
    python -m benchmarks --only loader loss     some of them
    python -m benchmarks loader --imgsz 320     one of them at length; --help tells its flags

Each measure is a file of this folder, run as a process.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.measures import FIGURES, SHORT, Figure
from benchmarks.measuring import ROOT, parse, report, run_process, table
from utils.cli import run_command
from utils.errors import UserError, nearest

OPTIONS: dict[str, Any] = {"only": []}
LONG = (*SHORT, "compare")  # what runs at length


def chosen(names: Sequence[str]) -> dict[str, str]:
    """The measures `names`, all if there are none, with their flags. Raises `UserError` for one that is not known."""
    for name in names:
        if name not in SHORT:
            raise UserError(
                f"--only {name}: unknown measure{nearest(name, SHORT)}; the measures are {', '.join(SHORT)}"
            )
    return {name: SHORT[name] for name in names or SHORT}


def summary(
    measures: Mapping[str, str], figures: Sequence[Figure], root: Path = ROOT
) -> tuple[list[list[str]], dict[str, Any]]:
    """Run all in `root`, print what each says; cells of the table, and all rows by measure."""
    cells: list[list[str]] = []
    found: dict[str, Any] = {name: {} for name in measures}
    for name, flags in measures.items():
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder) / "measured.json"
            try:
                words = [sys.executable, "-m", "benchmarks", name, *flags.split(), "--output", output]
                text = run_process(words, cwd=root).output
                found[name] = json.loads(output.read_text(encoding="utf-8"))["rows"]
                print(f"== {name} ({time.perf_counter() - start:.0f} s)\n\n{text}", flush=True)
            except UserError as error:
                print(f"== {name}: not measured: {error}\n", flush=True)
        cells += [figure.cells(found[name]) for figure in figures if figure.measure == name]
    return cells, found


def main() -> Any:
    if sys.argv[1:2] and sys.argv[1] in LONG:
        module = import_module(f"benchmarks.{sys.argv[1]}")
        return module.main(parse(module, sys.argv[2:]))
    options, start = parse(sys.modules[__name__]), time.perf_counter()
    cells, rows = summary(chosen(options.only), FIGURES)
    text = table(["measure", "to reach", "measured", "met"], cells)
    report(options, rows, text, minutes=round((time.perf_counter() - start) / 60, 1))
    return 0


if __name__ == "__main__":
    run_command(main)
