"""TensorFlow Lite files of tiny networks, against the networks themselves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import export
from engine.export.calibration import CalibrationImages
from engine.export.formats import tflite
from engine.export.request import ExportRequest
from engine.export.verify import photographs
from models.backends.tflite import TfLite
from tests.engine.export.samples import (
    PHOTOGRAPHS,
    SIZE,
    answer,
    assert_close,
    assert_eight_bits,
    lively,
    noise,
    request_for,
    save,
)
from utils.errors import UserError

CPU = torch.device("cpu")


def written(request: ExportRequest, path: Path) -> TfLite:
    tflite.check(request)
    tflite.write(request, path)
    Path(f"{path}.json").write_text(request.metadata.to_json())
    return TfLite(path, CPU)


@pytest.fixture
def _converter() -> None:
    pytest.importorskip("litert_torch", reason="pip install litert-torch, in an environment of its own")


@pytest.mark.usefixtures("_converter")
@pytest.mark.parametrize(("head", "layout"), [("Detect", "decoded"), ("Segment", "separate")])
def test_a_file_computes_what_the_network_does(tmp_path: Path, head: str, layout: str) -> None:
    """Its input is (B, H, W, 3), and its outputs come in the metadata's order."""
    model, path = lively(head), tmp_path / "best.tflite"
    request = request_for(model, layout, batch=2)
    runtime = written(request, path)
    assert tflite.inspect(request, path) == ["float32"]
    assert runtime.input["shape"].tolist() == [2, *SIZE, 3]
    got = runtime(images := noise(2))
    assert tuple(got) == request.metadata.outputs
    assert_close(list(got.values()), answer(model, images, request.metadata))
    with pytest.raises(UserError, match=r"its input is \(2, 64, 96, 3\), and should be \(1, 64, 96, 3\)"):
        tflite.inspect(request_for(model, layout), path)
    with pytest.raises(UserError, match="it has no 8-bit weights with a scale per channel"):
        tflite.inspect(request_for(model, "raw", batch=2, int8=True), path)


@pytest.mark.slow
@pytest.mark.usefixtures("_converter")
def test_eight_bit_numbers(tmp_path: Path) -> None:
    """Whole numbers, weights with a scale per channel, and head maps a few steps of 1/256 from the network's."""
    model, path = lively("Segment"), tmp_path / "best.tflite"
    request = replace(request_for(model, "raw", int8=True), calibration=CalibrationImages(PHOTOGRAPHS, SIZE))
    runtime = written(request, path)
    convolutions = sum(isinstance(m, torch.nn.Conv2d) for m in model.modules())
    assert int(tflite.inspect(request, path)[0].split()[0]) >= convolutions
    assert runtime.input["dtype"] == np.int8
    image = photographs(SIZE)[:1]
    assert_eight_bits(runtime(image).values(), answer(model, image, request.metadata))


@pytest.mark.slow
@pytest.mark.usefixtures("_converter")
def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = save(lively(), tmp_path / "best.pt")
    (path,) = export.run(weights=str(weights), include=["tflite"], imgsz=[64])
    assert (path.name, Path(f"{path}.json").is_file()) == ("best.tflite", True)
    assert "float32, largest differences from PyTorch: boxes" in capsys.readouterr().out


def test_a_gpu_is_refused() -> None:
    with pytest.raises(UserError, match="--device: TFLite files are made on the CPU; leave it out"):
        tflite.check(replace(request_for(lively()), device=torch.device("cuda")))
