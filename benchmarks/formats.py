"""What each export format gives: size, load time, latency and mAP, beside PyTorch's; fresh processes for each.

    python benchmarks/formats.py --weights best.pt --data shapes.yaml --imgsz 192       every format, float32
    python benchmarks/formats.py --weights best.pt --data shapes.yaml --imgsz 192 --include onnx openvino --int8
    python benchmarks/formats.py --weights best.pt --data shapes.yaml --imgsz 192 --hard-fail 0.5
    python benchmarks/formats.py … --python tflite=tfl/bin/python executorch=et/bin/python

Each file is written by `export.py`, which checks it against PyTorch, and measured in a process of its own, so that
libraries do not disturb each other; --python names the interpreter of a format that needs another environment. mAP: by
the code of `val.py`, every picture letterboxed to the whole of --imgsz. Latency: median of --repeats single images on
the CPU, through `DetectMultiBackend`, decoding included, suppression not. Load: from the path to a network that can be
called, the import of its library included, that of PyTorch not. What could not be measured is listed with the reason.

Prints a table in Markdown and writes it to ``benchmarks/results/formats.md``, the figures to ``formats.csv`` there.
Exit code 1 with --hard-fail: a mAP50-95 below it, or a format named by --include that gave none.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measuring import figure, median_ms, positive, processor, table, whole
from engine.export.formats import FORMATS
from utils.cli import CommandParser, image_size, run_command
from utils.errors import UserError, nearest
from utils.files import ROOT
from utils.logging import LOGGER

PRECISIONS = {"fp32": [], "fp16": ["--half"], "int8": ["--int8", "--no-verify"]}  # of 8 bits, mAP says all
RAW = ("tflite", "executorch")  # in 8 bits, these can hold the convolutions only


def share(word: str) -> float:
    """A number from 0 to 1 on the command line."""
    try:
        if 0 <= float(word) <= 1:
            return float(word)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"must lie between 0 and 1, not {word}")


def parse_opt(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = CommandParser("Measure what export.py writes")
    add = parser.add_argument
    add("--weights", required=True, help="checkpoint")
    add("--data", default="shapes.yaml", help="data set YAML: mAP on its val split; its pictures calibrate --int8")
    add("--imgsz", "--img", type=positive, nargs="+", default=[640], help="pixels: one size, or height width")
    add("--include", nargs="+", default=[], choices=list(FORMATS), help="formats, instead of all")
    add("--half", action="store_true", help="also in half precision")
    add("--int8", action="store_true", help="also in 8 bits; tflite and executorch with --raw-heads")
    add("--hard-fail", type=share, default=None, metavar="X", help="fail if a mAP50-95 is below X")
    add("--repeats", type=positive, default=50, help="passes to take the median of")
    add("--threads", type=whole, default=0, help="threads of the CPU, 0: as PyTorch decides")
    add("--workers", type=whole, default=2, help="most data loader processes")
    add("--python", nargs="+", default=[], metavar="FORMAT=PATH", help="interpreters of other environments")
    add("--keep", type=Path, default=None, metavar="DIR", help="leave the files there, instead of deleting them")
    add("--output", type=Path, default=ROOT / "benchmarks" / "results" / "formats.csv", help="a .md goes beside it")
    add("--child", nargs="*", default=None, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


class Row(NamedTuple):
    """A line of the table. `format`: as for ``--include``, or "pytorch"; `dnn`: its file is run by OpenCV."""

    format: str
    precision: str = "fp32"
    dnn: bool = False

    def __str__(self) -> str:
        words = [self.format, *(["in OpenCV"] if self.dnn else [])]
        words += [self.precision] if self.precision != "fp32" else []
        return " ".join([*words, *(["raw heads"] if self.raw else [])])

    @property
    def raw(self) -> bool:
        return self.precision == "int8" and self.format in RAW


@dataclass
class Figures:
    """What was found of a row. `maps`: mAP50 and mAP50-95 of "box" and "mask"; `reason`: why something is missing."""

    megabytes: float | None = None
    load_s: float | None = None
    ms: float | None = None
    maps: dict[str, list[float]] = field(default_factory=dict)
    threads: int = 0
    versions: dict[str, str] = field(default_factory=dict)
    reason: str = ""


def wanted(include: Sequence[str], half: bool, int8: bool) -> list[Row]:
    """The rows, PyTorch's first."""
    rows = [Row("pytorch")]
    for precision, chosen in zip(PRECISIONS, (True, half, int8), strict=True):
        for name in include if chosen else ():
            rows.append(Row(name, precision))
            if name == "onnx" and precision == "fp32":
                rows.append(Row(name, precision, dnn=True))
    return rows


# One file, in a process of its own ------------------------------------------------------------------------------------


def measure(weights: str, options: argparse.Namespace, dnn: bool, half: bool) -> dict[str, Any]:
    """The figures of one checkpoint or file: fields of `Figures`."""
    import torch

    from engine.export.accuracy import accuracy
    from models.backends import DetectMultiBackend

    if options.threads:
        torch.set_num_threads(options.threads)
    size = image_size(options.imgsz)
    start = time.perf_counter()
    backend = DetectMultiBackend(weights, dnn=dnn, fp16=half, trust=True)  # written here a moment ago
    load = time.perf_counter() - start
    if any(side % backend.stride for side in size):
        raise UserError(f"--imgsz {size[0]} {size[1]} is no multiple of the stride {backend.stride}")
    backend.check(size)
    backend.to(memory_format=torch.channels_last)  # as `val.py` and training have it
    image = torch.rand(1, 3, *size)
    with torch.inference_mode():
        ms = median_ms(lambda: backend(image), options.repeats)
    result = accuracy(
        weights, options.data, size, backend.device, workers=options.workers, dnn=dnn, fp16=half, trust=True
    )
    groups = ("box", "mask")[: len(result.groups)]
    maps = {name: [float(m.map50), float(m.map)] for name, m in zip(groups, result.groups, strict=True)}
    return {
        "load_s": round(load, 3), "ms": ms, "maps": maps, "threads": torch.get_num_threads(), "versions": versions()
    }  # fmt: skip


def versions() -> dict[str, str]:
    """Of the libraries that this process has loaded to run a network."""
    from importlib.metadata import packages_distributions, version

    modules = ("torch", "onnxruntime", "cv2", "openvino", "ncnn", "ai_edge_litert", "executorch", "coremltools")
    packages = packages_distributions()
    names = [packages[name][0] for name in modules if name in sys.modules and name in packages]
    return {name: version(name) for name in names}


# All of them ----------------------------------------------------------------------------------------------------------


class Bench:
    """Writes and measures rows, each format with its own interpreter; the files lie in `folder`."""

    def __init__(self, options: argparse.Namespace, weights: Path, folder: Path) -> None:
        self.options, self.weights, self.folder = options, weights, folder
        self.pythons = interpreters(options.python)
        self.files: dict[Row, Path | UserError] = {}  # or why there is none

    def figures(self, row: Row) -> Figures:
        """All of `row` that can be had here."""
        found = Figures()
        try:
            path = self.weights if row.format == "pytorch" else self.file(row._replace(dnn=False))
            found.megabytes = megabytes(path)
            flags = [*(["dnn"] if row.dnn else []), *(["half"] if row.precision == "fp16" else [])]
            values = json.loads(self.call(row, __file__, "--weights", str(path), "--child", *flags))
        except UserError as error:
            found.reason = str(error)
            return found
        return Figures(megabytes=found.megabytes, **values)

    def file(self, row: Row) -> Path:
        """The file of `row`, written on first use. Raises `UserError`, each time, where that fails."""
        if row not in self.files:
            try:
                self.files[row] = self.write(row)
            except UserError as error:
                self.files[row] = error
        found = self.files[row]
        if isinstance(found, UserError):
            raise found
        return found

    def write(self, row: Row) -> Path:
        """Let `export.py` write the file of `row`."""
        own = self.folder / row.precision / self.weights.name  # a folder for each: the files have the same names
        own.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.weights, own)
        flags = [*PRECISIONS[row.precision], *(["--raw-heads"] if row.raw else [])]
        self.call(row, str(ROOT / "export.py"), "--weights", str(own), "--include", row.format, *flags)
        return own.with_name(FORMATS[row.format].file.format(own.stem).rstrip("/"))

    def call(self, row: Row, script: str, *words: str) -> str:
        """The last line that `script` prints. Raises `UserError` with its own last word where it fails."""
        options = self.options
        common = ["--data", options.data, "--imgsz", *map(str, options.imgsz)]
        if script == __file__:
            common += ["--repeats", str(options.repeats), "--threads", str(options.threads)]
            common += ["--workers", str(options.workers)]
        command = [self.pythons.get(row.format, sys.executable), script, *common, *words]
        answer = subprocess.run(command, capture_output=True, text=True)
        if answer.returncode:
            lines = [line.strip() for line in answer.stderr.splitlines() if line.strip()]
            told = answer.returncode > 0 and lines  # a crash has no last word
            says = lines[-1].removeprefix("error: ") if told else f"it crashed, exit code {answer.returncode}"
            raise UserError(says.replace(f"{self.folder}{os.sep}", ""))
        return answer.stdout.splitlines()[-1] if answer.stdout else ""


def interpreters(given: Sequence[str]) -> dict[str, str]:
    """Format → interpreter, of the ``FORMAT=PATH`` words."""
    found = {}
    for word in given:
        name, _, path = word.partition("=")
        if name not in FORMATS:
            raise UserError(f"--python {word}: unknown format '{name}'{nearest(name, FORMATS)}; write FORMAT=PATH")
        if not Path(path).is_file():
            raise UserError(f"--python {word}: no interpreter at '{path}'")
        found[name] = path
    return found


def megabytes(path: Path) -> float:
    """Of a file, or of all files of a folder; 10⁶ bytes."""
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return round(sum(p.stat().st_size for p in files) / 1e6, 2)


# What is told ---------------------------------------------------------------------------------------------------------


def conditions(results: dict[Row, Figures], options: argparse.Namespace) -> str:
    """The machine, the software and the question."""
    known: dict[str, str] = {}
    for figures in results.values():
        known |= figures.versions
    words = [Path(options.weights).name, Path(options.data).name, f"imgsz {'×'.join(map(str, options.imgsz))}"]
    words += [f"median of {options.repeats}", processor(), f"{os.cpu_count()} cores"]
    words += [f"{results[Row('pytorch')].threads} threads"]
    words += [f"load {os.getloadavg()[0]:.1f}"] if hasattr(os, "getloadavg") else []
    return ", ".join([*words, f"Python {platform.python_version()}", *(f"{k} {v}" for k, v in known.items())])


def formats_table(results: dict[Row, Figures]) -> str:
    """The rows in Markdown, in brackets the difference from PyTorch; then what is missing, and why."""
    reference = results[Row("pytorch")].maps
    heads = [f"{group} {name}".removeprefix("box " if len(reference) == 1 else "")
             for group in reference for name in ("mAP50", "mAP50-95")]  # fmt: skip
    lines = []
    for row, found in results.items():
        if found.megabytes is None:
            continue  # it is in the list below
        cells = [str(row), figure(found.megabytes, 2), figure(found.load_s, 2), figure(found.ms, 1)]
        for group, base in reference.items():
            for value, other in zip(found.maps.get(group, (None, None)), base, strict=True):
                gap = "" if value is None or row.format == "pytorch" else f" ({value - other:+.4f})"
                cells.append(figure(value, 4) + gap)
        lines.append(cells)
    missing = [f"- {row}: {found.reason}" for row, found in results.items() if found.reason]
    text = table(["format", "MB", "load s", "ms", *heads], lines)
    return "\n".join([text, *(["", "Not measured here:", "", *missing] if missing else [])])


def write_csv(path: Path, results: dict[Row, Figures]) -> None:
    """A line for each row; empty where there is no figure."""
    reference = results[Row("pytorch")].maps
    with path.open("w", newline="", encoding="utf-8") as file:
        names = [f"{group}_{name}" for group in reference for name in ("map50", "map")]
        head = ["format", "runtime", "precision", "layout", "megabytes", "load_s", "ms"]
        writer = csv.writer(file)
        writer.writerow([*head, *names, *(f"{name}_difference" for name in names), "reason"])
        for row, found in results.items():
            values = [value for group in reference for value in found.maps.get(group, (None, None))]
            bases = [value for group in reference.values() for value in group]
            gaps = [None if v is None else round(v - base, 6) for v, base in zip(values, bases, strict=True)]
            first = row.format, "opencv" if row.dnn else row.format, row.precision, "raw" if row.raw else "decoded"
            writer.writerow([*first, found.megabytes, found.load_s, found.ms, *values, *gaps, found.reason])


def below(results: dict[Row, Figures], least: float, named: Sequence[str]) -> list[str]:
    """Rows whose mAP50-95 is not at least `least`, and those of formats `named` that have none, with the reason."""
    found = [
        f"{row}: {group} mAP50-95 is {value:.4f}"
        for row, figures in results.items()
        for group, (_, value) in figures.maps.items()
        if not value >= least
    ]
    return found + [f"{row}: {f.reason}" for row, f in results.items() if f.reason and row.format in named]


def main() -> int:
    """Measure, print, write."""
    options = parse_opt()
    if options.child is not None:
        print(json.dumps(measure(options.weights, options, "dnn" in options.child, "half" in options.child)))
        return 0
    from models.weights import find_weights

    results: dict[Row, Figures] = {}
    with tempfile.TemporaryDirectory() as temporary:
        bench = Bench(options, find_weights(options.weights), options.keep or Path(temporary))
        for row in wanted(options.include or list(FORMATS), options.half, options.int8):
            results[row] = bench.figures(row)
            print(f"{row}: {results[row].reason or results[row].ms} ", file=sys.stderr, flush=True)
            if row.format == "pytorch" and results[row].reason:
                raise UserError(results[row].reason)
    text = f"{conditions(results, options)}\n\n{formats_table(results)}"
    print(text)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.with_suffix(".md").write_text(text + "\n", encoding="utf-8")
    write_csv(options.output, results)
    faults = [] if options.hard_fail is None else below(results, options.hard_fail, options.include)
    for fault in faults:
        LOGGER.error(f"--hard-fail {options.hard_fail}: {fault}")
    return 1 if faults else 0


if __name__ == "__main__":
    run_command(main)
