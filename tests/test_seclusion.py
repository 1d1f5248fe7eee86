"""The guard of the user's places, and the places that tests have instead."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.seclusion import ROOT, Guard, is_forbidden

TOUCHES: dict[str, Callable[[Path], object]] = {
    "read": lambda folder: (folder / "file").read_bytes(),
    "write": lambda folder: (folder / "file").write_bytes(b""),
    "list": lambda folder: os.listdir(folder),
    "walk": lambda folder: list(os.scandir(folder)),
    "make": lambda folder: folder.mkdir(),
    "move": lambda folder: os.rename("here", folder / "there"),
    "remove": lambda folder: (folder / "file").unlink(),
}


@pytest.mark.parametrize("name", TOUCHES)
def test_the_users_places_are_guarded(name: str, guard: Guard) -> None:
    with contextlib.suppress(OSError), pytest.raises(pytest.fail.Exception, match="must not touch"):
        TOUCHES[name](ROOT / "runs" / "train")
    assert len(guard.seen) == 1
    guard.seen.clear()


def test_what_swallows_errors_does_not_hide_a_touch(guard: Guard) -> None:
    with contextlib.suppress(BaseException):
        os.listdir(ROOT / "datasets")
    assert guard.seen == [f"os.listdir {ROOT / 'datasets'}"]
    guard.seen.clear()


def test_which_places_are_the_users() -> None:
    assert is_forbidden(ROOT / "runs")
    assert is_forbidden(str(ROOT / "tests" / ".." / "runs" / "train" / "exp"))
    assert not is_forbidden(ROOT / "runs.py")
    assert not is_forbidden(ROOT / "data" / "shapes.yaml")
    assert not is_forbidden(Path(sys.prefix) / "lib")


def test_a_folder_of_its_own(tmp_path: Path) -> None:
    assert Path.cwd() == tmp_path
    assert not list(tmp_path.iterdir())


def test_home_is_elsewhere_for_other_processes_too() -> None:
    code = "import pathlib, os; print(pathlib.Path.home(), os.environ['YOLOv5_DATASETS_DIR'])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    home, datasets = answer.stdout.split()
    assert home == str(Path.home()) == os.environ["HOME"]
    assert not is_forbidden(Path(home) / ".cache")
    assert Path(datasets).parent == Path(home)
