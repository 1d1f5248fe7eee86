"""ExecuTorch programs of tiny networks, against the networks themselves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.export.calibration import CalibrationImages
from engine.export.formats import executorch
from engine.export.job import Job
from engine.export.network import card_of
from engine.export.verify import expected, pictures, verify
from models.backends import DetectMultiBackend
from models.backends.executorch import ExecuTorch
from models.loading import load_model
from utils.errors import UserError
from utils.files import ROOT

Make = Callable[..., Path]
SIZE = (64, 96)
CPU = torch.device("cpu")


def job_for(weights: Path, **values: Any) -> Job:
    model: Any = load_model(weights)
    fields: dict[str, Any] = {
        "imgsz": list(SIZE), "batch": 2, "dynamic": False, "half": False, "int8": False, "layout": "decoded",
    }  # fmt: skip
    return Job(model, card_of(model, **(fields | values)), CPU)


def written(job: Job, path: Path) -> Path:
    executorch.check(job)
    executorch.write(job, path)
    Path(f"{path}.json").write_text(job.card.to_json())
    return path


@pytest.fixture
def _converter() -> None:
    pytest.importorskip("executorch.exir", reason="pip install executorch, in an environment of its own")


@pytest.mark.usefixtures("_converter")
@pytest.mark.parametrize(("head", "layout"), [("Detect", "decoded"), ("Segment", "separate"), ("Segment", "raw")])
def test_a_program_computes_what_the_network_does(make_weights: Make, tmp_path: Path, head: str, layout: str) -> None:
    job = job_for(make_weights(head=head), layout=layout)
    path = written(job, tmp_path / "best.pte")
    assert executorch.inspect(job, path) == ["float32"]
    verify(ExecuTorch(path, CPU), job.card, job.model)
    backend, images = DetectMultiBackend(path), torch.rand(3, 3, *SIZE)  # of two at a time
    with torch.inference_mode():
        decoded, want = backend(images)[0], job.model(images)[0]
    if layout != "separate":
        torch.testing.assert_close(decoded, want, rtol=1e-4, atol=1e-3)
    with pytest.raises(UserError, match=r"its input is \(2, 3, 64, 96\), and should be \(1, 3, 64, 96\)"):
        executorch.inspect(replace(job, card=replace(job.card, batch=1)), path)


@pytest.mark.slow
@pytest.mark.usefixtures("_converter")
def test_eight_bit_numbers(make_weights: Make, tmp_path: Path) -> None:
    """Head maps a few steps of 1/256 from the network's, and a smaller file."""
    photographs = tuple(str(ROOT / "data" / "images" / name) for name in ("astronaut.jpg", "cat.jpg"))
    job = job_for(make_weights(head="Segment"), layout="raw", int8=True)
    job = replace(job, calibration=CalibrationImages(photographs, SIZE))
    path = written(job, tmp_path / "best.pte")
    assert executorch.inspect(job, path) == ["8-bit numbers"]
    images = pictures(SIZE)
    got, want = ExecuTorch(path, CPU)(images), expected(job.model, images, job.card)
    for name, value in want.items():
        step = float(value.max() - value.min()) / 256
        assert float((got[name] - value).abs().mean()) < 3 * step
        assert len(got[name].unique()) <= 256  # as many as eight bits tell apart, over all channels and images
    whole = written(replace(job, card=replace(job.card, int8=False)), tmp_path / "float.pte")
    assert len(ExecuTorch(whole, CPU)(images)["raw0"].unique()) > 256
    assert path.stat().st_size < whole.stat().st_size


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dynamic": True}, "--dynamic: ExecuTorch files are of one size"),
        ({"half": True}, "--half: ExecuTorch files are written in float32"),
        ({"int8": True}, "--int8: in ExecuTorch files boxes must be decoded outside; add --raw-heads"),
        ({"layout": "nms"}, "--nms: ExecuTorch files hold no suppression"),
    ],
)
def test_what_it_cannot_do_is_refused(make_weights: Make, values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        executorch.check(job_for(make_weights(), **values))
    assert "\n" not in str(caught.value)
