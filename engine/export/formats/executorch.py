"""ExecuTorch: a program (.pte) for PyTorch's runtime on phones and boards, which computes by XNNPACK."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from engine.export.formats.mobile import calibration_batches, check_mobile
from engine.export.request import ExportRequest
from utils.errors import UserError
from utils.logging import silenced


def check(request: ExportRequest) -> None:
    """Raise `UserError` where the request asks for something that this format cannot do."""
    check_mobile(request, "ExecuTorch")


def write(request: ExportRequest, path: Path) -> None:
    """Write the file `path`."""
    with silenced(), torch.no_grad():
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        network: nn.Module = _quantised(request) if request.metadata.int8 else request.network()
        exported = torch.export.export(network, (request.example(),))
        program = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()]).to_executorch()
        path.write_bytes(program.buffer)


def _quantised(request: ExportRequest) -> nn.Module:
    """The network in 8 bits: a scale per channel of the weights, and one per map, from the calibration images."""
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    watched = prepare_pt2e(torch.export.export(request.network(), (request.example(),)).module(), quantizer)
    for images in calibration_batches(request):
        watched(images)
    return convert_pt2e(watched)


def inspect(request: ExportRequest, path: Path) -> list[str]:
    """Words about the file for the report. Raises `UserError` where it is not as requested."""
    from executorch.runtime import Runtime

    about: Any = Runtime.get().load_program(path).metadata("forward")
    size, want = tuple(about.input_tensor_meta(0).sizes()), tuple(request.example().shape)
    if size != want:
        raise UserError(f"its input is {size}, and should be {want}")
    return ["8-bit numbers" if request.metadata.int8 else "float32"]
