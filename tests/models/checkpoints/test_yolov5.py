"""What is taken out of published checkpoints equals what Python's own unpickler gives (for files trusted here)."""

from __future__ import annotations

import datetime
import pathlib
import sys
import warnings
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from models.checkpoints.checkpoint import load_checkpoint
from utils.errors import UserError

Foreign = Callable[..., dict[str, type]]
YAML = {"nc": 2, "depth_multiple": 1.0, "width_multiple": 1.0, "anchors": 3, "backbone": [[-1, 1, "Conv", [8]]],
        "head": [[[0], 1, "Detect", ["nc", "anchors"]]], "ch": 3, "yaml_file": "x.yaml"}  # fmt: skip


def published_model(
    foreign: Foreign, model: str = "DetectionModel", head: str = "Detect", names: Any = ("cat", "dog")
) -> nn.Module:
    """A network pickled as YOLOv5 does it, made of classes in modules of the same names."""
    classes = foreign(f"models.yolo.{model}", f"models.yolo.{head}", "models.yolo.Detect", "models.common.Conv")

    def forward(self: Any) -> None: ...

    forward.__module__, forward.__qualname__ = "models.yolo", "Detect.forward"
    classes["Detect"].forward = forward  # type: ignore[attr-defined]
    conv, detect = classes["Conv"](), classes[head]()
    conv.conv, conv.bn, conv.act = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.SiLU()
    conv.register_buffer("cache", torch.ones(5), persistent=False)
    detect.nc = 2
    detect.register_buffer("anchors", torch.rand(1, 3, 2))
    detect.m = nn.ModuleList([nn.Conv2d(8, 21, 1)])
    if head == "Segment":
        detect.detect = classes["Detect"].forward  # type: ignore[attr-defined]
    net = classes[model]()
    net.model = nn.Sequential(conv, detect)
    net.yaml, net.names = dict(YAML), list(names) if isinstance(names, tuple) else names
    net.hyp = {"lr0": 0.01, "class_weights": torch.ones(2)}
    return net.half()


def same_state(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return list(found) == list(expected) and all(torch.equal(found[k], expected[k]) for k in expected)


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("legacy", [False, True])
def test_training_checkpoint_of_v7(foreign_modules: Foreign, tmp_path: Path, legacy: bool, mapped: bool) -> None:
    net, ema = published_model(foreign_modules), None
    ema = published_model(foreign_modules)  # the classes of the same names replace the former
    net.__class__, net.model[0].__class__, net.model[1].__class__ = (  # type: ignore[index, operator]
        type(ema), type(ema.model[0]), type(ema.model[1]),  # type: ignore[index, operator]
    )  # fmt: skip
    content = {
        "epoch": 7,
        "best_fitness": np.array([0.25]),
        "model": net,
        "ema": ema,
        "updates": 321,
        "optimizer": {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [{"lr": np.float64(0.1)}]},
        "opt": Namespace(data=pathlib.PurePosixPath("data/a.yaml"), save_dir=pathlib.PureWindowsPath("runs\\e"), n=1),
        "git": {"branch": None},
        "date": datetime.datetime(2023, 4, 5, 6, 7),
    }
    path = tmp_path / "last.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the old container would keep the classes' source text
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    found = load_checkpoint(path, mapped=mapped)
    assert same_state(found.state_dict, net.state_dict())
    assert found.ema is not None
    assert same_state(found.ema, ema.state_dict())
    assert not same_state(found.ema, found.state_dict)
    assert "model.0.cache" not in found.state_dict
    assert found.task == "detect"
    assert found.names == {0: "cat", 1: "dog"}
    assert found.cfg == {key: value for key, value in YAML.items() if key != "yaml_file"}
    assert (found.epoch, found.ema_updates, found.best_fitness) == (7, 321, 0.25)
    assert found.opt == {"data": "data/a.yaml", "save_dir": "runs/e", "n": 1}
    assert found.hyp is not None
    assert found.hyp["lr0"] == 0.01
    assert found.date == "2023-04-05T06:07:00"
    assert found.optimizer is None  # in another order than ours: no training of YOLOv5's can be resumed here


def test_segmenter_of_v7_with_its_getattr(foreign_modules: Foreign, tmp_path: Path) -> None:
    net = published_model(foreign_modules, "SegmentationModel", "Segment", names={0: "cat", 1: "dog"})
    path = tmp_path / "yolov5n-seg.pt"
    torch.save({"model": net, "ema": None, "epoch": -1}, path)
    found = load_checkpoint(path)
    assert found.task == "segment"
    assert same_state(found.state_dict, net.state_dict())


def test_bare_and_wrapped_models(foreign_modules: Foreign, tmp_path: Path) -> None:
    net = published_model(foreign_modules, "Model")
    torch.save(net, tmp_path / "bare.pt")
    torch.save({"model": nn.DataParallel(net)}, tmp_path / "parallel.pt")
    for name in ("bare.pt", "parallel.pt"):
        assert same_state(load_checkpoint(tmp_path / name).state_dict, net.state_dict())


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64, np.uint8, ">f8", "?"])
def test_numpy_arrays_in_hyperparameters(foreign_modules: Foreign, tmp_path: Path, dtype: Any) -> None:
    net = published_model(foreign_modules)
    array = np.array([[0, 1, 2], [3, 4, 5]], dtype)
    net.hyp = {"a": array, "column": np.asfortranarray(array), "s": array[1, 2], "p": pathlib.Path("x") / "y"}
    torch.save({"model": net}, tmp_path / "x.pt")
    hyp = load_checkpoint(tmp_path / "x.pt").hyp
    assert hyp is not None
    assert hyp["a"].tolist() == hyp["column"].tolist() == array.tolist()
    assert hyp["s"] == array[1, 2].item()
    assert type(hyp["s"]) is type(array[1, 2].item())
    assert hyp["p"] == "x/y"


def test_numpy_objects_are_refused(foreign_modules: Foreign, tmp_path: Path) -> None:
    net = published_model(foreign_modules)
    net.hyp = {"a": np.array([{}, None], dtype=object)}
    torch.save({"model": net}, tmp_path / "x.pt")
    with pytest.raises(UserError, match="numpy array of type 'O8'; only numbers are read"):
        load_checkpoint(tmp_path / "x.pt")


def test_windows_paths_load_everywhere(foreign_modules: Foreign, tmp_path: Path) -> None:
    """A pickle of one system's Path class cannot be built on the other; a stand-in can."""
    net = published_model(foreign_modules)
    for kind, text in ((pathlib.PureWindowsPath, "runs\\train\\exp"), (pathlib.PurePosixPath, "runs/train/exp")):
        torch.save({"model": net, "opt": {"save_dir": kind(text)}}, tmp_path / "x.pt")
        opt = load_checkpoint(tmp_path / "x.pt").opt
        assert opt == {"save_dir": "runs/train/exp"}


def test_what_cannot_be_used_is_said(foreign_modules: Foreign, tmp_path: Path) -> None:
    def message(**changes: Any) -> str:
        net = published_model(foreign_modules, changes.pop("model", "DetectionModel"), changes.pop("head", "Detect"))
        for name, value in changes.items():
            setattr(net, name, value)
        torch.save({"model": net}, tmp_path / "x.pt")
        with pytest.raises(UserError) as caught:
            load_checkpoint(tmp_path / "x.pt")
        return str(caught.value)

    assert "ends in Classify; expected a YOLOv5 detector or segmenter" in message(
        model="ClassificationModel", head="Classify"
    )
    assert "does not hold the YAML of its network" in message(yaml=None)
    assert "3 class names, but a head of 2 classes" in message(names=["a", "b", "c"])
    assert "class names are not strings, or their keys" in message(names={"x": "a", "y": "b"})
    assert "class names are not strings, or their keys" in message(names=[None, 1])
    assert "is a models.yolo.DetectionModel; expected" in message(model_=1, _modules={})


def test_names_are_made_up_where_missing(foreign_modules: Foreign, tmp_path: Path) -> None:
    net = published_model(foreign_modules)
    del net.names
    torch.save({"model": net}, tmp_path / "x.pt")
    assert load_checkpoint(tmp_path / "x.pt").names == {0: "class0", 1: "class1"}


def test_modules_in_a_circle(foreign_modules: Foreign, tmp_path: Path) -> None:
    net = published_model(foreign_modules)
    net.model[0]._modules["again"] = net.model  # type: ignore[index, operator]
    torch.save({"model": net}, tmp_path / "x.pt")
    with pytest.raises(UserError, match="nested without end"):
        load_checkpoint(tmp_path / "x.pt")


def test_unknown_block_needs_trust(
    foreign_modules: Foreign, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net = published_model(foreign_modules)
    net.model[0].act = foreign_modules("myblocks.Act")["Act"]()  # type: ignore[index, operator]
    torch.save({"model": net}, tmp_path / "x.pt")
    with pytest.raises(UserError, match=r"pickled class myblocks\.Act, which is not on the allow-list"):
        load_checkpoint(tmp_path / "x.pt")
    found = load_checkpoint(tmp_path / "x.pt", trust=True)
    assert same_state(found.state_dict, net.state_dict())
    assert "trusted and read as data, not executed: myblocks.Act" in capsys.readouterr().err


def test_published_yolov5n(shared_data: Path, foreign_modules: Foreign, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every tensor is what torch's own unpickler gives with modules of those names at hand."""
    path = shared_data / "weights" / "yolov5n.pt"
    found = load_checkpoint(path)
    foreign_modules("models.yolo.Model", "models.yolo.Detect",
                    *(f"models.common.{name}" for name in ("Conv", "C3", "Bottleneck", "SPPF", "Concat")))  # fmt: skip
    official = torch.load(path, weights_only=False)
    assert same_state(found.state_dict, official["model"].state_dict())
    assert (len(found.state_dict), found.task, len(found.names), found.names[79]) == (349, "detect", 80, "toothbrush")
    assert (
        sum(t.numel() for n, t in found.state_dict.items() if n.endswith(("weight", "bias"))) == 1872157
    )  # the published 1.9 M
    assert found.cfg["backbone"] == official["model"].yaml["backbone"]
    assert found.date == official["date"]
    monkeypatch.undo()
    assert "models.yolo" not in sys.modules or sys.modules["models.yolo"].__file__
