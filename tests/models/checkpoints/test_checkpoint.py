"""Our own files: plain, portable, written whole or not at all; and how values are made plain for them."""

from __future__ import annotations

import dataclasses
import errno
import pickletools
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.checkpoints.checkpoint import (
    FORMAT_VERSION,
    Checkpoint,
    half_precision,
    load_checkpoint,
    relative_paths,
    save_checkpoint,
    strip_optimizer,
    to_plain,
    without_absolute_paths,
)
from utils.errors import UserError


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@pytest.mark.parametrize("mapped", [False, True])
def test_round_trip_keeps_every_field(checkpoint: Checkpoint, tmp_path: Path, mapped: bool) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, checkpoint)
    read = load_checkpoint(path, mapped=mapped)
    for field in dataclasses.fields(Checkpoint):
        if field.name != "date":
            assert same(getattr(checkpoint, field.name), getattr(read, field.name)), field.name
    assert read.date > "2024"


def test_torch_reads_the_same_with_weights_only(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, checkpoint)
    official = torch.load(path, weights_only=True)
    assert {"format", "version", "task", "cfg", "names", "hyp", "opt", "epoch", "state_dict", "ema"} <= official.keys()
    ours = load_checkpoint(path)
    for field in dataclasses.fields(Checkpoint):
        assert same(official[field.name], getattr(ours, field.name)), field.name


def test_no_class_path_and_no_place_of_this_machine_inside(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    elsewhere = Path(tmp_path.anchor) / "somewhere" / "else" / "data.yaml"
    checkpoint.opt = {
        "save_dir": tmp_path / "runs" / "train" / "exp",
        "weights": [str(tmp_path / "a.pt"), "b.pt"],
        "data": str(elsewhere),
        "hyp": Path("data") / "hyp.yaml",
    }
    save_checkpoint("last.pt", checkpoint)
    assert load_checkpoint("last.pt").opt == {
        "save_dir": "runs/train/exp",
        "weights": ["a.pt", "b.pt"],
        "data": str(elsewhere),  # as the user gave it: a resumed run needs it
        "hyp": "data/hyp.yaml",
    }
    with zipfile.ZipFile("last.pt") as archive:
        pickled = archive.read(next(n for n in archive.namelist() if n.endswith("data.pkl")))
    names = {arg for op, arg, _ in pickletools.genops(pickled) if op.name in ("GLOBAL", "STACK_GLOBAL")}
    assert {n.split()[0] for n in names} <= {"torch", "torch._utils", "collections"}
    assert str(tmp_path).encode() not in Path("last.pt").read_bytes()

    strip_optimizer("last.pt", "best.pt")
    assert load_checkpoint("best.pt").opt["data"] == "data.yaml"  # type: ignore[index]
    assert b"somewhere" not in Path("best.pt").read_bytes()


def test_newer_format_is_refused(checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.checkpoints.checkpoint.FORMAT_VERSION", FORMAT_VERSION + 1)
    save_checkpoint(tmp_path / "x.pt", checkpoint)
    monkeypatch.undo()
    with pytest.raises(UserError, match=r"format 2, but this program reads up to 1; update"):
        load_checkpoint(tmp_path / "x.pt")


def test_fields_of_the_wrong_kind_are_named(checkpoint: Checkpoint, tmp_path: Path) -> None:
    checkpoint.names = ["cat"]  # type: ignore[assignment]
    save_checkpoint(tmp_path / "x.pt", checkpoint)
    with pytest.raises(UserError, match="'names' is missing or a list"):
        load_checkpoint(tmp_path / "x.pt")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_full_disk_keeps_the_old_file(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, checkpoint)
    before = path.read_bytes()

    class Full:
        def __init__(self, file: Any) -> None:
            self.file, self.left = file, 500

        def write(self, data: bytes) -> int:
            self.left -= len(data)
            if self.left < 0:
                raise OSError(code, "device says no")
            return self.file.write(data)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

    save = torch.save
    monkeypatch.setattr(torch, "save", lambda content, file: save(content, Full(file)))
    with pytest.raises(OSError, match="device says no") as caught:
        save_checkpoint(path, checkpoint)
    assert caught.value.errno == code
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]


def test_unsaveable_values_are_named(checkpoint: Checkpoint, tmp_path: Path) -> None:
    checkpoint.extra = {"a": [1, {"b": object()}]}
    with pytest.raises(TypeError, match=r"extra\['a'\]\[1\]\['b'\] is a builtins.object"):
        save_checkpoint(tmp_path / "x.pt", checkpoint)
    assert not list(tmp_path.iterdir())


def test_to_plain() -> None:
    class Name(str):
        __slots__ = ()

    value = {
        "f": np.float64(0.5), "i": np.int32(3), "b": np.bool_(True), "a": np.arange(3), "p": Path("a") / "b",
        "s": {2}, "o": OrderedDict(x=(1, None)), "n": Name("n"), "d": torch.float16, "dev": torch.device("cpu"),
        np.int64(4): False,
    }  # fmt: skip
    plain = to_plain(value)
    assert same(
        plain,
        {
            "f": 0.5, "i": 3, "b": True, "a": torch.arange(3), "p": "a/b", "s": [2], "o": {"x": (1, None)}, "n": "n",
            "d": "torch.float16", "dev": "cpu", 4: False,
        },
    )  # fmt: skip
    with pytest.raises(TypeError, match="numpy.ndarray"):
        to_plain(np.array([object()]))


def test_tensors_are_saved_without_what_they_are_views_of() -> None:
    big = torch.zeros(1000, 1000, requires_grad=True)
    plain = to_plain({"v": big[0, :10], "p": torch.nn.Parameter(torch.ones(3))})
    assert plain["v"].untyped_storage().nbytes() == 40
    assert type(plain["p"]) is torch.Tensor
    assert not plain["p"].requires_grad


def test_paths_relative_and_cut() -> None:
    root = Path(Path.cwd().anchor)
    options = {"in": str(root / "w" / "a"), "out": str(root / "v" / "a"), "n": 1, "e": "", "l": [root / "w" / "b", "c"]}
    relative = relative_paths(options, (root / "w",))
    assert relative == {"in": "a", "out": str(root / "v" / "a"), "n": 1, "e": "", "l": ["b", "c"]}
    assert without_absolute_paths({"a": "/x/y.yaml", "b": "C:\\x\\z.yaml", "c": ["/q/r"], "d": "runs/e", "n": 2}) == {
        "a": "y.yaml", "b": "z.yaml", "c": ["r"], "d": "runs/e", "n": 2,
    }  # fmt: skip


def test_strip_optimizer_leaves_the_average_in_half_precision(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "best.pt"
    save_checkpoint(path, checkpoint)
    assert strip_optimizer(path) == path
    final = load_checkpoint(path)
    assert checkpoint.ema is not None
    assert torch.equal(final.state_dict["w"], checkpoint.ema["w"].half())
    assert final.state_dict["w"].dtype == torch.float16
    assert final.state_dict["n"].dtype == torch.int64
    left = (final.ema, final.optimizer, final.scaler, final.rng, final.best_fitness, final.ema_updates, final.extra)
    assert left == (None, None, None, None, None, 0, {})
    assert final.epoch == -1
    assert (final.names, final.cfg, final.hyp, final.task) == (
        checkpoint.names, checkpoint.cfg, checkpoint.hyp, checkpoint.task,
    )  # fmt: skip
    assert torch.load(path, weights_only=True)["format"] == "yolov5-mobilenetv2"


def test_half_precision_does_not_overflow() -> None:
    weights = {"var": torch.tensor([1.0, 1e5]), "w": torch.tensor([1.0]), "nan": torch.tensor([float("nan")])}
    halved = half_precision(weights)
    assert [t.dtype for t in halved.values()] == [torch.float32, torch.float16, torch.float16]
    assert halved["var"].tolist() == [1.0, 1e5]


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"state_dict": {"w": 1}}, "'state_dict' holds something other than tensors"),
        ({"ema": {"w": [torch.ones(1)]}}, "'ema' holds something other than tensors"),
        ({"names": {"a": "b"}}, "'names' must map class numbers to names"),
        ({"version": 10**5000}, "more digits than any checkpoint needs"),
        ({"version": "1"}, "its format version is not a number"),
        ({"best_fitness": "x"}, "'best_fitness' is missing or a str"),
        ({"rng": 1}, "'rng' is missing or a int"),
    ],
)
def test_senseless_content_of_our_own_format(
    checkpoint: Checkpoint, tmp_path: Path, changes: dict[str, Any], match: str
) -> None:
    content = {f.name: to_plain(getattr(checkpoint, f.name)) for f in dataclasses.fields(Checkpoint)}
    torch.save({"format": "yolov5-mobilenetv2", **content, **changes}, tmp_path / "x.pt")
    with pytest.raises(UserError, match=match):
        load_checkpoint(tmp_path / "x.pt")
