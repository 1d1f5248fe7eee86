"""What each export format gives: size, load time, latency and mAP, beside PyTorch's; fresh processes for each.

    python -m benchmarks formats --weights best.pt --data shapes.yaml --imgsz 192       every format, float32
    python -m benchmarks formats --weights best.pt --data shapes.yaml --imgsz 192 --include onnx openvino --int8
    python -m benchmarks formats --weights best.pt --data shapes.yaml --imgsz 192 --hard-fail 0.5
    python -m benchmarks formats … --python tflite=tfl/bin/python executorch=et/bin/python

Each file is written by `export.py`, which checks it against PyTorch, and measured in a process of its own, so that
libraries do not disturb each other; --python names the interpreter of a format that needs another environment. --half
and --int8 add files of these precisions, for tflite and executorch in 8 bits with --raw-heads. mAP: by the code of
`val.py`, every image letterboxed to the whole of --imgsz. Latency: median of --repeats single images on the CPU,
through `DetectMultiBackend`, decoding included, suppression not. Load: from the path to a network that can be called,
the import of its library included, that of PyTorch not. What could not be measured is listed with the reason.

--keep names a folder where the files stay. Exit code 1 with --hard-fail X: a mAP50-95 below it, or a format named by
--include that gave none.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any

from benchmarks.measuring import DATA, WEIGHTS, Row, figure, measure_apart, median_ms, report, run_process, table
from engine.export.formats import FORMATS
from utils.cli import image_size
from utils.errors import UserError, nearest
from utils.logging import LOGGER

OPTIONS: dict[str, Any] = {"weights": WEIGHTS, "data": DATA, "imgsz": [640], "include": [], "half": False}
OPTIONS |= {"int8": False, "repeats": 50, "threads": 0, "workers": 2, "python": [], "keep": "", "hard_fail": None}
CHOICES = {"include": tuple(FORMATS)}
PRECISIONS = {"fp32": [], "fp16": ["--half"], "int8": ["--int8", "--no-verify"]}  # of 8 bits, mAP says all
RAW = ("tflite", "executorch")  # in 8 bits, these can hold the convolutions only
RUNTIMES = ("onnxruntime", "openvino", "ncnn", "ai_edge_litert", "executorch", "coremltools")


def measure(options: Any) -> Row:
    """The figures of one checkpoint or file, `options.file`: `maps` has mAP50 and mAP50-95 of "box" and "mask"."""
    import torch

    from engine.export.accuracy import accuracy
    from models.backends import DetectMultiBackend

    if options.threads:
        torch.set_num_threads(options.threads)
    size, more = image_size(options.imgsz), {"dnn": options.dnn, "fp16": options.fp16, "trust": True}
    start = time.perf_counter()
    backend = DetectMultiBackend(options.file, **more)  # trusted, for it was written a moment ago
    load = time.perf_counter() - start
    if any(side % backend.stride for side in size):
        raise UserError(f"--imgsz {size[0]} {size[1]} is no multiple of the stride {backend.stride}")
    backend.check(size)
    backend.to(memory_format=torch.channels_last)  # as `val.py` and training have it
    image = torch.rand(1, 3, *size)
    with torch.inference_mode():
        ms = median_ms(lambda: backend(image), options.repeats)
    groups = accuracy(options.file, options.data, size, backend.device, workers=options.workers, **more).groups
    packages = packages_distributions()
    loaded = [packages[name][0] for name in RUNTIMES if name in sys.modules and name in packages]
    return {
        "load_s": round(load, 3),
        "ms": ms,
        "maps": {name: [float(m.map50), float(m.map)] for name, m in zip(("box", "mask"), groups, strict=False)},
        "threads": torch.get_num_threads(),
        "versions": {name: version(name) for name in loaded},
    }


def measure_all(options: Any, weights: Path, folder: Path) -> dict[str, Row]:
    """A row for the checkpoint and for each file that is wanted, the files below `folder`."""
    pythons, rows = interpreters(options.python), {"pytorch": figures(weights, options)}
    if "reason" in rows["pytorch"]:
        raise UserError(rows["pytorch"]["reason"])
    for precision, chosen in zip(PRECISIONS, (True, options.half, options.int8), strict=True):
        for name in (options.include or FORMATS) if chosen else ():
            python, raw = pythons.get(name, sys.executable), precision == "int8" and name in RAW
            path: Path | UserError
            try:
                path = write(options, weights, folder, python, name, precision, raw)
            except UserError as error:
                path = error
            title = " ".join([name, *[precision] * (precision != "fp32"), *["raw heads"] * raw])
            rows[title] = figures(path, options, python, fp16=precision == "fp16")
            if title == "onnx":
                rows["onnx in OpenCV"] = figures(path, options, python, dnn=True)
    for row in rows.values():
        if "reason" in row:
            row["reason"] = row["reason"].replace(f"{folder}{os.sep}", "")
    return rows


def write(options: Any, weights: Path, folder: Path, python: str, name: str, precision: str, raw: bool) -> Path:
    """Let `export.py` write a file of format `name`. Raises `UserError` where it cannot."""
    own = folder / precision / weights.name  # a folder for each: the files have the same names
    own.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(weights, own)
    words = ["--weights", own, "--data", options.data, "--imgsz", *options.imgsz, "--include", name]
    run_process([python, "export.py", *words, *PRECISIONS[precision], *["--raw-heads"] * raw])
    return own.with_name(FORMATS[name].file.format(own.stem).rstrip("/"))


def figures(
    path: Path | UserError, options: Any, python: str = sys.executable, dnn: bool = False, fp16: bool = False
) -> Row:
    """All that can be measured of the file `path`, or under "reason" why something, or the file, is missing."""
    if isinstance(path, UserError):
        return {"reason": str(path)}
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    found: Row = {"megabytes": round(sum(p.stat().st_size for p in files) / 1e6, 2)}
    try:
        return found | measure_apart(measure, options, python, file=path, dnn=dnn, fp16=fp16)
    except UserError as error:
        return found | {"reason": str(error)}


def interpreters(given: Sequence[str]) -> dict[str, str]:
    """Format → interpreter, of the ``FORMAT=PATH`` words."""
    found = dict(word.partition("=")[::2] for word in given)
    for name, path in found.items():
        if name not in FORMATS:
            raise UserError(f"--python {name}={path}: unknown format '{name}'{nearest(name, FORMATS)}")
        if not Path(path).is_file():
            raise UserError(f"--python {name}={path}: no interpreter at '{path}'")
    return found


def formats_table(rows: Mapping[str, Row]) -> str:
    """The rows in Markdown, in brackets the difference from PyTorch; then what is missing, and why."""
    reference = rows["pytorch"]["maps"]
    heads = [f"{group} {name}".removeprefix("box " if len(reference) == 1 else "")
             for group in reference for name in ("mAP50", "mAP50-95")]  # fmt: skip
    lines = []
    for title, row in rows.items():
        cells = [
            title,
            *(figure(row.get(name), form) for name, form in (("megabytes", "{:.2f}"), ("load_s", "{:.2f}"))),
        ]
        cells.append(figure(row.get("ms")))
        for group, base in reference.items():
            for value, other in zip(row.get("maps", {}).get(group, (None, None)), base, strict=True):
                gap = "" if value is None or title == "pytorch" else f" ({value - other:+.4f})"
                cells.append(figure(value, "{:.4f}") + gap)
        if "megabytes" in row:  # else it is in the list below
            lines.append(cells)
    missing = [f"- {title}: {row['reason']}" for title, row in rows.items() if "reason" in row]
    text = table(["format", "MB", "load s", "ms", *heads], lines)
    return "\n".join([text, *(["", "Not measured here:", "", *missing] if missing else [])])


def below(rows: Mapping[str, Row], least: float, named: Sequence[str]) -> list[str]:
    """Rows whose mAP50-95 is not at least `least`, and those of formats `named` that have none, with the reason."""
    maps = [(title, group, value) for title, r in rows.items() for group, (_, value) in r.get("maps", {}).items()]
    found = [f"{title}: {group} mAP50-95 is {value:.4f}" for title, group, value in maps if not value >= least]
    return found + [f"{t}: {r['reason']}" for t, r in rows.items() if "reason" in r and t.split()[0] in named]


def main(options: Any) -> int:
    from models.weights import find_weights

    weights = find_weights(options.weights)
    with tempfile.TemporaryDirectory() as temporary:
        rows = measure_all(options, weights, Path(options.keep or temporary).resolve())
    versions = {name: text for row in rows.values() for name, text in row.get("versions", {}).items()}
    report(options, rows, formats_table(rows), threads=rows["pytorch"]["threads"], **versions)
    faults = [] if options.hard_fail is None else below(rows, options.hard_fail, options.include)
    for fault in faults:
        LOGGER.error(f"--hard-fail {options.hard_fail}: {fault}")
    return 1 if faults else 0
