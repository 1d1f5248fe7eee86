"""What each shipped network costs: parameters, operations, latency, memory; a fresh process for each network.

    python -m benchmarks models                             all families below models/, beside yolov5n, s and m
    python -m benchmarks models --scales n s                those letters of all families
    python -m benchmarks models --scales n s m l x --imgsz  all of them; nothing is timed
    python -m benchmarks models --cfg yolov5n yolov5_MobileNetv2-lite --repeats 50

Everything is of the fused network, as it is deployed, with 80 classes and a batch of one on the CPU. Latency: median of
the repeats. Memory: the peak that building, fusing and running at the largest size add to a process that has imported
the project. ``--threads 0``: as PyTorch decides. The JSON has the figures of the networks as they are trained, too.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.measuring import ROOT, Row, measure_apart, median_ms, peak_memory, report, rows_table
from models.yolo import model_of
from utils.model_info import count_gflops, measure_model

OPTIONS: dict[str, Any] = {"cfg": [], "scales": [], "imgsz": [320, 640], "repeats": 20, "threads": 0}
CHOICES = {"scales": tuple("nsmlx")}
BESIDE = ("yolov5n", "yolov5s", "yolov5m")


def shipped(scales: Sequence[str]) -> list[str]:
    """Families below ``models/``, at each letter of `scales` or, without any, as written, beside `BESIDE`."""
    families = sorted((path.stem for path in (ROOT / "models").rglob("*.yaml")), key=lambda s: ("-seg" in s, s))
    if not scales:
        return [*BESIDE, *families]
    return [name.replace("yolov5", f"yolov5{scale}", 1) for name in families for scale in scales]


def measure(options: Any) -> Row:
    """The figures of the network `options.network`."""
    if options.threads:
        torch.set_num_threads(options.threads)
    before = peak_memory()
    model = model_of(options.network).eval().fuse()
    images = {size: torch.rand(1, 3, size, size) for size in sorted(options.imgsz)}
    with torch.inference_mode():
        latency = {size: median_ms(partial(model, image), options.repeats) for size, image in images.items()}
    memory = peak_memory() - before

    fused, trained = measure_model(model), model_of(options.network)
    return {
        "parameters": fused.parameters,
        "layers": fused.layers,
        "gflops": {size: count_gflops(model, size) for size in (640, 320)},
        "trained": measure_model(trained)._asdict(),
        "ms": latency,
        "onnxruntime_ms": {size: onnxruntime_ms(model, image, options) for size, image in images.items()},
        "memory_mb": round(memory, 1),
        "threads": torch.get_num_threads(),
    }


def onnxruntime_ms(model: torch.nn.Module, image: torch.Tensor, options: Any) -> float | None:
    """Median milliseconds in ONNX Runtime; None where it, or what PyTorch needs to export, is not installed."""
    try:
        import onnx  # noqa: F401 - torch.onnx needs it
        import onnxruntime
        import torch.onnx
    except ImportError:
        return None
    session_options = onnxruntime.SessionOptions()
    session_options.intra_op_num_threads = options.threads
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "network.onnx")
        torch.onnx.export(model, (image,), path, input_names=["images"], opset_version=17, dynamo=False)
        session = onnxruntime.InferenceSession(path, session_options, providers=["CPUExecutionProvider"])
        feed = {"images": image.numpy()}
        return median_ms(lambda: session.run(None, feed), options.repeats)


def main(options: Any) -> None:
    rows: dict[str, Row] = {}
    for network in options.cfg or shipped(options.scales):
        rows[network] = measure_apart(measure, options, network=network)
        print(f"{network}: {rows[network]['ms']} ms", file=sys.stderr, flush=True)
    flat = {
        name: {**row, "millions": row["parameters"] / 1e6}
        | {f"{kind} {size}": value for kind in ("gflops", "ms", "onnxruntime_ms") for size, value in row[kind].items()}
        for name, row in rows.items()
    }
    columns = {"millions": ("params (M)", "{:.2f}"), "layers": ("layers", "{}")}
    columns |= {f"gflops {size}": (f"GFLOPs {size}", "{:.2f}") for size in (640, 320)}
    for kind, head in (("ms", "ms"), ("onnxruntime_ms", "ORT ms")):
        columns |= {f"{kind} {size}": (f"{head} {size}", "{:.1f}") for size in sorted(options.imgsz, reverse=True)}
    text = rows_table("network", flat, {**columns, "memory_mb": ("peak MB", "{:.0f}")})
    report(options, rows, text, threads=max(row["threads"] for row in rows.values()))
