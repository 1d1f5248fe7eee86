"""ExecuTorch programs of tiny networks, against the networks themselves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engine.export.calibration import CalibrationImages
from engine.export.formats import executorch
from engine.export.request import ExportRequest
from engine.export.verify import photographs
from models.backends.executorch import ExecuTorch
from tests.engine.export.samples import (
    PHOTOGRAPHS,
    SIZE,
    answer,
    assert_close,
    assert_eight_bits,
    lively,
    noise,
    request_for,
)
from utils.errors import UserError

CPU = torch.device("cpu")


def written(request: ExportRequest, path: Path) -> ExecuTorch:
    executorch.check(request)
    executorch.write(request, path)
    Path(f"{path}.json").write_text(request.metadata.to_json())
    return ExecuTorch(path, CPU)


@pytest.fixture
def _converter() -> None:
    pytest.importorskip("executorch.exir", reason="pip install executorch, in an environment of its own")


@pytest.mark.usefixtures("_converter")
@pytest.mark.parametrize(("head", "layout"), [("Detect", "decoded"), ("Segment", "separate")])
def test_a_program_computes_what_the_network_does(tmp_path: Path, head: str, layout: str) -> None:
    model, path = lively(head), tmp_path / "best.pte"
    request = request_for(model, layout, batch=2)
    runtime = written(request, path)
    assert executorch.inspect(request, path) == ["float32"]
    got = runtime(images := noise(2))
    assert tuple(got) == request.metadata.outputs
    assert_close(list(got.values()), answer(model, images, request.metadata))
    with pytest.raises(UserError, match=r"its input is \(2, 3, 64, 96\), and should be \(1, 3, 64, 96\)"):
        executorch.inspect(request_for(model, layout), path)


@pytest.mark.slow
@pytest.mark.usefixtures("_converter")
def test_eight_bit_numbers(tmp_path: Path) -> None:
    """Head maps a few steps of 1/256 from the network's, in no more steps than eight bits tell apart."""
    model, path = lively("Segment"), tmp_path / "best.pte"
    request = replace(request_for(model, "raw", int8=True), calibration=CalibrationImages(PHOTOGRAPHS, SIZE))
    runtime = written(request, path)
    assert executorch.inspect(request, path) == ["8-bit numbers"]
    image = photographs(SIZE)[:1]
    assert_eight_bits(runtime(image).values(), answer(model, image, request.metadata))
