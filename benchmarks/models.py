"""What each shipped network costs: parameters, operations, latency, memory; one fresh process a network.

    python benchmarks/models.py                             all families below models/, beside yolov5n, s and m
    python benchmarks/models.py --scales n s                those letters of all families
    python benchmarks/models.py --scales n s m l x --imgsz  all of them; nothing is timed
    python benchmarks/models.py --cfg yolov5n yolov5_MobileNetv2-lite --repeats 50

Everything is of the fused network, as it is deployed, with 80 classes and a batch of one on the CPU. Latency: median of
the repeats. Memory: the peak that building, fusing and running at the largest size add to a process that has imported
the project. Prints a table in Markdown and writes ``benchmarks/results/models.json``, which has the figures of the
networks as they are trained, too.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import HERE, ROOT
from benchmarks.measuring import conditions, figure, median_ms, peak_memory, positive, report, run_process, table, whole
from utils.cli import CommandParser, run_command

BESIDE = ("yolov5n", "yolov5s", "yolov5m")
LETTERS = ("n", "s", "m", "l", "x")


def parse_opt(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = CommandParser("Measure the shipped networks")
    parser.add_argument("--cfg", nargs="*", default=[], help="networks, instead of all below models/")
    parser.add_argument("--scales", nargs="*", default=[], choices=LETTERS, help="letters, instead of none")
    parser.add_argument(
        "--imgsz",
        type=positive,
        nargs="*",
        default=[320, 640],
        help="sides of the image that is timed; none: nothing is timed",
    )
    parser.add_argument("--repeats", type=positive, default=20, help="forward passes to take the median of")
    parser.add_argument("--threads", type=whole, default=0, help="threads of the CPU, 0: as PyTorch decides")
    parser.add_argument("--output", type=Path, default=HERE / "benchmarks" / "results" / "models.json")
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


# All of them ----------------------------------------------------------------------------------------------------------


def in_process(cfg: str, options: argparse.Namespace) -> dict[str, Any]:
    """`measure` in a fresh process."""
    words = [sys.executable, __file__, "--child", "--cfg", cfg, "--repeats", options.repeats]
    words += ["--threads", options.threads, "--imgsz", *options.imgsz]
    return json.loads(run_process(words).output.splitlines()[-1])


def networks_table(rows: dict[str, dict[str, Any]], sizes: Sequence[int]) -> str:
    """The rows; columns of ONNX Runtime where it was there."""
    sizes = sorted(sizes, reverse=True)
    runtime = any(value is not None for row in rows.values() for value in row["onnxruntime_ms"].values())
    heads = ["network", "params (M)", "GFLOPs 640", "GFLOPs 320", "layers", *(f"ms {size}" for size in sizes)]
    heads += [f"ORT ms {size}" for size in sizes if runtime] + ["peak MB"]
    lines = []
    for name, row in rows.items():
        cells = [name, f"{row['parameters'] / 1e6:.2f}"]
        cells += [figure(row["gflops"][size], 2) for size in ("640", "320")] + [str(row["layers"])]
        cells += [figure(row["ms"][str(size)]) for size in sizes]
        cells += [figure(row["onnxruntime_ms"][str(size)]) for size in sizes if runtime]
        lines.append([*cells, f"{row['memory_mb']:.0f}"])
    text = table(heads, lines)
    if sizes and not runtime:
        text += "\n\nONNX Runtime is not installed here (pip install onnx onnxruntime), so it has no columns."
    return text


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
    told = conditions(threads=max(row["threads"] for row in rows.values()), repeats=options.repeats)
    report(options.output, told, rows, networks_table(rows, options.imgsz))


if __name__ == "__main__":
    run_command(main)
