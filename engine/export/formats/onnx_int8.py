"""8-bit ONNX: static quantisation by ONNX Runtime of everything before the head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.export.request import ExportRequest
from utils.errors import UserError
from utils.logging import silenced

LEAST_OPSET = 13  # the first with a scale per channel


class _Reader:
    """Gives the calibration images to ONNX Runtime: one batch after another, and then None."""

    def __init__(self, request: ExportRequest) -> None:
        assert request.calibration is not None  # with --int8
        self._images, self._batch = iter(request.calibration), request.metadata.batch

    def get_next(self) -> dict[str, Any] | None:
        image = next(self._images, None)
        return None if image is None else {"images": image.repeat(self._batch, 1, 1, 1).numpy()}


def quantise(model: Any, request: ExportRequest, path: Path) -> None:
    """Write the float32 ONNX `model` with activations and weights in 8 bits; weights have a scale per channel.

    The head's convolutions and everything behind them stay in float32, because a tensor has only one scale, and boxes
    and confidences in one tensor would need different ones. They are a small part of the work.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    maps = [name for name in request.metadata.outputs if name not in ("output1", "prototypes")]
    head, behind = head_nodes(model.graph, maps)
    if len(head) != (levels := len(request.metadata.strides)):
        raise UserError(f"--int8: {len(head)} convolutions end the graph, not the head's {levels}")
    with silenced():
        quantize_static(
            onnx.shape_inference.infer_shapes(model),
            str(path),
            _Reader(request),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,  # weights of 7 bits: with 8, sums overflow on processors with AVX2 but no VNNI
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=[*head, *behind],
            extra_options={"CalibMovingAverage": True},  # the mean of the extremes, because outliers coarsen the scale
        )


def head_nodes(graph: Any, outputs: list[str]) -> tuple[list[str], list[str]]:
    """The names of the last convolutions before the `outputs` of an ONNX graph, and of the nodes behind them.

    Nodes without a name get one.
    """
    source = {}
    for i, node in enumerate(graph.node):
        node.name = node.name or f"node{i}"
        source.update(dict.fromkeys(node.output, node))
    head, behind = set(), set()
    ahead = list(outputs)
    while ahead:
        node = source.get(ahead.pop())
        if node is None or node.name in behind:  # an input, a constant, or seen before
            continue
        if node.op_type == "Conv":
            head.add(node.name)
        else:
            behind.add(node.name)
            ahead.extend(node.input)
    return sorted(head), sorted(behind)


def quantised_share(graph: Any) -> tuple[int, int]:
    """The number of convolutions with 8-bit weights in an ONNX graph, and the number of all convolutions."""
    dequantised = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    return sum(node.input[1] in dequantised for node in convolutions), len(convolutions)
