"""Look-up, run folders and atomic writes."""

from __future__ import annotations

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from utils.errors import UserError
from utils.files import atomic_write, expand_home, find_file, increment_path, make_folder, read_file, remove_leftovers


def test_increment_path_counts_on(tmp_path: Path) -> None:
    exp = tmp_path / "exp"
    assert increment_path(exp, mkdir=True) == exp
    assert increment_path(exp, mkdir=True) == tmp_path / "exp2"
    (tmp_path / "exp9").mkdir()
    (tmp_path / "exponential77").mkdir()
    assert increment_path(exp) == tmp_path / "exp10"
    assert increment_path(exp, exist_ok=True) == exp


def test_run_folders_are_made_for_one_command_only(tmp_path: Path) -> None:
    exp = tmp_path / "new" / "runs" / "exp"
    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(lambda _: increment_path(exp, mkdir=True), range(64)))
    assert sorted(made) == sorted(exp.parent.iterdir())
    assert len(made) == 64
    assert increment_path(exp, exist_ok=True, mkdir=True) == exp
    (exp.parent / "exp65").symlink_to("nowhere")
    assert increment_path(exp, mkdir=True) == exp.parent / "exp66"


def test_leftovers_of_killed_writers_are_removed(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    with (tmp_path / "weights" / "a.pt").open("w") as file:
        file.write("a")
    writer = atomic_write(tmp_path / "weights" / "a.pt", "w")
    writer.__enter__().write("half")
    assert len(list((tmp_path / "weights").iterdir())) == 2
    remove_leftovers(tmp_path)
    assert [p.name for p in (tmp_path / "weights").iterdir()] == ["a.pt"]


def test_increment_path_keeps_a_suffix(tmp_path: Path) -> None:
    (tmp_path / "out.txt").touch()
    assert increment_path(tmp_path / "out.txt") == tmp_path / "out2.txt"


def test_find_file_below_project_folders() -> None:
    assert find_file("hyp.scratch-low.yaml", ("data",)).parts[-3:] == ("data", "hyps", "hyp.scratch-low.yaml")
    assert find_file("data/shapes.yaml", ("data",)).is_file()


def test_find_file_names_places_and_neighbour() -> None:
    with pytest.raises(UserError, match=r"'shape.yaml' not found; tried .*data.*did you mean 'shapes.yaml'"):
        find_file("shape.yaml", ("data",), kind="data set")


def test_atomic_write_replaces_or_leaves(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_write(path, "w") as file:
        file.write("half")
        raise RuntimeError
    assert path.read_text() == "old"
    with atomic_write(path, "w") as file:
        file.write("new")
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_in_the_place_of_a_file_stays(tmp_path: Path) -> None:
    (tmp_path / "a.txt").mkdir()
    with (
        pytest.raises(UserError, match=r"cannot write '.*a\.txt': a folder has that name"),
        atomic_write(tmp_path / "a.txt"),
    ):
        raise AssertionError("the block is not entered")
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_name_of_255_letters_can_be_written(tmp_path: Path) -> None:
    with atomic_write(tmp_path / ("é" * 125 + ".txt"), "w") as file:
        file.write("x")
    assert len(list(tmp_path.iterdir())) == 1


def test_a_name_that_is_too_long_is_told(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="File name too long") as error, atomic_write(tmp_path / ("n" * 300)):
        pass
    assert error.value.filename.endswith("nnn")
    assert not list(tmp_path.iterdir())


def test_errors_of_writing_name_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(OSError, match="No space left") as error, atomic_write(tmp_path / "a.txt"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert error.value.filename == str(tmp_path / "a.txt")
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    with pytest.raises(FileNotFoundError) as error, atomic_write(tmp_path / "absent" / "a.txt"):
        pass
    assert error.value.filename == str(tmp_path / "absent" / "a.txt")


def test_make_folder_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    with pytest.raises(UserError, match="cannot write to folder .*--project"):
        make_folder(tmp_path / "f" / "runs")


def test_read_file_takes_regular_files_only(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("a")
    assert read_file(tmp_path / "link", most=5) == b"12345"
    os.mkfifo(tmp_path / "pipe")
    mistakes = {"pipe": "a pipe or a device", "/dev/zero": "a pipe or a device", ".": "directory"}
    for name, why in {**mistakes, "a\0b": "NUL", "n" * 300: "too long"}.items():
        with pytest.raises(OSError, match=why):
            read_file(tmp_path / name)
    with pytest.raises(OSError, match="5 bytes, and 4 are the most"):
        read_file(tmp_path / "a", most=4)


def test_names_that_no_file_can_have_are_not_found() -> None:
    for name in ("n" * 300 + ".yaml", "a\0b.yaml", "~nobody-of-this-name/a.yaml"):
        with pytest.raises(UserError, match="not found"):
            find_file(name, ("data",))


def test_expand_home_leaves_a_name_that_nobody_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    assert expand_home("~/a") == Path("/somewhere/a")
    assert expand_home("~nobody-of-this-name/a") == Path("~nobody-of-this-name/a")
