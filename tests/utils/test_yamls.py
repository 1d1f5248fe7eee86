"""YAML mistakes are named with file and line."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from utils.errors import UserError
from utils.yamls import line_of, load_yaml, read_literal, reject_unknown_keys, save_yaml


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


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefghi", "bcdefghij", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAUGHS, "x.yaml:6: there are more than 200000 values"),
        ("a: 1\nb: &b [*b]\n", "x.yaml:2: '*b' stands for something that holds it"),
        ("a: 1\nb: " + "[" * 100_000, "x.yaml:2: lists and mappings are nested more than 50 deep"),
        ("- " * 100_000, "nested more than 50 deep"),
        ("a: " + "{a: " * 100_000, "nested more than 50 deep"),
        ("a: !!int abc\n", "x.yaml:1: 'abc' is not a valid int"),
        ("a: !!int '_'\n", "x.yaml:1: '_' is not a valid int"),
        ("a: 0b_\n", "'0b_' is not a valid int"),
        ("a: !!float x\n", "'x' is not a valid float"),
        ("a: !!bool maybe\n", "'maybe' is not a valid bool"),
        ("a: !!timestamp x\n", "'x' is not a valid timestamp"),
        ("a: 2024-13-45\n", "x.yaml:1: '2024-13-45' is not a valid timestamp; put it in quotes"),
        ("a: " + "9" * 5000, "is not a valid int"),  # beyond the digits that Python reads
        ("a: 0x" + "f" * 5000, "is out of range"),  # beyond those that it prints
        ("a: " + ":".join(["1"] * 5000), "is out of range"),  # sexagesimal
        ("a: b\nc: \0\n", "x.yaml:2: not valid YAML: character 0x0 is not allowed"),
        ('a: "b\\0"\n', "x.yaml:1: the text holds NUL"),
        ('a: "\\ud800"\n', "x.yaml:1: the text holds NUL or half of a surrogate pair"),
        ('a: "\\UFFFFFFFF"\n', "x.yaml:1: not valid YAML"),
        ("a: 1\n---\nb: 2\n", "x.yaml:2: not valid YAML: expected a single document"),
        ("names:\n  0: a\n  0: b\n", "x.yaml:3: key '0' repeats line 2"),
        ("? [a, b]\n: 1\n", "x.yaml:1: not valid YAML: found unhashable key"),
        ("a: !!map [b]\n", "x.yaml:1: not valid YAML: expected a mapping node"),
        ("a:\n\t- 1\n", "x.yaml:2: not valid YAML"),
        ("", "x.yaml: expected 'key: value' lines, found nothing"),
        ("a: x" + " " * (5 << 20), "4194304 are the most"),
    ],
)  # fmt: skip
def test_a_hostile_file_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        load_yaml(write(tmp_path, text))


def test_aliases_and_merged_keys_stay_good(tmp_path: Path) -> None:
    text = "base: &base {a: 1, b: [2, 3]}\nmore:\n  <<: *base\n  a: 4\nlist: [*base, *base]\n"
    content = load_yaml(write(tmp_path, text))
    assert content["more"] == {"a": 4, "b": [2, 3]}
    assert content["list"] == [content["base"]] * 2


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.yaml")
    with pytest.raises(UserError, match="not a regular file"):
        load_yaml(tmp_path / "x.yaml")


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


def test_literals_are_read_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    assert read_literal(" (1, 'a', None) ") == (1, "a", None)
    with pytest.raises(ValueError, match="malformed node"):
        read_literal("1or 2")
    assert not recwarn.list
