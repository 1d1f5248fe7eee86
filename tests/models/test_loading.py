"""From files to models that run: what is set, what is equal, what is refused."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from models.backends import DetectMultiBackend
from models.checkpoints.checkpoint import load_checkpoint, strip_optimizer
from models.ensemble import Ensemble
from models.experimental import Ensemble as FacadeEnsemble
from models.experimental import attempt_load
from models.loading import build_model, load_model
from models.yolo import Detect, DetectionModel, SegmentationModel
from utils.errors import UserError

from ..conftest import TINY

Make = Callable[..., Path]


@pytest.fixture
def image() -> torch.Tensor:
    return torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))


def test_model_is_complete_and_in_evaluation_mode(make_weights: Make, image: torch.Tensor) -> None:
    path = make_weights()
    model = load_model(path, fuse=False)
    assert isinstance(model, DetectionModel)
    assert not model.training
    assert (model.names, model.nc, model.task) == ({0: "cat", 1: "dog"}, 2, "detect")
    assert model.stride.tolist() == [4.0, 8.0]
    assert model.yaml["nc"] == 2
    assert not any(p.requires_grad for p in model.parameters())
    state = load_checkpoint(path).state_dict
    assert list(model.state_dict()) == list(state)
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    decoded, raw = model(image)
    assert decoded.shape == (2, 2 * (16 * 24 + 8 * 12), 7)
    assert len(raw) == 2
    torch.testing.assert_close(load_model(str(path), fuse=True)(image)[0], decoded, atol=1e-3, rtol=1e-4)


def test_every_tensor_comes_from_the_file(make_weights: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Building skips the drawing of weights; memory that was never written must not shine through."""
    path = make_weights()
    for fill in (0.0, float("nan")):
        empty = torch.empty
        monkeypatch.setattr(torch, "empty", lambda *a, f=fill, e=empty, **k: e(*a, **k).fill_(f))
        model = build_model(load_checkpoint(path))
        monkeypatch.undo()
        state = load_checkpoint(path).state_dict
        assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())


def test_initialisation_is_only_skipped_while_loading(make_weights: Make) -> None:
    load_model(make_weights())
    conv = torch.nn.Conv2d(3, 64, 3)
    assert 0.01 < conv.weight.std() < 0.5
    assert torch.nn.init.ones_(torch.zeros(2)).tolist() == [1.0, 1.0]


def test_the_average_is_preferred(make_weights: Make) -> None:
    state = load_checkpoint(make_weights("a.pt", seed=3)).state_dict
    path = make_weights("b.pt", ema=state)
    assert torch.equal(load_model(path, fuse=False).state_dict()["model.0.conv.weight"], state["model.0.conv.weight"])


def test_stripped_weights_give_nearly_the_same(make_weights: Make, image: torch.Tensor) -> None:
    path = make_weights()
    before = load_model(path)(image)[0]
    strip_optimizer(path)
    after = load_model(path)
    assert all(p.dtype == torch.float32 for p in after.parameters())
    difference = (after(image)[0] - before).abs()
    assert 0 < difference.max() < 0.2  # pixels; half precision has eleven bits


def test_the_file_may_go_while_the_model_lives(make_weights: Make, image: torch.Tensor) -> None:
    path = make_weights()
    model = load_model(path)
    before = model(image)[0]
    path.write_bytes(b"\x00" * path.stat().st_size)
    assert torch.equal(model(image)[0], before)


def test_ensemble_joins_candidates(make_weights: Make, image: torch.Tensor) -> None:
    files = [make_weights("a.pt", seed=1), make_weights("b.pt", seed=2)]
    ensemble = load_model(files)
    assert isinstance(ensemble, Ensemble)
    assert FacadeEnsemble is Ensemble
    one, two = (load_model(f)(image)[0] for f in files)
    joined, rest = ensemble(image)
    assert rest is None
    assert torch.equal(joined, torch.cat((one, two), 1))
    assert (ensemble.names, ensemble.nc, ensemble.task) == ({0: "cat", 1: "dog"}, 2, "detect")
    assert ensemble.stride.tolist() == [4.0, 8.0]
    assert ensemble.fuse() is ensemble
    assert ensemble(image, augment=True)[0].shape[1] > 0


def test_ensemble_of_different_classes_is_refused(make_weights: Make) -> None:
    files = [make_weights("a.pt"), make_weights("b.pt", names=("x", "y", "z"))]
    with pytest.raises(UserError, match=r"same names everywhere: .*a\.pt has 2 names .*b\.pt has 3 names"):
        load_model(files)


@pytest.mark.parametrize("weights", ["", [], [""], ["best.pt", ""]])
def test_no_weights(weights: Any) -> None:
    with pytest.raises(UserError, match="no weights given; pass --weights"):
        load_model(weights)


def test_wrong_shapes_and_descriptions_are_named(make_weights: Make) -> None:
    path = make_weights()
    state = load_checkpoint(path).state_dict
    state["model.0.conv.weight"] = torch.zeros(8, 3, 6, 6)
    with pytest.raises(
        UserError, match=r"bad.pt does not fit its network: 'model.0.conv.weight' is \[8, 3, 6, 6\] in the "
    ):
        load_model(make_weights("bad.pt", state_dict=state))
    cfg = {**load_checkpoint(path).cfg, "backbone": [[-1, 1, "Konv", [8, 3, 2]]]}
    with pytest.raises(UserError, match=r"bad.pt: .*Konv"):
        load_model(make_weights("bad.pt", cfg=cfg))
    with pytest.raises(UserError, match=r"bad.pt is for the task 'pose'"):
        load_model(make_weights("bad.pt", task="pose"))


def test_attempt_load_keeps_yolov5s_signature(make_weights: Make, image: torch.Tensor) -> None:
    path = make_weights()
    model = attempt_load(str(path), device="cpu", inplace=False, fuse=True)
    assert model.model[-1].inplace is False  # type: ignore[index, union-attr]
    assert torch.equal(model(image)[0], load_model(path)(image)[0])


# Segmenters ----------------------------------------------------------------------------------------------------------


def test_segmenter(make_weights: Make, image: torch.Tensor) -> None:
    path = make_weights("seg.pt", head="Segment")
    model = load_model(path, fuse=False)
    assert isinstance(model, SegmentationModel)
    assert (model.task, model.names, model.head.nm) == ("segment", {0: "cat", 1: "dog"}, 4)
    twin = SegmentationModel(load_checkpoint(path).cfg).eval()
    twin.load_state_dict(load_checkpoint(path).state_dict)
    with torch.no_grad():
        expected = twin(image)
    assert (expected[0].shape, expected[1].shape) == ((2, 2 * (16 * 24 + 8 * 12), 11), (2, 4, 32, 48))
    assert expected[1].std() > 1e-3
    for found in (model(image), DetectMultiBackend(path, fuse=False)(image)):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
    for fused in (load_model(path), attempt_load(path), DetectMultiBackend(path)):
        torch.testing.assert_close(fused(image), expected, rtol=1e-4, atol=1e-3)
    assert DetectMultiBackend(path).task == "segment"
    strip_optimizer(path)
    torch.testing.assert_close(load_model(path)(image)[1], expected[1], rtol=0.02, atol=0.02)


def test_ensembles_of_segmenters(make_weights: Make, image: torch.Tensor) -> None:
    files = [make_weights(f"{seed}.pt", seed=seed, head="Segment") for seed in (1, 2)]
    backend = DetectMultiBackend([str(f) for f in files], "cpu")
    decoded, prototypes, raw = backend(image)
    assert (backend.task, decoded.shape, prototypes.shape, raw) == ("segment", (2, 1920, 15), (2, 8, 32, 48), None)
    with pytest.raises(UserError, match=r"same task everywhere: .*1\.pt has 'segment', .*d\.pt has 'detect'"):
        load_model([files[0], make_weights("d.pt")])


def test_task_and_head_that_disagree(make_weights: Make) -> None:
    path = make_weights("seg.pt", head="Segment", task="detect")
    with pytest.raises(UserError, match=r"seg\.pt: row 4, Segment .*: a head for the task 'segment', in a network for"):
        load_model(path)


# Published -----------------------------------------------------------------------------------------------------------


def test_published_checkpoint(shared_data: Path) -> None:
    model = load_model(shared_data / "weights" / "yolov5n.pt", fuse=False)
    assert (len(model.state_dict()), model.nc, model.names[0]) == (349, 80, "person")
    assert model.stride.tolist() == [8.0, 16.0, 32.0]
    assert sum(p.numel() for p in model.parameters()) == 1872157


def test_networks_of_older_releases(tmp_path: Path, image: torch.Tensor) -> None:
    """Focus, SPP and the head's second buffer, as releases before v6 pickled them."""
    backbone = [[-1, 1, "Focus", [8, 3]], [-1, 1, "Conv", [16, 3, 2]], [-1, 1, "SPP", [16, [5, 9, 13]]]]
    head = [[-1, 1, "BottleneckCSP", [16, False]], [[2, 3], 1, "Detect", ["nc", "anchors"]]]
    old = DetectionModel({**TINY, "backbone": backbone, "head": head}).eval()
    for row in old.model:
        del row.built  # ours alone
    old.head.register_buffer("anchor_grid", old.head.anchors.clone().view(2, 1, -1, 1, 1, 2))
    old.names = ["cat", "dog"]  # type: ignore[assignment]
    torch.save({"model": old, "epoch": -1}, tmp_path / "v4.pt")
    new = load_model(tmp_path / "v4.pt", fuse=False)
    assert new.names == {0: "cat", 1: "dog"}
    assert torch.equal(new(image)[0], old(image)[0])


@pytest.mark.parametrize("legacy", [False, True])
def test_segmenter_as_v7_published_them(tmp_path: Path, legacy: bool, image: torch.Tensor) -> None:
    """Modules under YOLOv5's class paths, in half precision, and a head that keeps the function `Detect.forward`."""
    cfg = {"nc": 2, "depth_multiple": 0.33, "width_multiple": 0.25, "anchors": [[10, 13, 16, 30], [30, 61, 62, 45]]}
    cfg |= {
        "backbone": [[-1, 1, "Conv", [32, 6, 2, 2]], [-1, 1, "Conv", [32, 3, 2]], [-1, 3, "C3", [64]]],
        "head": [[-1, 1, "Conv", [64, 3, 2]], [[2, 3], 1, "Segment", ["nc", "anchors", 8, 32]]],
    }
    torch.manual_seed(0)
    published = SegmentationModel(cfg)
    for value in published.state_dict().values():
        if value.is_floating_point() and value.dim() < 3:
            value.uniform_(0.5, 1.5)
    published.half()
    state = {name: value.clone() for name, value in published.state_dict().items()}
    for row in published.model:
        del row.built  # ours alone
    del published.head._kept_grid, published.head.proto.upsample.recompute_scale_factor
    published.head.detect = Detect.forward  # type: ignore[assignment]
    published.names = ["cat", "dog"]  # type: ignore[assignment]
    path = tmp_path / "yolov5n-seg.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the old container would keep the classes' source text
        content = {"model": published, "ema": None, "epoch": -1, "optimizer": None}
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    assert b"getattr" in path.read_bytes()

    model = load_model(path, fuse=False)
    assert (type(model), model.names, model.yaml["head"]) == (SegmentationModel, {0: "cat", 1: "dog"}, cfg["head"])
    twin = SegmentationModel(cfg).eval()
    twin.load_state_dict(state)  # half to float32
    with torch.no_grad():
        expected = twin(image)
    assert expected[1].shape == (2, 8, 32, 48)
    assert expected[1].std() > 1e-3
    torch.testing.assert_close(model(image), expected, rtol=0, atol=0)
    with torch.no_grad():
        torch.testing.assert_close(load_model(path)(image), expected, rtol=1e-3, atol=1e-3)
