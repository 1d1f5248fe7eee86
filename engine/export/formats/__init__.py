"""The formats that `export.py` writes; each has a module of its name here. This file imports nothing heavy."""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Sequence
from dataclasses import dataclass

from utils.errors import UserError, nearest


@dataclass(frozen=True)
class Format:
    """An export format.

    `name`: the word for ``--include``. `file`: the name of the file, or with a slash of the folder, where ``{}`` stands
    for the checkpoint's name. `packages`: the packages that writing and checking it need. `macos`: only macOS runs it.
    """

    name: str
    file: str
    packages: tuple[str, ...] = ()
    macos: bool = False

    def runs_here(self) -> bool:
        """True where this system can run the file."""
        return not self.macos or platform.system() == "Darwin"

    def missing(self) -> list[str]:
        """The packages that are not installed."""
        return [name for name in self.packages if importlib.util.find_spec(name.replace("-", "_")) is None]


FORMATS = {
    f.name: f
    for f in (
        Format("torchscript", "{}.torchscript"),
        Format("onnx", "{}.onnx", ("onnx", "onnxruntime")),
        Format("openvino", "{}_openvino_model/", ("openvino", "onnx")),
        Format("ncnn", "{}_ncnn_model/", ("pnnx", "ncnn")),
        Format("coreml", "{}.mlpackage/", ("coremltools",), macos=True),
        Format("tflite", "{}.tflite", ("litert-torch", "ai-edge-litert")),
        Format("executorch", "{}.pte", ("executorch", "torchao")),
    )
}

# formats that only YOLOv5 writes, and what to do instead
_ELSEWHERE = {
    "engine": "TensorRT builds an engine from our ONNX file, on the GPU that runs it",
    "saved_model": "onnx2tf makes a TensorFlow model from our ONNX file",
    "pb": "onnx2tf makes a TensorFlow model from our ONNX file",
    "edgetpu": "onnx2tf and the Edge TPU compiler start from our ONNX file",
    "tfjs": "a browser runs our ONNX file with onnxruntime-web",
    "paddle": "X2Paddle starts from our ONNX file",
}


def find_formats(include: str | Sequence[str]) -> list[Format]:
    """The formats that ``--include`` names, separated by spaces or commas, each once.

    Raises `UserError` for a format that is unknown, or whose packages are not installed.
    """
    words = [include] if isinstance(include, str) else list(include)
    names = list(dict.fromkeys(name for word in words for name in word.replace(",", " ").lower().split()))
    if not names:
        raise UserError(f"--include names no format; there are {', '.join(FORMATS)}")
    return [_find(name) for name in names]


def _find(name: str) -> Format:
    if name in _ELSEWHERE:
        raise UserError(f"--include {name} is not written here: {_ELSEWHERE[name]}; docs/export.md says what to type")
    if name not in FORMATS:
        raise UserError(f"--include {name}: unknown format{nearest(name, FORMATS)}; there are {', '.join(FORMATS)}")
    found = FORMATS[name]
    if missing := found.missing():
        raise UserError(f"--include {name} needs {' and '.join(missing)}: pip install {' '.join(missing)}")
    return found


def format_table() -> str:
    """A table of the formats: argument, file, packages to install, and whether this system can write it."""
    rows = [("--include", "file", "pip install", "here")]
    for f in FORMATS.values():
        here = "no, install it" if f.missing() else "yes"
        if here == "yes" and not f.runs_here():
            here = "is written, but only macOS runs it"
        rows.append((f.name, f.file.format("best"), " ".join(f.packages) or "-", here))
    widths = [max(len(row[i]) for row in rows) + 2 for i in range(4)]
    return "\n".join(
        "".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
