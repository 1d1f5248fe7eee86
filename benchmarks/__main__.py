"""A short version of all benchmarks, and one table: what is to be reached, what was measured, whether that is enough.

    python -m benchmarks                        about eight minutes on two quiet cores
    python -m benchmarks --only loader nms      some of them
    python -m benchmarks --against ../older     beside another checkout (an older commit), measure by measure in turns

With --against, only our side of each measure is taken, by the files of this folder, once of the code here and once of
the code there. What cannot be measured there, because what it needs did not exist yet, is listed as missing.

Each measure is a file of this folder, run as a process; its longer version is that file's own command line.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import HERE, ROOT
from benchmarks.measures import MEASURES, Figure, Measure
from benchmarks.measuring import benchmark_parser, conditions, report, run_process, table
from utils.cli import run_command
from utils.errors import UserError, nearest

Rows = Mapping[str, Any]


def chosen(names: Sequence[str]) -> dict[str, Measure]:
    """The measures `names`, all if there are none. Raises `UserError` for one that is not known."""
    for name in names:
        if name not in MEASURES:
            known = f"; the measures are {', '.join(MEASURES)}"
            raise UserError(f"--only {name}: unknown measure{nearest(name, MEASURES)}{known}")
    return {name: MEASURES[name] for name in names or MEASURES}


def checkout(path: str) -> Path:
    """`path`, a checkout of this project. Raises `UserError` if it is none."""
    folder = Path(path).expanduser().resolve()
    missing = [name for name in ("train.py", "utils", "models", "engine") if not (folder / name).exists()]
    if missing:
        raise UserError(f"--against {path}: no checkout of this project, it has no {missing[0]}")
    return folder


def run_measure(name: str, measure: Measure, folder: Path, more: Sequence[str], root: Path = ROOT) -> tuple[Rows, str]:
    """The rows that a measure writes and the text that it prints, of the code in `root`. Raises `UserError`."""
    output = folder / f"{name}{measure.suffix}"
    words = [sys.executable, HERE / "benchmarks" / measure.script, *measure.words, *more, "--output", output]
    done = run_process(words, cwd=root, environment={"BENCHMARKS_ROOT": str(root)})
    rows = json.loads(output.read_text(encoding="utf-8"))["rows"] if output.suffix == ".json" else {}
    return rows, done.output


# Here alone -----------------------------------------------------------------------------------------------------------


def measure_here(measures: Mapping[str, Measure], folder: Path) -> tuple[list[list[str]], dict[str, Any]]:
    """Run all, print what each says; cells of the summary, and all rows by measure."""
    cells, found = [], {}
    for name, measure in measures.items():
        start = time.perf_counter()
        try:
            rows, text = run_measure(name, measure, folder, [])
        except UserError as error:
            print(f"== {name}: not measured: {error}\n", flush=True)
            rows = {}
        else:
            print(f"== {name} ({time.perf_counter() - start:.0f} s)\n\n{text}", flush=True)
        found[name] = rows
        cells += [figure.cells(figure.at(rows)) for figure in measure.summary]
    return cells, found


# Beside another checkout ----------------------------------------------------------------------------------------------


def measure_against(
    measures: Mapping[str, Measure], other: Path, turns: int, folder: Path
) -> tuple[list[list[str]], list[str]]:
    """Cells of the comparison (figure, there, here, how many times better), and what is missing, with the reason."""
    cells, missing = [], []
    for name, measure in measures.items():
        if not measure.ours:
            continue
        runs: dict[Path, list[Rows]] = {other: [], ROOT: []}
        try:
            for _ in range(turns):
                for root, own in runs.items():
                    own.append(run_measure(name, measure, folder, ["--ours"] if measure.plainly else [], root)[0])
        except UserError as error:
            missing.append(f"- {name}: cannot be measured {'here' if runs[other] else 'there'}: {error}")
        else:
            made = [compared(figure, runs[other], runs[ROOT]) for figure in measure.ours]
            cells += [line for line in made if isinstance(line, list)]
            missing += [line for line in made if isinstance(line, str)]
        print(f"== {name} done", file=sys.stderr, flush=True)
    return cells, missing


def compared(figure: Figure, there: Sequence[Rows], here: Sequence[Rows]) -> list[str] | str:
    """A line of the comparison, from the rows of each turn; or what is missing."""
    old, new = ([value for rows in turns if (value := figure.at(rows)) is not None] for turns in (there, here))
    if not old or not new:
        return f"- {figure.label}: not measured {'here' if old else 'there'}"
    a, b = median(old), median(new)
    better = b / a if figure.more_is_better else a / b
    return [figure.label, figure.text(a), figure.text(b), f"{better:.2f}×"]


def main() -> None:
    """Measure, print, write."""
    parser = benchmark_parser(__doc__, "summary", turns=1)
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help=f"of {', '.join(MEASURES)}")
    parser.add_argument("--against", metavar="PATH", help="another checkout; --turns says how often each is run")
    options = parser.parse_args()
    measures, start = chosen(options.only), time.perf_counter()
    other = checkout(options.against) if options.against else None
    with tempfile.TemporaryDirectory() as temporary:
        if other is None:
            cells, rows = measure_here(measures, Path(temporary))
            text = table(["measure", "to reach", "measured", "met"], cells)
        else:
            cells, missing = measure_against(measures, other, options.turns, Path(temporary))
            rows = {"figures": cells, "missing": missing}
            text = table(["figure", "there", "here", "better"], cells)
            text += "\n\nMissing:\n\n" + "\n".join(missing) if missing else ""
    told = conditions(minutes=round((time.perf_counter() - start) / 60, 1))
    report(options.output, told, rows, text)


if __name__ == "__main__":
    run_command(main)
