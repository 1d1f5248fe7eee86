"""Whole files whose content is damaged or hostile: each gives one clear line, takes little memory and no time."""

from __future__ import annotations

import _codecs
import os
import pathlib
import pickle
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import detect
import val
from models.checkpoints.checkpoint import Checkpoint, is_finite, load_checkpoint, save_checkpoint
from models.loading import load_model
from utils.cli import run_command
from utils.errors import UserError

from .conftest import Reduce, Storage, assert_refused, ours, tensor_claim

Writer = Callable[..., Path]
Make = Callable[..., Path]


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def array(data: Any, shape: tuple[int, ...] = (1000,), code: str = "u1") -> Reduce:
    """A pickled numpy array of `data`; several arrays may share the same data."""
    kind = Reduce(np.dtype, code, False, True, state=(3, "|", None, None, None, -1, -1, 0))
    return Reduce(np._core.multiarray._reconstruct, np.ndarray, (0,), b"b", state=(1, shape, kind, False, data))


TEXT = "x" * 30_000
BYTES = Reduce(_codecs.encode, TEXT, "latin1")
AMPLIFIED: dict[str, Any] = {
    "codecs": [Reduce(_codecs.encode, TEXT, "latin1") for _ in range(5000)],
    "one object of codecs": [BYTES] * 20_000,
    "numpy": [array(BYTES, (30_000,)) for _ in range(5000)],
    "one array": [array(BYTES, (30_000,))] * 20_000,
    "paths": [Reduce(pathlib.PurePosixPath, *[TEXT] * 100) for _ in range(300)],
}


@pytest.mark.parametrize("kind", AMPLIFIED)
def test_a_small_file_that_stands_for_gigabytes(kind: str, write_torch_zip: Writer) -> None:
    path = write_torch_zip(ours(extra={"x": AMPLIFIED[kind]}))
    assert path.stat().st_size < 5_000_000
    assert_refused(path, "its values are many times larger than the file")


DAMAGED: dict[str, tuple[dict[str, Any], str]] = {
    "depth": ({"extra": {"x": nested(150)}}, "nested deeper than any checkpoint's"),
    "digits": ({"epoch": 10**5000}, "an integer has more digits than any checkpoint needs"),
    "a number of 20 digits": ({"ema_updates": 10**20}, "more digits"),
    "digits as a key": ({"extra": {10**50: 1}}, "an integer of more than 64 bits as a key"),
    "epoch of text": ({"epoch": "4"}, "'epoch' is missing or a str"),
    "no state": ({"state_dict": None}, "'state_dict' is missing or a NoneType"),
    "a class as a tensor": ({"state_dict": {"w": Reduce(torch.Size, (1, 2))}}, "something other than tensors"),
    "array of text": ({"extra": {"x": array("text")}}, "damaged or malicious"),
    "array of another shape": ({"extra": {"x": array(BYTES, (7,))}}, "damaged or malicious: ValueError"),
    "array of objects": ({"extra": {"x": array(BYTES, code="O8")}}, "only numbers are read"),
    "array without state": ({"extra": {"x": Reduce(np._core.multiarray._reconstruct, 1)}}, "damaged or malicious"),
    "bytes of nothing": ({"extra": {"x": Reduce(_codecs.encode)}}, "damaged or malicious: IndexError"),
    "bytes of a number": ({"extra": {"x": Reduce(_codecs.encode, 7)}}, "damaged or malicious: TypeError"),
    "bytes of other letters": ({"extra": {"x": Reduce(_codecs.encode, "\u4e00", "latin1")}}, "UnicodeEncodeError"),
    "a tensor too far": (
        {"state_dict": {"w": tensor_claim(Storage("0", 4), 1 << 62, (1 << 62,), (1 << 62,))}}, "damaged or malicious",
    ),
    "names by text": ({"names": {"zero": "a"}}, "'names' must map class numbers to names"),
    "a name with a line break": ({"names": {0: "a\nerror: b"}}, "has a character that cannot be printed"),
    "a name that turns round": ({"names": {0: "\u202egod"}}, "has a character that cannot be printed"),
    "a name that clears the screen": ({"names": {0: "\x1b[2J"}}, "has a character that cannot be printed"),
    "a name of half a character": ({"names": {0: "\ud83d"}}, "has a character that cannot be printed"),
    "a long name": ({"names": {0: "n" * 10_000}}, "has 10000 characters"),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGED)
def test_content_that_no_training_writes(kind: str, write_torch_zip: Writer) -> None:
    content, told = DAMAGED[kind]
    storage = {"0": b"\x00" * 16}
    if kind == "a name of half a character":  # a pickle of protocol 2 cannot even hold it
        data = pickle.dumps(ours(names={0: "HALF"}), 2).replace(b"HALF", b"\xed\xa0\xbd\x41")
        path = write_torch_zip(data)
        with pytest.raises(UserError):
            load_checkpoint(path)
        return
    assert_refused(write_torch_zip(ours(**content), storage), re.escape(told))


CFG: dict[str, tuple[dict[str, Any], str]] = {
    "depth_multiple": ({"depth_multiple": 1e6}, "depth_multiple must be a positive number up to 100, not 1000000.0"),
    "depth_multiple inf": ({"depth_multiple": float("inf")}, "depth_multiple must be"),
    "width_multiple inf": ({"width_multiple": float("inf")}, "width_multiple must be"),
    "rows": ({"backbone": [[-1, 1, "Conv", [8]]] * 3000}, "rows, but at most 2000 blocks are built"),
    "anchors": ({"anchors": 10**9}, "anchors must be a number of anchors up to 100"),
    "anchors inf": ({"anchors": [[10, float("inf")], [1, 1]]}, "anchors must be"),
    "upsampling": ({"head": [[-1, 1, "nn.Upsample", [None, 3000, "nearest"]], [[0, 3], 1, "Detect", ["nc", 2]]]},
                   "its output (1, 16, 48000, 48000) for one image"),
    "two heads": ({"head": [[[2, 3], 1, "Detect", ["nc", 2]], [[0, 3], 1, "Detect", ["nc", 2]]]}, "no earlier row"),
    "a head inside": ({"head": [[[1, 2], 1, "Detect", ["nc", 2]], [[1, 2], 1, "Detect", ["nc", 2]]]},
                      "row 3, Detect from [1, 2] with arguments [2, 2]: a head must be the last row"),
    "a sum as an argument": ({"backbone": [[-1, 1, "Conv", ["1+" * 5000 + "1"]]]}, "row 0, Conv from -1"),
    "brackets as an argument": ({"backbone": [[-1, 1, "Conv", [8, "(" * 5000]]]}, "row 0, Conv from -1"),
    "no rows": ({"backbone": None}, "backbone must be a list of rows"),
    "a row of text": ({"backbone": ["row" * 1000]}, "row 0: expected [from, number, module, args], found 'rowrow"),
}  # fmt: skip


@pytest.mark.parametrize("kind", CFG)
def test_a_description_that_asks_for_too_much(
    kind: str, checkpoint: Checkpoint, tiny_cfg: dict[str, Any], tmp_path: Path
) -> None:
    change, told = CFG[kind]
    save_checkpoint(tmp_path / "m.pt", replace(checkpoint, cfg=tiny_cfg | change))
    assert_refused(tmp_path / "m.pt", re.escape(told), load_model)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("place", ["state_dict", "ema"])
def test_weights_that_are_no_numbers(value: float, place: str, checkpoint: Checkpoint, tmp_path: Path) -> None:
    getattr(checkpoint, place)["w"][1, 1] = value
    save_checkpoint(tmp_path / "m.pt", checkpoint)
    assert_refused(tmp_path / "m.pt", r"its weights contain NaN or infinite values \(in 'w'\)")


def test_large_numbers_are_numbers() -> None:
    assert is_finite(torch.full((4,), 3e38))  # whose sum is not
    assert is_finite(torch.full((100_000,), 60_000.0).half())
    assert is_finite(torch.tensor([7]))
    assert is_finite(torch.empty(0))
    assert not is_finite(torch.tensor([3e38, 3e38, float("nan")]))
    assert not is_finite(torch.tensor([float("inf"), -float("inf")]))


def test_commands_tell_of_failed_weights(
    make_weights: Make, tiny_data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_weights(names=("light", "dark"))
    monkeypatch.chdir(path.parent)
    checkpoint = load_checkpoint(path)
    checkpoint.state_dict["model.0.conv.weight"][0] = float("nan")
    save_checkpoint(path, checkpoint)
    common = ["--weights", str(path), "--img", "64", "--device", "cpu"]
    for main, words in (
        (lambda w: detect.main(detect.parse_opt(w)), ["--source", str(tiny_data.parent / "images" / "val")]),
        (lambda w: val.main(val.parse_opt(w)), ["--data", str(tiny_data), "--workers", "0"]),
    ):
        with pytest.raises(SystemExit) as stop:
            run_command(lambda main=main, words=words: main([*common, *words]))  # type: ignore[misc]
        err = capsys.readouterr().err
        assert stop.value.code == 1
        assert err.startswith("error: ")
        assert "its weights contain NaN or infinite values" in err
        assert err.count("\n") == 1
    assert not (path.parent / "runs").exists()


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.pt")
    assert_refused(tmp_path / "m.pt", "is a pipe or a device, expected a checkpoint file")


def test_names_of_all_kinds_are_welcome(checkpoint: Checkpoint, tmp_path: Path) -> None:
    names = {0: "handbag/satchel", 1: "自行车", 2: "café au lait", 3: "👩‍🚀", 4: "a" * 300, 5: "می‌خواهم"}
    save_checkpoint(tmp_path / "m.pt", replace(checkpoint, names=names))
    assert load_checkpoint(tmp_path / "m.pt").names == names
