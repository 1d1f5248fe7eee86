"""What tests of mistakes share: the commands, run within the test's process, and a place to make mistakes in."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import detect
import train
import val
from segment import predict as segment_predict
from segment import train as segment_train
from segment import val as segment_val
from utils.cli import run_command

COMMANDS = {
    "train": lambda words: train.main(train.parse_opt(words)),
    "val": lambda words: val.main(val.parse_opt(words)),
    "detect": lambda words: 0 if detect.main(detect.parse_opt(words)).complete else 1,
    "segment/train": lambda words: segment_train.main(segment_train.parse_opt(words)),
    "segment/val": lambda words: segment_val.main(segment_val.parse_opt(words)),
    "segment/predict": lambda words: 0 if segment_predict.main(segment_predict.parse_opt(words)).complete else 1,
}
FAST = ["--epochs", "1", "--img", "64", "--batch", "4", "--workers", "0", "--device", "cpu", "--noplots"]


class Place:
    """A working directory with a small data set, a checkpoint, and room for mistakes."""

    def __init__(self, folder: Path, data: Path, weights: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        shutil.copytree(data.parent, self.data, ignore=shutil.ignore_patterns("*.cache"))
        self.yaml = self.data / "tiny.yaml"
        self.label = self.data / "labels" / "train" / "3.txt"
        self.image = self.data / "images" / "train" / "3.png"
        self.weights = weights

    def write(self, name: str, text: str) -> str:
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    def edit_yaml(self, old: str, new: str) -> None:
        text = self.yaml.read_text()
        assert old in text
        self.yaml.write_text(text.replace(old, new))


@pytest.fixture
def place(tmp_path: Path, tiny_data: Path, make_weights: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.chdir(tmp_path)
    return Place(tmp_path, tiny_data, make_weights("good.pt", names=("light", "dark")))


Mistake = Callable[[Place], list[str]]  # makes the mistake, and returns the command's words


def training(place: Place, *more: str) -> list[str]:
    return ["train", "--cfg", "yolov5n_MobileNetv2.yaml", "--data", str(place.yaml), *FAST, *more]


def validation(place: Place, *more: str) -> list[str]:
    return ["val", "--data", str(place.yaml), "--weights", str(place.weights), "--img", "64", "--workers", "0", *more]


def detection(place: Place, *more: str) -> list[str]:
    return ["detect", "--weights", str(place.weights), "--img", "64", "--source", str(place.image), *more]


def edited(old: str, new: str, command: Mistake = training) -> Mistake:
    """`old` in the YAML of the data set is replaced."""

    def mistake(place: Place) -> list[str]:
        place.edit_yaml(old, new)
        return command(place)

    return mistake


def label_of(content: bytes | str) -> Mistake:
    """One label file of the training holds `content`."""

    def mistake(place: Place) -> list[str]:
        place.label.write_bytes(content if isinstance(content, bytes) else content.encode())
        return training(place)

    return mistake


def check_mistake(words: list[str], told: str, place: Place, capfd: pytest.CaptureFixture[str]) -> int:
    """The command `words` ends with one line on stderr that holds `told`, and writes nothing. Returns its exit code."""
    before = files_below(place.folder)
    code, err = run(words, capfd)
    assert code in (1, 2)
    assert [line for line in err if not line.startswith(("warning: ", "libpng "))] == err[-1:], err
    assert err[-1].startswith("error: ")
    assert told in err[-1]
    assert files_below(place.folder) == before, "nothing is written before the mistake is found"
    return code


def run(words: list[str], capfd: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    """Exit code and lines on stderr (also those that C libraries write) of a command."""
    command, *words = words
    capfd.readouterr()
    with pytest.raises(SystemExit) as stop:
        run_command(lambda: COMMANDS[command](words))
    code = stop.value.code
    return (code if isinstance(code, int) else 1), capfd.readouterr().err.splitlines()


def files_below(folder: Path) -> set[Path]:
    return {p for p in folder.rglob("*") if not p.is_dir() and p.suffix != ".cache"}
