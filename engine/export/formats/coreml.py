"""Core ML: an .mlpackage for macOS and iOS.

Its input is an image of 8 bits per channel and not a tensor, because that is what Apple's Vision framework and cameras
provide; the package scales it to 0..1 itself. Nothing is lost, because every image starts as bytes. Only macOS can run
the file. Other systems write it, and check its description.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from engine.export.request import ExportRequest
from models.export_metadata import KEY
from utils.errors import UserError
from utils.logging import silenced

_QUANTISED = "constexpr_affine_dequantize"


def check(request: ExportRequest) -> None:
    """Raise `UserError` where the request asks for something that this format cannot do."""
    metadata = request.metadata
    if metadata.dynamic:
        raise UserError("--dynamic: Core ML takes images of one size; leave --dynamic out, and give --imgsz")
    if metadata.layout == "nms":
        raise UserError("--nms: a Core ML package holds no suppression; leave --nms out and suppress in your app")
    if metadata.batch != 1:
        raise UserError(f"--batch-size {metadata.batch}: Core ML takes one image at a time; leave --batch-size out")


@torch.no_grad()
def write(request: ExportRequest, path: Path) -> None:
    """Write the package `path`.

    With ``--half`` everything except the decoding is computed in half precision. With ``--int8`` the weights of the
    convolutions are stored in 8 bits with a scale per channel, and nothing else.
    """
    with silenced():
        import coremltools as ct

        plain = request.in_float()
        traced = torch.jit.trace(plain.network(), (plain.example(),), strict=False, check_trace=False)
        image = ct.ImageType("images", tuple(plain.example().shape), scale=1 / 255, color_layout=ct.colorlayout.RGB)
        package = ct.convert(
            traced,
            inputs=[image],
            outputs=[ct.TensorType(name) for name in request.metadata.outputs],
            convert_to="mlprogram",
            compute_precision=_halved(ct) if request.metadata.half else ct.precision.FLOAT32,
            minimum_deployment_target=ct.target.iOS16 if request.metadata.int8 else ct.target.iOS15,
            skip_model_load=True,
        )
        if request.metadata.int8:
            package = _quantised(package)
        package.short_description = f"{request.metadata.task}, layout {request.metadata.layout}"
        package.user_defined_metadata[KEY] = request.metadata.to_json()
        package.save(str(path))


def inspect(request: ExportRequest, path: Path) -> list[str]:
    """Words about the package for the report. Raises `UserError` where it is not as requested."""
    with silenced():
        import coremltools as ct

        spec = ct.utils.load_spec(str(path))
    height, width = request.metadata.imgsz
    image = spec.description.input[0].type.imageType
    if (image.height, image.width) != (height, width):
        raise UserError(f"its input is an image of {image.height}×{image.width}, not {height}×{width}")
    found = {output.name: tuple(output.type.multiArrayType.shape) for output in spec.description.output}
    if found != (wanted := _shapes(request)):
        raise UserError(f"its outputs are {found}, and should be {wanted}")
    if spec.description.metadata.userDefined[KEY] != request.metadata.to_json():
        raise UserError("its metadata did not come back as they were written")
    kinds = [operation.type for operation in _operations(spec)]
    if request.metadata.int8 and _QUANTISED not in kinds:
        raise UserError("--int8 was asked for, but nothing in it is quantised")
    return [f"{sum(kind != 'const' for kind in kinds)} operations"]


@torch.no_grad()
def _shapes(request: ExportRequest) -> dict[str, tuple[int, ...]]:
    """The shape of each output, computed by the network itself."""
    plain = request.in_float()
    answer = plain.network()(plain.example())
    values = [answer] if isinstance(answer, torch.Tensor) else answer
    return {name: tuple(value.shape) for name, value in zip(request.metadata.outputs, values, strict=True)}


def _halved(ct: Any) -> Any:
    """Half precision for every operation that a later convolution reads; for pixels its eleven bits are too few."""
    chosen: set[str] = set()

    def is_chosen(operation: Any) -> bool:
        if not chosen:
            for one in reversed(operation.enclosing_block.operations):
                behind = (other.name for value in one.outputs for other in value.child_ops)
                if one.op_type == "conv" or not chosen.isdisjoint(behind):
                    chosen.add(one.name)
        return operation.name in chosen

    return ct.transform.FP16ComputePrecision(op_selector=is_chosen)


def _quantised(package: Any) -> Any:
    """`package` with 8-bit weights in its convolutions. Its other constants, such as anchors, stay as they are."""
    from coremltools.optimize import coreml as optimize

    convolutions = optimize.OpLinearQuantizerConfig(mode="linear_symmetric", dtype="int8", granularity="per_channel")
    return optimize.linear_quantize_weights(
        package, config=optimize.OptimizationConfig(op_type_configs={"conv": convolutions})
    )


def _operations(spec: Any) -> Any:
    """The operations of the only function in a package."""
    (block,) = spec.mlProgram.functions["main"].block_specializations.values()
    return block.operations
