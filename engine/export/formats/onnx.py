"""ONNX: for ONNX Runtime, OpenCV and browsers, and as the input of many other converters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from engine.export.formats.onnx_int8 import LEAST_OPSET, quantise, quantised_share
from engine.export.request import ExportRequest
from engine.export.suppression import SelectInOnnx
from models.export_metadata import KEY, ExportMetadata
from utils.errors import UserError
from utils.logging import silenced

OPSETS = {False: range(12, 21), True: range(17, 24)}  # for the legacy exporter, and for --dynamo
DEFAULT_OPSET = {False: 17, True: 18}


def check(request: ExportRequest) -> None:
    """Raise `UserError` where the request asks for something that this format cannot do."""
    opsets, opset = OPSETS[request.dynamo], _opset(request)
    if opset not in opsets:
        hint = "with --dynamo" if request.dynamo else "without --dynamo"
        raise UserError(f"--opset {opset}: {hint} it can be {opsets[0]} to {opsets[-1]}")
    if request.metadata.int8 and opset < LEAST_OPSET:
        raise UserError(f"--opset {opset}: --int8 needs {LEAST_OPSET} or more")
    if request.dynamo and request.metadata.layout == "nms":
        raise UserError("--dynamo cannot hold --nms; leave --dynamo out")
    for wanted, package in ((request.dynamo, "onnxscript"), (request.simplify, "onnxslim")):
        if wanted:
            try:
                __import__(package)
            except ImportError as error:
                flag = "--dynamo" if package == "onnxscript" else "--simplify"
                raise UserError(f"{flag} needs {package}: pip install {package}") from error


def write(request: ExportRequest, path: Path) -> None:
    """Write the file `path`."""
    import onnx

    with silenced():
        try:
            (_write_by_dynamo if request.dynamo else _write_by_trace)(request, path)
        except torch.onnx.errors.UnsupportedOperatorError as error:
            reason = str(error).splitlines()[0][:200]
            raise UserError(f"--opset {_opset(request)} is too old for this network: {reason}") from error
    model = onnx.load(str(path))
    if request.simplify:
        import onnxslim

        model = onnxslim.slim(model)
    if request.metadata.int8:
        quantise(model, request, path)
        model = onnx.load(str(path))
    _name_sizes(model, request.metadata)
    onnx.helper.set_model_props(model, _properties(request.metadata))
    onnx.save(model, str(path))


def inspect(request: ExportRequest, path: Path) -> list[str]:
    """Words about the file for the report. Raises `UserError` where it is not as requested."""
    import onnx

    model = onnx.load(str(path))
    onnx.checker.check_model(model)
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if opset != (wanted := _opset(request)):
        raise UserError(f"--opset {wanted} was asked for, but the exporter wrote {opset}; give --opset {opset}")
    words = [f"opset {opset}", f"{len(model.graph.node)} nodes"]
    if request.metadata.int8:
        done, convolutions = quantised_share(model.graph)
        if not done:
            raise UserError("--int8 was asked for, but nothing in it is quantised")
        words.append(f"{done} of {convolutions} convolutions in 8 bits, by {len(request.calibration or ())} images")
    return words


def _opset(request: ExportRequest) -> int:
    return DEFAULT_OPSET[request.dynamo] if request.opset is None else request.opset


@torch.no_grad()
def _write_by_trace(request: ExportRequest, path: Path) -> None:
    sizes = _sizes(request.metadata).items()
    axes = {name: {i: size for i, size in enumerate(own) if isinstance(size, str)} for name, own in sizes}
    torch.onnx.export(
        request.network(SelectInOnnx.apply),
        (request.example(),),
        str(path),
        dynamo=False,
        opset_version=_opset(request),
        input_names=["images"],
        output_names=list(request.metadata.outputs),
        dynamic_axes=axes if request.metadata.dynamic else None,
    )


@torch.no_grad()
def _write_by_dynamo(request: ExportRequest, path: Path) -> None:
    sizes = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    example = request.example()
    if request.metadata.dynamic and request.metadata.batch == 1:
        example = example.repeat(2, 1, 1, 1)  # the exporter would take a size of 1 for a constant
    torch.onnx.export(
        request.network(),
        (example,),
        str(path),
        dynamo=True,
        opset_version=_opset(request),
        input_names=["images"],
        output_names=list(request.metadata.outputs),
        dynamic_shapes=(sizes,) if request.metadata.dynamic else None,
        external_data=False,
        verbose=False,
    )


def _sizes(metadata: ExportMetadata) -> dict[str, list[int | str | None]]:
    """The sizes of the input and of each output: a number, a name where it may vary, or None where it is left out."""
    ends: dict[str, list[int | str | None]] = {
        "images": [3, "height", "width"],
        "detections": [metadata.max_det, 6 + metadata.nm],
        "count": [],
        "boxes": ["anchors", 4],
        "scores": ["anchors", len(metadata.names)],
        "coefficients": ["anchors", metadata.nm],
        "output0": ["anchors", 5 + len(metadata.names) + metadata.nm],
    }
    for name in ("output1", "prototypes"):
        ends[name] = [metadata.nm, "mask_height", "mask_width"]
    for i, anchors in enumerate(metadata.anchors):
        channels = len(anchors) * (5 + len(metadata.names) + metadata.nm)
        ends[f"raw{i}"] = [channels, f"height{i}", f"width{i}"]
    return {name: ["batch", *ends[name]] for name in ("images", *metadata.outputs)}


def _name_sizes(model: Any, metadata: ExportMetadata) -> None:
    """Write the sizes of the input and the outputs into the file, where the exporter left odd names or nothing."""
    sizes = _sizes(metadata)
    for value in (*model.graph.input, *model.graph.output):
        for dim, size in zip(value.type.tensor_type.shape.dim, sizes[value.name], strict=True):
            if isinstance(size, int):
                dim.dim_value = size
            elif metadata.dynamic and size is not None:
                dim.dim_param = size


def _properties(metadata: ExportMetadata) -> dict[str, str]:
    """The metadata, and the two values that YOLOv5's own scripts look for."""
    return {KEY: metadata.to_json(), "stride": str(max(metadata.strides)), "names": repr(metadata.names)}
