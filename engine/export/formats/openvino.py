"""OpenVINO: a folder with an .xml and a .bin file, for Intel's processors; converted from our ONNX file."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import Any

from engine.export.formats import onnx
from engine.export.request import ExportRequest
from models.backends.openvino import only_file, openvino
from models.export_metadata import KEY
from utils.errors import UserError
from utils.logging import silenced

_CONVOLUTIONS = ("Convolution", "GroupConvolution", "ConvolutionBackpropData")
_QUANTISED = "FakeQuantize"


def check(request: ExportRequest) -> None:
    """Raise `UserError` where ONNX cannot do what the request asks for, or where --int8 lacks a package."""
    onnx.check(request.in_float())
    if request.metadata.int8:
        try:
            __import__("nncf")
        except ImportError as error:
            raise UserError("--int8 needs nncf: pip install nncf") from error


def write(request: ExportRequest, path: Path) -> None:
    """Write the folder `path`.

    With ``--half`` only the weights are in half precision. With ``--int8`` the convolutions are in 8 bits, with a scale
    per channel.
    """
    ov = openvino(path)
    path.mkdir()
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        source = Path(folder) / "network.onnx"
        onnx.write(request.in_float(), source)
        # read_model would leave the weights of depthwise convolutions behind a Reshape, where nncf takes the wrong axis
        network = ov.convert_model(str(source))
        if request.metadata.int8:
            network = _quantised(network, request)
        network.set_rt_info(request.metadata.to_json(), [KEY])
        name = path.name.removesuffix("_openvino_model")
        ov.save_model(network, str(path / f"{name}.xml"), compress_to_fp16=request.metadata.half)


def inspect(request: ExportRequest, path: Path) -> list[str]:
    """Words about the folder for the report. Raises `UserError` where it is not as requested."""
    operations = openvino(path).Core().read_model(str(only_file(path, "*.xml"))).get_ops()
    kinds = [operation.get_type_name() for operation in operations]
    words = [f"{sum(kind != 'Constant' for kind in kinds)} operations"]
    if request.metadata.int8:
        if _QUANTISED not in kinds:
            raise UserError("--int8 was asked for, but nothing in it is quantised")
        words.append(f"scales from {len(request.calibration or ())} images")
    return words


def _quantised(network: Any, request: ExportRequest) -> Any:
    """`network` with 8-bit convolutions. The operations behind the last convolutions stay in float."""
    assert request.calibration is not None  # with --int8
    with silenced():
        import nncf

        nncf.set_log_level(logging.ERROR)  # nncf has its own handlers
        return nncf.quantize(
            network,
            nncf.Dataset(request.calibration, lambda image: image.expand(request.metadata.batch, -1, -1, -1).numpy()),
            preset=nncf.QuantizationPreset.MIXED,  # the outputs of SiLU are not symmetric
            subset_size=len(request.calibration),
            ignored_scope=nncf.IgnoredScope(names=_decoding(network), validate=False),
        )


def _decoding(network: Any) -> list[str]:
    """The names of the operations between the last convolutions and the outputs of `network`."""
    found: set[str] = set()
    waiting = list(network.get_results())
    while waiting:
        operation = waiting.pop()
        name = operation.get_friendly_name()
        if name not in found and operation.get_type_name() not in _CONVOLUTIONS:
            found.add(name)
            waiting += [value.get_node() for value in operation.input_values()]
    return sorted(found)
