"""YAML mistakes are named with file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from utils.errors import UserError
from utils.yamls import line_of, load_yaml, reject_unknown_keys, save_yaml


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "x.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_round_trip(tmp_path: Path) -> None:
    content = {"b": 1, "a": [1.5, "ü"], "c": {"d": None}}
    save_yaml(tmp_path / "x.yaml", content)
    assert load_yaml(tmp_path / "x.yaml") == content
    assert list(load_yaml(tmp_path / "x.yaml")) == ["b", "a", "c"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: [1, 2\n", r"x\.yaml:3: not valid YAML"),
        ("- 1\n- 2\n", "expected 'key: value' lines, found list"),
        ("a: 1\nb: 2\na: 3\n", r"x\.yaml:3: key 'a' repeats line 1"),
        ("a: !!python/object/apply:os.system ['true']\n", r"x\.yaml:1: not valid YAML"),
    ],
)
def test_mistakes(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_yaml(write(tmp_path, text))


def test_missing_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read"):
        load_yaml(tmp_path / "none.yaml")
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not a UTF-8 text file"):
        load_yaml(tmp_path / "x.yaml")


def test_line_of_nested_entries(tmp_path: Path) -> None:
    path = write(tmp_path, "a: 1\nrows:\n  - [1]\n  - [2]\nnames:\n  0: x\n")
    assert line_of(path, "rows", 1) == f"{path}:4"
    assert line_of(path, "names", 0) == f"{path}:6"
    assert line_of(path, "absent") == str(path)


def test_unknown_key(tmp_path: Path) -> None:
    path = write(tmp_path, "lr0: 1\nmomentun: 2\n")
    with pytest.raises(UserError, match=r"x\.yaml:2: unknown key 'momentun' \(did you mean 'momentum'\?\)"):
        reject_unknown_keys(load_yaml(path), ["lr0", "momentum"], path)
