"""One way to call a network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from models.backends import DetectMultiBackend
from models.loading import load_model
from utils.errors import UserError

Make = Callable[..., Path]


def test_checkpoint(make_weights: Make) -> None:
    path = make_weights()
    backend = DetectMultiBackend(path, torch.device("cpu"), dnn=False, data="data/x.yaml", fp16=False)
    assert (backend.pt, backend.stride, backend.names, backend.task) == (True, 32, {0: "cat", 1: "dog"}, "detect")
    assert (backend.fp16, backend.device, backend.training) == (False, torch.device("cpu"), False)
    backend.warmup(imgsz=(1, 3, 64, 64))
    image = torch.rand(1, 3, 64, 64)
    decoded, raw = backend(image)
    assert torch.equal(decoded, load_model(path)(image)[0])
    assert len(raw) == 2
    assert torch.equal(backend(image.double())[0], decoded)
    assert backend(image, augment=True)[0].shape[1] > decoded.shape[1]
    assert backend.model is backend.runtime.model


def test_ensemble_and_names_of_devices(make_weights: Make) -> None:
    files = [str(make_weights("a.pt")), str(make_weights("b.pt", seed=5))]
    backend = DetectMultiBackend(files, "cpu")
    assert backend(torch.rand(1, 3, 64, 64))[0].shape == (1, 2 * 2 * (16 * 16 + 8 * 8), 7)


def test_half_precision_is_declined_on_the_cpu(make_weights: Make, capsys: pytest.CaptureFixture[str]) -> None:
    backend = DetectMultiBackend(make_weights(), fp16=True)
    assert backend.fp16 is False
    assert backend(torch.rand(1, 3, 64, 64))[0].dtype == torch.float32
    assert capsys.readouterr().err == "warning: half precision needs a GPU; continuing in float32\n"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_half_precision_on_a_gpu(make_weights: Make) -> None:
    path, image = make_weights(), torch.rand(1, 3, 64, 64)
    backend = DetectMultiBackend(path, "cuda:0", fp16=True)
    backend.warmup((1, 3, 64, 64))
    decoded = backend(image.cuda())[0]
    assert (backend.fp16, decoded.dtype) == (True, torch.float32)  # pixels need more than eleven bits
    torch.testing.assert_close(decoded.cpu(), load_model(path)(image)[0], atol=0.5, rtol=0.02)


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("best.engine", r"best\.engine: files of kind \.engine cannot be run here; give an \.onnx"),
        (
            "best.yaml",
            r"best\.yaml: expected a checkpoint \(\.pt\) or an exported file \(\.torchscript, .*\), found \.yaml$",
        ),
        ("best", "best: expected a checkpoint"),
    ],
)
def test_other_files_are_refused_by_name(name: str, match: str) -> None:
    for weights in (name, ["best.pt", name]):
        with pytest.raises(UserError, match=match):
            DetectMultiBackend(weights)


def test_users_import_path() -> None:
    import models.common

    assert models.common.DetectMultiBackend is DetectMultiBackend
