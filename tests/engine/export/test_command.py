"""The export command: what it leaves behind, and what it does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx as onnx_package
import pytest
import torch

import export
from engine.export.formats import onnx
from engine.export.network import ExportNetwork
from engine.export.request import ExportRequest
from models.backends import DetectMultiBackend
from models.export_metadata import ExportMetadata
from models.loading import load_model
from tests.engine.export.samples import SIZE, lively, noise, save
from utils.cli import run_command
from utils.errors import UserError


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return save(lively(), tmp_path / "best.pt")


def names_in(folder: Path) -> list[str]:
    """All that lies in `folder`, hidden things too."""
    return sorted(p.name for p in folder.iterdir())


def export_onnx(weights: Path, **more: Any) -> list[Path]:
    return export.run(weights=str(weights), include=["onnx"], imgsz=list(SIZE), **more)


def test_files_lie_beside_the_checkpoint_with_their_metadata(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = export.run(weights=str(weights), include=["onnx,TorchScript", "onnx"], imgsz=list(SIZE))
    assert files == [weights.with_suffix(".onnx"), weights.with_suffix(".torchscript")]
    metadata_files = ["best.onnx.json", "best.torchscript.json"]
    assert names_in(weights.parent) == sorted(["best.onnx", "best.pt", "best.torchscript", *metadata_files])
    texts = [(weights.parent / name).read_text() for name in metadata_files]
    assert texts[0] == texts[1]
    metadata = ExportMetadata.from_json(texts[0])
    assert (metadata.imgsz, metadata.layout, metadata.batch, metadata.dynamic) == ([64, 96], "decoded", 1, False)
    assert metadata.names == {0: "0", 1: "1", 2: "2"}
    out = capsys.readouterr().out
    assert "opset 17" in out
    assert out.count("largest differences from PyTorch: boxes ") == 2


def test_the_flags_reach_the_metadata(weights: Path) -> None:
    flags = {"topk_all": 7, "conf_thres": 0.1, "iou_thres": 0.3, "agnostic_nms": True, "batch_size": 2}
    export_onnx(weights, nms=True, dynamic=True, **flags)
    metadata = ExportMetadata.from_json(weights.with_name("best.onnx.json").read_text())
    assert (metadata.layout, metadata.dynamic, metadata.batch) == ("nms", True, 2)
    assert (metadata.max_det, metadata.conf_thres, metadata.iou_thres, metadata.agnostic) == (7, 0.1, 0.3, True)


@pytest.mark.parametrize("head", ["Detect", "Segment"])
@pytest.mark.parametrize("layout", ["separate_heads", "raw_heads", "nms"])
def test_a_file_of_every_layout_stands_for_its_checkpoint(head: str, layout: str, tmp_path: Path) -> None:
    """Through `DetectMultiBackend`, as val.py and detect.py read it: what suppression makes of it is the same."""
    from utils.ops.nms import non_max_suppression

    weights = save(lively(head), tmp_path / "best.pt")
    flags = {"conf_thres": 0.05, "topk_all": 300} if layout == "nms" else {}
    (file,) = export_onnx(weights, dynamic=True, **{layout: True}, **flags)
    images, nm = noise(3, seed=1), 4 * (head == "Segment")
    with torch.inference_mode():
        found, truth = (
            non_max_suppression(DetectMultiBackend(path)(images)[0], 0.05, 0.45, nm=nm) for path in (file, weights)
        )
    assert min(len(rows) for rows in truth) > 5
    for rows, expected in zip(found, truth, strict=True):
        torch.testing.assert_close(rows, expected, rtol=1e-4, atol=1e-3)


def spoil_weights(path: Path) -> None:
    proto = onnx_package.load(str(path))
    bias = next(t for t in proto.graph.initializer if t.name.endswith("m.0.bias"))
    values = onnx_package.numpy_helper.to_array(bias) + 0.01
    bias.CopyFrom(onnx_package.numpy_helper.from_array(values.astype("float32"), bias.name))
    onnx_package.save(proto, str(path))


def spoil_metadata(path: Path) -> None:
    proto = onnx_package.load(str(path))
    for entry in proto.metadata_props:
        entry.value = entry.value.replace('"1": "1"', '"1": "one"')
    onnx_package.save(proto, str(path))


def spoil_output_name(path: Path) -> None:
    proto = onnx_package.load(str(path))
    proto.graph.output[0].name = next(n for n in proto.graph.node if n.op_type == "Concat").output[0]
    onnx_package.save(proto, str(path))


@pytest.fixture
def spoiled(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Path], object]], None]:
    """Makes the ONNX writer's files wrong in one way."""
    write = onnx.write

    def spoil(change: Callable[[Path], object]) -> None:
        def written(request: ExportRequest, path: Path) -> None:
            write(request, path)
            change(path)

        monkeypatch.setattr(onnx, "write", written)

    return spoil


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (spoil_weights, "it differs from PyTorch by boxes "),
        (spoil_metadata, "its metadata did not come back as they were written"),
        (spoil_output_name, "lacks the outputs output0"),
    ],
)
def test_a_wrong_file_is_set_aside_and_the_old_one_stays(
    weights: Path, spoiled: Any, change: Callable[[Path], object], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (good,) = export_onnx(weights)
    before, metadata = good.read_bytes(), weights.with_name("best.onnx.json").read_bytes()
    spoiled(change)
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        run_command(lambda: export_onnx(weights, dynamic=True))
    assert stop.value.code == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: best.onnx: ")
    assert told in lines[0]
    assert lines[0].endswith(f"; kept as {weights.with_name('best-failed.onnx')}")
    assert (good.read_bytes(), weights.with_name("best.onnx.json").read_bytes()) == (before, metadata)
    assert names_in(weights.parent) == ["best-failed.onnx", "best.onnx", "best.onnx.json", "best.pt"]
    assert weights.with_name("best-failed.onnx").read_bytes() != before


def test_wrong_anchors_are_found(
    weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def network(request: ExportRequest, select: Any = None) -> ExportNetwork:
        anchors = [[[w, h + 0.5] for w, h in level] for level in request.metadata.anchors]
        return ExportNetwork(request.model, replace(request.metadata, anchors=anchors), select)

    monkeypatch.setattr(ExportRequest, "network", network)
    with pytest.raises(UserError, match=r"^best\.torchscript: it differs from PyTorch by boxes .*failed\.torchscript$"):
        export.run(weights=str(weights), include=["torchscript"], imgsz=list(SIZE))
    assert names_in(weights.parent) == ["best-failed.torchscript", "best.pt"]


def test_without_verification_it_is_not_found(weights: Path, spoiled: Any, capsys: pytest.CaptureFixture[str]) -> None:
    spoiled(spoil_weights)
    export_onnx(weights, verify=False)
    assert names_in(weights.parent) == ["best.onnx", "best.onnx.json", "best.pt"]
    assert "largest differences" not in capsys.readouterr().out


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), KeyboardInterrupt()])
def test_a_writer_that_stops_half_way_leaves_what_was_there(
    weights: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    (good,) = export_onnx(weights)
    before = good.read_bytes()

    def stop(request: ExportRequest, path: Path) -> None:
        path.write_bytes(b"half")
        raise error

    monkeypatch.setattr(onnx, "write", stop)
    with pytest.raises(type(error)):
        export_onnx(weights)
    assert good.read_bytes() == before
    assert names_in(weights.parent) == ["best.onnx", "best.onnx.json", "best.pt"]


def test_everything_is_checked_before_the_first_file_is_written(weights: Path) -> None:
    with pytest.raises(UserError, match="^--half: TorchScript"):  # the second one
        export.run(weights=str(weights), include=["onnx", "torchscript"], imgsz=list(SIZE), half=True)
    assert names_in(weights.parent) == ["best.pt"]


def test_the_checkpoint_is_not_touched(weights: Path) -> None:
    before = weights.read_bytes()
    export_onnx(weights, half=True, simplify=True)
    assert weights.read_bytes() == before
    assert {p.dtype for p in load_model(weights).parameters()} == {torch.float32}


def test_torchscript_is_what_is_written_by_default(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As YOLOv5 does, of the newest training; here at a small size."""
    newest = weights.parent / "runs" / "train" / "exp" / "weights" / "best.pt"
    newest.parent.mkdir(parents=True)
    weights.rename(newest)
    monkeypatch.chdir(weights.parent)
    (file,) = export.run(imgsz=64)
    assert file.resolve() == newest.with_suffix(".torchscript")
