"""What each shipped network costs: parameters, operations, latency, memory; one fresh process a network.

    python benchmarks/models.py                             all families below models/, beside yolov5n, s and m
    python benchmarks/models.py --scales n s                those letters of all families
    python benchmarks/models.py --cfg yolov5n yolov5_MobileNetv2-lite --repeats 50

Everything is of the fused network, as it is deployed, with 80 classes and a batch of one on the CPU. Latency: median of
the repeats. Memory: the peak that building, fusing and running at the largest size add to a process that has imported
the project. Prints a table in Markdown and writes ``benchmarks/results/models.json``, which has the figures of the
networks as they are trained, too.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.cli import CommandParser, run_command
from utils.errors import UserError
from utils.files import ROOT

BESIDE = ("yolov5n", "yolov5s", "yolov5m")
LETTERS = ("n", "s", "m", "l", "x")


def parse_opt(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = CommandParser("Measure the shipped networks")
    parser.add_argument("--cfg", nargs="*", default=[], help="networks, instead of all below models/")
    parser.add_argument("--scales", nargs="*", default=[], choices=LETTERS, help="letters, instead of none")
    parser.add_argument("--imgsz", type=int, nargs="*", default=[320, 640], help="sides of the image that is timed")
    parser.add_argument("--repeats", type=int, default=20, help="forward passes to take the median of")
    parser.add_argument("--threads", type=int, default=0, help="threads of the CPU, 0: as PyTorch decides")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "models.json")
    parser.add_argument("--child", action="store_true", help="measure the one --cfg here and print JSON")
    return parser.parse_args(argv)


def shipped(scales: Sequence[str]) -> list[str]:
    """Families below ``models/``, at each letter of `scales` or, without any, as written, beside `BESIDE`."""
    families = sorted((path.stem for path in (ROOT / "models").rglob("*.yaml")), key=lambda s: ("-seg" in s, s))
    if not scales:
        return [*BESIDE, *families]
    return [name.replace("yolov5", f"yolov5{scale}", 1) for name in families for scale in scales]


# One network, in a process of its own ---------------------------------------------------------------------------------


def measure(cfg: str, sizes: Sequence[int], repeats: int, threads: int) -> dict[str, Any]:
    """The figures of one network."""
    import torch

    from models.yolo import model_of
    from utils.model_info import count_gflops, measure_model

    if threads:
        torch.set_num_threads(threads)
    before = peak_memory()
    model = model_of(cfg).eval().fuse()
    images = {size: torch.rand(1, 3, size, size) for size in sorted(sizes)}
    with torch.inference_mode():
        latency = {size: median_ms(partial(model, image), repeats) for size, image in images.items()}
    memory = peak_memory() - before

    fused, trained = measure_model(model), model_of(cfg)
    return {
        "parameters": fused.parameters,
        "layers": fused.layers,
        "gflops": {size: count_gflops(model, size) for size in (640, 320)},
        "trained": measure_model(trained)._asdict(),
        "ms": latency,
        "onnxruntime_ms": {size: onnxruntime_ms(model, image, repeats, threads) for size, image in images.items()},
        "memory_mb": round(memory, 1),
        "threads": torch.get_num_threads(),
    }


def median_ms(run: Callable[[], Any], repeats: int) -> float:
    """Median milliseconds of `run`, after three calls to warm up."""
    times = []
    for _ in range(repeats + 3):
        start = time.perf_counter()
        run()
        times.append(1000 * (time.perf_counter() - start))
    return round(statistics.median(times[3:]), 2)


def onnxruntime_ms(model: Any, image: Any, repeats: int, threads: int) -> float | None:
    """Median milliseconds in ONNX Runtime; None where it, or what PyTorch needs to export, is not installed."""
    try:
        import onnx  # noqa: F401 - torch.onnx needs it
        import onnxruntime
        import torch.onnx
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "network.onnx")
        torch.onnx.export(model, (image,), path, input_names=["images"], opset_version=17, dynamo=False)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        feed = {"images": image.numpy()}
        return median_ms(lambda: session.run(None, feed), repeats)


def peak_memory() -> float:
    """The most memory (MB) that this process has held so far."""
    try:  # getrusage would count what the parent held when it started this process
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
    except OSError:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (1024**2 if sys.platform == "darwin" else 1024)


# All of them ----------------------------------------------------------------------------------------------------------


def in_process(cfg: str, options: argparse.Namespace) -> dict[str, Any]:
    """`measure` in a fresh process."""
    words = [sys.executable, __file__, "--child", "--cfg", cfg, "--repeats", str(options.repeats)]
    words += ["--threads", str(options.threads), "--imgsz", *map(str, options.imgsz)]
    answer = subprocess.run(words, capture_output=True, text=True)
    if answer.returncode:
        raise UserError(f"{cfg} could not be measured:\n{answer.stderr.strip()}")
    return json.loads(answer.stdout.splitlines()[-1])


def conditions(rows: dict[str, dict[str, Any]], options: argparse.Namespace) -> dict[str, Any]:
    """The machine and the software."""
    import torch

    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": max(row["threads"] for row in rows.values()),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "repeats": options.repeats,
    }


def processor() -> str:
    """What the system calls its processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def table(rows: dict[str, dict[str, Any]], sizes: Sequence[int]) -> str:
    """The rows in Markdown; columns of ONNX Runtime where it was there."""
    sizes = sorted(sizes, reverse=True)
    runtime = any(value is not None for row in rows.values() for value in row["onnxruntime_ms"].values())
    names = ["network", "params (M)", "GFLOPs 640", "GFLOPs 320", "layers", *(f"ms {size}" for size in sizes)]
    names += [f"ORT ms {size}" for size in sizes if runtime] + ["peak MB"]
    lines = ["| " + " | ".join(names) + " |", "| --- |" + " ---: |" * (len(names) - 1)]
    for name, row in rows.items():
        cells = [name, f"{row['parameters'] / 1e6:.2f}"]
        cells += [_figure(row["gflops"][size], 2) for size in ("640", "320")] + [str(row["layers"])]
        cells += [_figure(row["ms"][str(size)], 1) for size in sizes]
        cells += [_figure(row["onnxruntime_ms"][str(size)], 1) for size in sizes if runtime]
        lines.append("| " + " | ".join([*cells, f"{row['memory_mb']:.0f}"]) + " |")
    if not runtime:
        lines.append("\nONNX Runtime is not installed here (pip install onnx onnxruntime), so it has no columns.")
    return "\n".join(lines)


def _figure(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def main() -> None:
    """Measure, print, write."""
    options = parse_opt()
    if options.child:
        print(json.dumps(measure(options.cfg[0], options.imgsz, options.repeats, options.threads)))
        return
    rows = {}
    for cfg in options.cfg or shipped(options.scales):
        rows[cfg] = in_process(cfg, options)
        print(f"{cfg}: {rows[cfg]['ms']} ms", file=sys.stderr, flush=True)
    told = conditions(rows, options)
    print(", ".join(f"{key} {value}" for key, value in told.items()) + "\n")
    print(table(rows, options.imgsz))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    content = {"conditions": told, "rows": rows}
    options.output.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_command(main)
