"""ncnn folders, run by ncnn, against what the networks say."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.export.formats import ncnn
from engine.export.request import ExportRequest
from models.backends.ncnn import Ncnn
from tests.engine.export.samples import answer, assert_close, fused, lively, noise, request_for
from utils.errors import UserError

for package in ("ncnn", "pnnx"):
    pytest.importorskip(package, reason="pip install -r requirements-export.txt")

CPU = torch.device("cpu")


def written(request: ExportRequest, folder: Path) -> Path:
    """The folder of `request`; nothing but it and its metadata lie in `folder` then."""
    path = folder / "best_ncnn_model"
    ncnn.check(request)
    ncnn.write(request, path)
    assert [p.name for p in folder.iterdir()] == [path.name]
    assert sorted(p.name for p in path.iterdir()) == ["best.bin", "best.param"]
    Path(f"{path}.json").write_text(request.metadata.to_json())
    return path


@pytest.mark.parametrize("layout", ["decoded", "separate", "raw"])
def test_layouts(model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str) -> None:
    (here := tmp_path / "here").mkdir()
    monkeypatch.chdir(here)
    (folder := tmp_path / "export").mkdir()
    request = request_for(model, layout)
    path = written(request, folder)
    assert list(here.iterdir()) == []
    images = noise(1)
    assert_close(list(Ncnn(path, CPU)(images).values()), answer(model, images, request.metadata))
    (words,) = ncnn.inspect(request, path)
    assert 20 < int(words.removesuffix(" layers")) < 200


def test_half_precision(tmp_path: Path) -> None:
    model, images = fused(), noise(1)
    sizes = {}
    for half in (False, True):
        request = request_for(model, half=half)
        (folder := tmp_path / str(half)).mkdir()
        path = written(replace(request, model=lively().fuse().half()) if half else request, folder)
        sizes[half] = (path / "best.bin").stat().st_size
    assert sizes[True] < 0.6 * sizes[False]
    (got,), (want,) = Ncnn(path, CPU)(images).values(), answer(model, images, request.metadata)
    assert 1e-5 < (got[..., 4:] - want[..., 4:]).abs().max() < 0.05
    torch.testing.assert_close(got[..., :4], want[..., :4], rtol=0.05, atol=0.5)


def test_a_converter_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["pnnx"], "EXEC_PATH", sys.executable)  # does not know how to read network.pt
    with pytest.raises(UserError, match=r"^pnnx made no \.param \(exit code 1\): .+$"):
        ncnn.write(request_for(lively().fuse()), tmp_path / "best_ncnn_model")
