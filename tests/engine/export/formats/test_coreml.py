"""Core ML packages, which only macOS runs: here the program in them is read back and computed in torch, operation by
operation, against what the network says of the same picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import export
from engine.export.formats import FORMATS, coreml, format_table
from models.backends import coreml as runtime
from models.backends.coreml import CoreMl
from tests.engine.export.samples import SIZE, answer, fused, lively, noise, request_for, save
from utils.errors import UserError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def ct() -> Any:
    return pytest.importorskip("coremltools", reason="pip install -r requirements-export.txt")


def _pool(x: Tensor, kernel: Any, strides: Any, pad: Any) -> Tensor:
    left, right = int(pad[0]), int(pad[1])
    return F.max_pool2d(F.pad(x, (left, right, left, right), value=-torch.inf), tuple(kernel), tuple(strides))


def _slice(x: Tensor, begin: Any, end: Any, begin_mask: Any = None, end_mask: Any = None) -> Tensor:
    parts = []
    for i in range(x.ndim):
        first = None if begin_mask is not None and begin_mask[i] else int(begin[i])
        last = None if end_mask is not None and end_mask[i] else int(end[i])
        parts.append(slice(first, last))
    return x[tuple(parts)]


_OPERATIONS: dict[str, Callable[..., Tensor]] = {  # by Apple's reference of the MIL operations
    "conv": lambda x, weight, bias, strides, pad, groups, **_: F.conv2d(
        x, weight, bias, tuple(strides), (int(pad[0]), int(pad[2])), 1, int(groups)
    ),
    "add": lambda x, y: x + y,
    "mul": lambda x, y: x * y,
    "silu": lambda x: x * torch.sigmoid(x),
    "sigmoid": torch.sigmoid,
    "relu6": lambda x: x.clamp(0, 6),
    "clip": lambda x, alpha, beta: x.clamp(float(alpha), float(beta)),
    "cast": lambda x, dtype: x,  # precision is judged by the result
    "concat": lambda values, axis, **_: torch.cat(values, int(axis)),
    "reshape": lambda x, shape, **_: x.reshape(tuple(int(s) for s in shape)),
    "transpose": lambda x, perm: x.permute(*map(int, perm)),
    "slice_by_index": lambda x, begin, end, begin_mask=None, end_mask=None, **_: _slice(
        x, begin, end, begin_mask, end_mask
    ),
    "max_pool": lambda x, kernel_sizes, strides, pad, **_: _pool(x, kernel_sizes, strides, pad),
    "upsample_nearest_neighbor": lambda x, scale_factor_height, scale_factor_width: F.interpolate(
        x, scale_factor=(float(scale_factor_height), float(scale_factor_width))
    ),
}


def computed(path: Path, pixels: Tensor) -> dict[str, Tensor]:
    """Outputs of the package for an image (1, 3, H, W) of bytes, as the program in it says."""
    from coremltools.converters.mil.frontend.milproto.load import load
    from coremltools.models.utils import load_spec

    spec = load_spec(str(path))
    folder = path / "Data" / "com.apple.CoreML" / "weights"
    program = load(spec, spec.specificationVersion, str(folder))
    known: dict[str, Any] = {"images": pixels.float()}

    def value_of(entry: Any) -> Any:
        if isinstance(entry, (list, tuple)):
            return [value_of(one) for one in entry]
        if entry.name in known:
            return known[entry.name]
        value = entry.val
        floats = isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.ndim > 0
        return torch.from_numpy(value.astype(np.float32)) if floats else value

    for operation in program.functions["main"].operations:
        if operation.op_type == "const" or operation.op_type.startswith("constexpr"):
            if operation.op_type.startswith("constexpr"):
                known[operation.outputs[0].name] = torch.from_numpy(
                    np.asarray(operation.materialized_val_inference(), np.float32)
                )
            continue
        inputs = {name: value_of(entry) for name, entry in operation.inputs.items() if entry is not None}
        known[operation.outputs[0].name] = _OPERATIONS[operation.op_type](**inputs)
    return {output.name: known[output.name] for output in spec.description.output}


CASES: list[tuple[str, str, dict[str, bool]]] = [
    ("Detect", "decoded", {}),
    ("Segment", "separate", {}),
    ("Segment", "raw", {}),
    ("Detect", "decoded", {"half": True}),
    ("Detect", "separate", {"int8": True}),
]


@pytest.mark.slow  # coremltools takes ten seconds to be imported
@pytest.mark.parametrize(("head", "layout", "values"), CASES)
def test_programs(ct: Any, tmp_path: Path, head: str, layout: str, values: dict[str, bool]) -> None:
    model = fused(head)
    request = request_for(fused(head).half() if "half" in values else model, layout, **values)
    request = replace(request, metadata=replace(request.metadata, anchors=request_for(model).metadata.anchors))
    path = tmp_path / "best.mlpackage"
    coreml.check(request)
    coreml.write(request, path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    (words,) = coreml.inspect(request, path)
    assert words.endswith(" operations")
    pixels = (noise(1) * 255).round()
    got, want = computed(path, pixels), answer(model, pixels / 255, request.metadata)
    limit = {(): 1e-4, ("half",): 2e-2, ("int8",): 0.1}[tuple(values)]
    for name, expected in zip(request.metadata.outputs, want, strict=True):
        torch.testing.assert_close(got[name], expected, rtol=limit, atol=limit)
    if values:
        assert (got[request.metadata.outputs[0]] - want[0]).abs().max() > 1e-5

    spec = ct.utils.load_spec(str(path))
    (image,) = spec.description.input
    assert (image.name, image.type.WhichOneof("Type")) == ("images", "imageType")
    assert image.type.imageType.colorSpace == 20  # RGB, of Apple's FeatureTypes.proto
    half = any(
        len(tensor.dimensions) == 4 and tensor.dataType == 10  # a map in FLOAT16, of MIL.proto
        for operation in coreml._operations(spec)
        for tensor in [output.type.tensorType for output in operation.outputs]
    )
    assert half == ("half" in values)
    wrong = replace(request, metadata=replace(request.metadata, imgsz=[64, 64]))
    with pytest.raises(UserError, match="^its input is an image of 64×96, not 64×64$"):
        coreml.inspect(wrong, path)
    with pytest.raises(UserError, match="^its metadata did not come back as they were written$"):
        coreml.inspect(replace(request, metadata=replace(request.metadata, activation="Mish")), path)
    other = "raw" if layout != "raw" else "decoded"
    with pytest.raises(UserError, match="^its outputs are .*, and should be "):
        coreml.inspect(replace(request, metadata=replace(request.metadata, layout=other)), path)


@pytest.mark.slow
def test_the_command_says_that_it_was_not_run(
    ct: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("platform.system", lambda: "Linux")
    weights = save(lively(), tmp_path / "best.pt")
    (path,) = export.run(weights=str(weights), include=["coreml"], imgsz=list(SIZE))
    assert path == tmp_path / "best.mlpackage"
    assert " operations, not run, which needs macOS" in capsys.readouterr().out


def test_the_table_says_who_runs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(FORMATS["coreml"]), "missing", lambda self: [])
    for system, here in (("Linux", "is written, but only macOS runs it"), ("Darwin", "yes")):
        monkeypatch.setattr("platform.system", lambda system=system: system)
        assert FORMATS["coreml"].runs_here() == (system == "Darwin")
        (row,) = [line for line in format_table().splitlines() if line.startswith("coreml")]
        assert row.endswith(here)


def test_the_runtime_hands_over_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a Mac that is not there: a package that answers with the picture it was given."""
    metadata = replace(request_for(lively(), "raw").metadata, batch=1)
    image = SimpleNamespace(name="images", type=SimpleNamespace(WhichOneof=lambda _: "imageType"))

    class Package:
        def __init__(self, path: str) -> None:
            self.user_defined_metadata = {"yolov5": metadata.to_json()}

        def get_spec(self) -> Any:
            return SimpleNamespace(description=SimpleNamespace(input=[image]))

        def predict(self, values: dict[str, Any]) -> dict[str, Any]:
            picture = values["images"]
            assert (picture.mode, picture.size) == ("RGB", (SIZE[1], SIZE[0]))
            return {name: np.asarray(picture)[None] + i for i, name in enumerate(metadata.outputs)}

    monkeypatch.setattr(runtime, "platform", SimpleNamespace(system=lambda: "Darwin"))
    monkeypatch.setattr(runtime, "library", lambda *_: SimpleNamespace(models=SimpleNamespace(MLModel=Package)))
    pixels = torch.randint(0, 250, (2, 3, *SIZE))
    found = CoreMl(tmp_path / "best.mlpackage", CPU)(pixels / 255)
    assert torch.equal(found["raw0"].int(), pixels.permute(0, 2, 3, 1).int())
    assert torch.equal(found["raw1"].int(), pixels.permute(0, 2, 3, 1).int() + 1)


@pytest.mark.slow
@pytest.mark.usefixtures("ct")
def test_a_package_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "platform", SimpleNamespace(system=lambda: "Darwin"))
    (path := tmp_path / "best.mlpackage").mkdir()
    with pytest.raises(UserError, match=r"best\.mlpackage is no Core ML file, or a broken one: A valid manifest"):
        CoreMl(path, CPU)
