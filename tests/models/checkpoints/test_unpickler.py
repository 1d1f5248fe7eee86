"""The restricted unpickler: nothing in a pickle runs, whatever it asks for."""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import operator
import os
import pickle
import resource
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.checkpoints.checkpoint import load_checkpoint
from models.checkpoints.unpickler import PickledObject, read_pickle
from utils.errors import UserError

from .conftest import Reduce


def attacks(marker: Path) -> dict[str, Any]:
    """Objects that create the file `marker` when `pickle.loads` reads them, by the name that must be refused."""
    code = f"open({str(marker)!r}, 'w').close()"
    return {
        "posix.system": Reduce(os.system, f"touch {marker}"),
        "builtins.eval": Reduce(eval, code),
        "builtins.exec": Reduce(exec, code),
        "builtins.open": Reduce(open, str(marker), "w"),
        "builtins.getattr": Reduce(Reduce(getattr, Reduce(importlib.import_module, "os"), "system"), f"touch {marker}"),
        "functools.partial": Reduce(Reduce(functools.partial, os.system, f"touch {marker}")),
        "operator.methodcaller": Reduce(Reduce(operator.methodcaller, "touch"), marker),
        "subprocess.run": Reduce(subprocess.run, ["touch", str(marker)]),
        "torch.serialization.save": Reduce(torch.save, {}, str(marker)),
        "numpy.save": Reduce(np.save, str(marker), 1),
        "_pickle.loads": Reduce(pickle.loads, pickle.dumps(Reduce(os.system, f"touch {marker}"))),
        "builtins.map": Reduce(list, Reduce(map, os.system, [f"touch {marker}"])),
    }


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize("name", list(attacks(Path("m"))))
def test_calls_of_foreign_functions_never_run(
    name: str, trust: bool, tmp_path: Path, write_torch_zip: Callable[..., Path]
) -> None:
    marker = tmp_path / "executed"
    content = pickle.dumps({"model": attacks(marker)[name]}, 2)
    path = write_torch_zip(content)

    for load in (lambda: load_checkpoint(path, trust=trust), lambda: load_checkpoint(path, trust, mapped=True)):
        with pytest.raises(UserError, match=r"file\.pt") as caught:
            load()
        assert "\n" not in str(caught.value)
    assert not marker.exists()

    with contextlib.suppress(TypeError):  # the attack is a real one: a bare pickle falls for it
        pickle.loads(content)
    assert any(p.name.startswith("executed") for p in tmp_path.iterdir())


def test_refusal_names_file_class_and_flag(write_torch_zip: Callable[..., Path], monkeypatch: Any) -> None:
    path = write_torch_zip({"model": Reduce(os.system, "true")}, name="best.pt")
    monkeypatch.chdir(path.parent)
    with pytest.raises(UserError) as caught:
        load_checkpoint("best.pt")
    module = os.system.__module__
    assert str(caught.value) == (
        f"best.pt contains the pickled class {module}.system, which is not on the allow-list; "
        "if you trust this file, pass --trust"
    )


def test_trust_reads_unknown_classes_as_data(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    data = pickle.dumps({"run": Reduce(os.system, f"touch {marker}"), "n": 3}, 2)
    tree, unlisted = read_pickle(io.BytesIO(data), "x.pt", trust=True)
    assert tree["n"] == 3
    assert isinstance(tree["run"], PickledObject)
    assert tree["run"].args == (f"touch {marker}",)
    assert unlisted == [f"{os.system.__module__}.system"]
    assert not marker.exists()


def test_getattr_is_answered_for_detect_forward_only(foreign_modules: Callable[..., dict[str, type]]) -> None:
    """v7's Segment keeps the function Detect.forward as an attribute, which protocol 2 pickles as a getattr call."""

    def forward(self: Any) -> None: ...

    detect = foreign_modules("models.yolo.Detect", "models.yolo.Segment")
    forward.__module__, forward.__qualname__ = "models.yolo", "Detect.forward"
    detect["Detect"].forward = forward  # type: ignore[attr-defined]
    allowed = pickle.dumps({"detect": detect["Detect"].forward}, 2)  # type: ignore[attr-defined]
    assert b"getattr" in allowed
    tree, _ = read_pickle(io.BytesIO(allowed), "seg.pt")
    assert isinstance(tree["detect"], PickledObject)
    newer = pickle.dumps({"detect": detect["Detect"].forward}, 4)  # type: ignore[attr-defined]
    assert read_pickle(io.BytesIO(newer), "seg.pt")[0]["detect"].path == "models.yolo.Detect.forward"
    for args in [
        (detect["Detect"], "other"),
        (detect["Detect"], "__init__"),
        (detect["Segment"], "forward"),
        (detect["Detect"], "forward", None),
        (Reduce(detect["Detect"]), "forward"),
    ]:
        for trust in (False, True):
            with pytest.raises(UserError, match=r"seg\.pt contains a pickled getattr call .*allow-list"):
                read_pickle(io.BytesIO(pickle.dumps(Reduce(getattr, *args), 2)), "seg.pt", trust)


def test_state_is_recorded_not_applied() -> None:
    """Attributes of any name are data; the stand-in's own methods stay what they are."""
    ordered = Reduce(OrderedDict, [("k", 1)], state={"_metadata": 1, "__setitem__": 2})
    module = Reduce(torch.nn.Module, state={"__class__": "y", "__setstate__": "z", "append": None})
    tree, _ = read_pickle(io.BytesIO(pickle.dumps([ordered, module], 2)), "x.pt")
    assert tree[0] == {"k": 1}
    assert type(tree[1]).path == "torch.nn.modules.module.Module"
    assert tree[1].attributes == {"__class__": "y", "__setstate__": "z", "append": None}
    assert callable(tree[1].append)


def raw(*parts: bytes) -> bytes:
    return b"\x80\x02" + b"".join(parts) + b"."


@pytest.mark.parametrize(
    ("data", "what"),
    [
        pytest.param(raw(b"ccollections\nOrderedDict\n", b"}b"), "TypeError", id="state for the class itself"),
        pytest.param(raw(b"cbuiltins\nset\n", b"N}b"), "TypeError", id="state for a builtin type"),
        pytest.param(raw(b"X\x03\x00\x00\x00abc", b")R"), "TypeError", id="call of a string"),
        pytest.param(raw(b"ctorch\nSize\n)R)R"), "TypeError", id="call of an instance"),
        pytest.param(raw(b"}(K\x01K\x02\x86K\x03\x86K\x01u"), "TypeError", id="tuple as a key"),
        pytest.param(raw(b"\x82\x01"), "KeyError", id="extension registry"),
        pytest.param(raw(b"(ios\nsystem\n"), "KeyError", id="INST opcode"),
        pytest.param(b"\x80\x05\x96" + (1 << 34).to_bytes(8, "little") + b".", "KeyError", id="16 GB bytearray"),
        pytest.param(b"\x80\x02X\xff\xff\xff\x7fabc.", "EOFError", id="2 GB string that is not there"),
        pytest.param(b"\x80\x02}q", "IndexError", id="ends in an instruction"),
        pytest.param(b"\x80\x02", "EOFError", id="ends at once"),
        pytest.param(b"\x80\x63.", "protocol", id="unknown protocol"),
        pytest.param(raw(b"(K\x01Q"), "reference", id="persistent id that is no storage"),
        pytest.param(raw(b"\x85" * 5), "IndexError", id="empty stack"),
    ],
)
def test_malformed_pickles_give_one_line(data: bytes, what: str) -> None:
    with pytest.raises(UserError, match=what) as caught:
        read_pickle(io.BytesIO(data), "x.pt", trust=True)
    assert str(caught.value).startswith("x.pt is damaged or was not written by torch.save")
    assert "\n" not in str(caught.value)


def test_memo_index_claims_no_memory() -> None:
    """The C unpickler would allocate 4 GB for this file of a dozen bytes."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tree, _ = read_pickle(io.BytesIO(raw(b"K\x01r\xff\xff\xff\x0f")), "x.pt")
    assert tree == 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kilobytes


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_reads_plain_data_of_every_protocol_torch_writes(protocol: int) -> None:
    value = {
        "a": [1, -1, 70000, 2**40, -(2**70), 0.5, True, None, "ä€", b"\x00\xff"],
        "t": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
        1: OrderedDict([("x", {})]),
    }
    value["again"] = value["a"]
    tree, _ = read_pickle(io.BytesIO(pickle.dumps(value, protocol)), "x.pt")
    expected_bytes = value["a"][-1] if protocol >= 3 else None
    got_bytes = tree["a"].pop()
    assert got_bytes == expected_bytes or got_bytes.path == "_codecs.encode"
    value["a"].pop()
    assert tree == value
    assert tree["again"] is tree["a"]


def test_sets_become_lists() -> None:
    tree, _ = read_pickle(io.BytesIO(pickle.dumps({"s": {1, 2}}, 4)), "x.pt")
    assert sorted(tree["s"]) == [1, 2]


def test_no_name_is_imported() -> None:
    """A module that does not exist is read like one that does."""
    before = set(sys.modules)
    tree, _ = read_pickle(io.BytesIO(raw(b"ctorch.nn.modules.no_such_file\nConv\n)R")), "x.pt")
    assert tree.path == "torch.nn.modules.no_such_file.Conv"
    assert set(sys.modules) == before


def test_ultralytics_checkpoints_are_named(write_torch_zip: Callable[..., Path]) -> None:
    path = write_torch_zip(raw(b"cultralytics.nn.tasks\nDetectionModel\n)R"))
    with pytest.raises(UserError, match="YOLOv8 or later"):
        load_checkpoint(path, trust=True)


def test_errors_stay_one_line_whatever_names_the_file_uses(
    write_torch_zip: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    name = "evil\n\x1b[31mFAKE" + "x" * 10_000
    encoded = name.encode()
    data = b"\x80\x04\x8c\x01mX" + len(encoded).to_bytes(4, "little") + encoded + b"\x93)R."
    for trust in (False, True):
        with pytest.raises(UserError) as caught:
            load_checkpoint(write_torch_zip(data), trust=trust)
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 1100
    warning = capsys.readouterr().err
    assert warning.count("\n") == 1
    assert "\x1b" not in warning
