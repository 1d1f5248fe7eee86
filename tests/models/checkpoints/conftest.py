"""Checkpoints, and files that only pretend to be checkpoints, written by hand."""

from __future__ import annotations

import copy
import pickle
import resource
import sys
import types
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from models.checkpoints.checkpoint import Checkpoint, load_checkpoint
from utils.errors import UserError

TINY_CFG = {
    "nc": 2,
    "depth_multiple": 1.0,
    "width_multiple": 1.0,
    "anchors": [[10, 13, 16, 30], [30, 61, 62, 45]],
    "backbone": [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "Conv", [8, 3, 2]], [-1, 1, "Conv", [16, 3, 2]]],
    "head": [[-1, 1, "Conv", [16, 3, 2]], [[2, 3], 1, "Detect", ["nc", "anchors"]]],
}


@pytest.fixture
def tiny_cfg() -> dict[str, Any]:
    return copy.deepcopy(TINY_CFG)


@pytest.fixture
def checkpoint(tiny_cfg: dict[str, Any]) -> Checkpoint:
    """A small checkpoint with every kind of value that training puts into one."""
    generator = torch.Generator().manual_seed(0)
    weights = {"w": torch.randn(4, 3, generator=generator), "n": torch.tensor(7), "bf": torch.ones(2).bfloat16()}
    return Checkpoint(
        task="detect",
        cfg=tiny_cfg,
        names={0: "cat", 1: "dog"},
        state_dict=weights,
        ema={key: value + 1 for key, value in weights.items()},
        ema_updates=12,
        optimizer={
            "state": {0: {"momentum_buffer": torch.randn(4, 3, generator=generator)}, 1: {"step": torch.tensor(3.0)}},
            "param_groups": [{"lr": 0.01, "betas": (0.9, 0.999), "nesterov": True, "params": [0, 1], "fused": None}],
        },
        scaler={"scale": 65536.0, "growth_interval": 2000},
        epoch=4,
        best_fitness=0.25,
        hyp={"lr0": 0.01, "anchors": 3},
        opt={"data": "data/shapes.yaml", "imgsz": [320, 320], "cache": None, "cos_lr": False},
        rng={"torch": torch.get_rng_state(), "python": [3, torch.arange(5), None]},
        extra={"best_epoch": 3},
    )


class Storage:
    """Pickled as a reference to bytes elsewhere in the file, whatever it claims about them."""

    def __init__(self, key: str, numel: int, kind: Any = torch.FloatStorage) -> None:
        self.pid = ("storage", kind, key, "cpu", numel)


class Reduce:
    """Pickled as a call of `function` with `args`."""

    def __init__(self, function: Any, *args: Any, state: Any = None) -> None:
        self.parts = (function, args) if state is None else (function, args, state)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.parts

    def __call__(self) -> None:
        """Only a callable can be pickled as the function of another call."""


class _Pickler(pickle.Pickler):
    def persistent_id(self, value: Any) -> Any:
        return value.pid if isinstance(value, Storage) else None


def tensor_claim(storage: Storage, offset: Any, size: Any, stride: Any) -> Reduce:
    return Reduce(torch._utils._rebuild_tensor_v2, storage, offset, size, stride, False, OrderedDict())


def ours(**content: Any) -> dict[str, Any]:
    """The content of a file in our own format, as small as possible, with `content` instead of its defaults."""
    return {"format": "yolov5-mobilenetv2", "version": 1, "task": "detect", "cfg": {}, "names": {0: "a"}, "ema": None,
            "ema_updates": 0, "optimizer": None, "epoch": -1, "hyp": None, "opt": None, "extra": {}, "date": "",
            "state_dict": {}} | content  # fmt: skip


def assert_refused(path: Path, match: str, *loaders: Callable[[Path], Any]) -> None:
    """Each loader (by default `load_checkpoint`, reading and mapping) raises one printable line that matches `match`
    and names the file, and takes little memory."""
    for load in loaders or (load_checkpoint, partial(load_checkpoint, mapped=True)):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(UserError, match=match) as caught:
            load(path)
        message = str(caught.value)
        assert str(path) in message
        assert message.isprintable()
        assert len(message) < 1500
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kilobytes


@pytest.fixture
def write_torch_zip(tmp_path: Path) -> Callable[..., Path]:
    """Writes a file as `torch.save` would, from any object or ready-made pickle, and any storages."""

    def write(
        content: Any,
        storages: dict[str, bytes] | None = None,
        name: str = "file.pt",
        protocol: int = 2,
        compression: int = zipfile.ZIP_STORED,
        extra: dict[str, bytes] | None = None,
    ) -> Path:
        stream = BytesIO()
        if not isinstance(content, bytes):
            _Pickler(stream, protocol).dump(content)
            content = stream.getvalue()
        path = tmp_path / name
        with zipfile.ZipFile(path, "w", compression) as archive:
            archive.writestr("archive/data.pkl", content)
            archive.writestr("archive/byteorder", b"little")
            for key, data in (storages or {}).items():
                archive.writestr(f"archive/data/{key}", data)
            for entry, data in (extra or {}).items():
                archive.writestr(entry, data)
        return path

    return write


@pytest.fixture
def foreign_modules(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, type]]:
    """Puts modules with the names that published files use in place of ours; they hold the classes asked for."""

    def install(*paths: str, base: type = nn.Module) -> dict[str, type]:
        modules: dict[str, types.ModuleType] = {}
        classes = {}
        for path in paths:
            module_name, _, name = path.rpartition(".")
            if module_name not in modules:
                modules[module_name] = types.ModuleType(module_name)
                monkeypatch.setitem(sys.modules, module_name, modules[module_name])
            cls = type(name, (base,), {"__module__": module_name, "__qualname__": name})
            setattr(modules[module_name], name, cls)
            classes[name] = cls
        return classes

    return install
