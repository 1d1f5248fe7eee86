"""`python -m benchmarks`: the summary, `--only`, and small runs of the measures."""

from __future__ import annotations

import json
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import cv2
import pytest
import torch

from benchmarks import scale
from benchmarks.__main__ import LONG, main, summary
from benchmarks.measures import FIGURES, SHORT, Figure
from benchmarks.measuring import ROOT, parse
from benchmarks.train_epoch import later_epochs
from utils.errors import UserError

TIME = Figure("a", "time", ("ours", "deep", "ms"), "ms", 20)


def test_figures() -> None:
    """Ratios are to be at least, all else at most, what is to be reached; equal is enough."""
    at_least, at_most = Figure("m", "a", ("x",), "×", 2.5), Figure("m", "b", ("x",), "s", 4)
    assert at_least.cells({"x": 2.5}) == ["a", "≥ 2.5 ×", "2.50 ×", "yes"]
    assert at_least.cells({"x": 2.49})[3] == "no"
    assert at_most.cells({"x": 4.0}) == ["b", "≤ 4 s", "4.00 s", "yes"]
    assert at_most.cells({"x": 4.01})[3] == "no"
    assert at_most.cells({}) == ["b", "≤ 4 s", "not measured", "–"]
    assert Figure("m", "torch", ("x",), "", 0).cells({"x": False}) == ["torch", "≤ 0", "0", "yes"]
    assert Figure("m", "memory", ("x",), "MB").cells({"x": 12.4}) == ["memory", "", "12 MB", ""]
    assert TIME.cells({"ours": {"deep": {"ms": 3}}})[2] == "3.0 ms"
    assert TIME.cells({"ours": {}})[2] == "not measured"


def test_unknown_measure_is_one_line() -> None:
    words = [sys.executable, "-m", "benchmarks", "--only", "loder"]
    answer = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 1
    assert answer.stderr.startswith("error: --only loder: unknown measure (did you mean 'loader'?); the measures are ")
    assert len(answer.stderr.splitlines()) == 1


def test_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a measure prints is shown; one that cannot be made has its rows, and the reason."""
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "__main__.py").write_text(
        "import json, pathlib, sys\n"
        "name, *flags, _, output = sys.argv[1:]\n"
        "if name == 'b': sys.exit('error: no such weights')\n"
        "print('flags', *flags)\n"
        "pathlib.Path(output).write_text(json.dumps({'rows': {'ours': {'deep': {'ms': 15}}}}))\n"
    )
    figures = [TIME, TIME._replace(measure="b"), TIME._replace(measure="c")]
    cells, rows = summary({"a": "--short 2", "b": ""}, figures, tmp_path)
    assert cells == [["time", "≤ 20 ms", "15.0 ms", "yes"], ["time", "≤ 20 ms", "not measured", "–"]]
    assert rows == {"a": {"ours": {"deep": {"ms": 15}}}, "b": {}}
    out = capsys.readouterr().out
    assert "\n\nflags --short 2\n" in out
    assert "== b: not measured: no such weights\n" in out


@pytest.mark.parametrize("name", LONG)
def test_every_measure_knows_its_flags(name: str) -> None:
    """Those of the short version are among the flags of each file, and each figure is one of a measure."""
    options = parse(import_module(f"benchmarks.{name}"), SHORT.get(name, "").split())
    assert options.output == ROOT / "benchmarks" / "results" / f"{name}.json"
    assert {figure.measure for figure in FIGURES} <= set(SHORT) <= set(LONG)


@pytest.fixture
def _threads() -> Iterator[None]:
    """The measures choose how many threads there are; the other tests want theirs back."""
    before = torch.get_num_threads(), cv2.getNumThreads()
    yield
    torch.set_num_threads(before[0])
    cv2.setNumThreads(before[1])


def run_small(name: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a measure as ``python -m benchmarks NAME WORDS``; the figures that the summary reads are positive."""
    output = tmp_path / f"{name}.json"
    monkeypatch.setattr(sys, "argv", ["benchmarks", name, *words.split(), "--output", str(output)])
    assert not main()
    rows = json.loads(output.read_text(encoding="utf-8"))["rows"]
    for figure in FIGURES:
        if figure.measure == name:
            assert float(figure.cells(rows)[2].split()[0]) > 0, figure


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("loss", "--batch 1 --imgsz 64 --targets 4 --threads 1 --repeats 1"),
        ("train_step", "--cfg yolov5n.yaml --batch 2 --imgsz 64 --threads 1 --repeats 1"),
        ("loader", "--imgsz 64 --batch 4 --turns 1 --workers 2 --data DATA"),
    ],
)
def test_small_runs(name: str, words: str, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                    capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    """The table is told with its conditions."""
    run_small(name, words.replace("DATA", str(tiny_data)), tmp_path, monkeypatch)
    out = capsys.readouterr().out
    assert ", processor " in out
    assert "\n| --" in out


@pytest.mark.slow
@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("recompute", "--cfg yolov5n_MobileNetv2.yaml --batch 2 --imgsz 64 --threads 1 --repeats 1 --turns 1"),
        ("train_epoch", "--cfg yolov5n.yaml --img 64 --batch 8 --workers 0 --epochs 2 --turns 1 --data SHARED"),
        ("validate", "--imgsz 64 --images 4 --threads 1 --turns 1 --data SHARED"),
    ],
)
def test_small_runs_of_processes(
    name: str, words: str, shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = sorted((shared_data / "data" / "coco128").rglob("*.jpg"))[:16]
    run_small(name, words.replace("SHARED", str(some_pictures(shared_data, tmp_path, pictures))), tmp_path, monkeypatch)


def test_index_at_scale(tmp_path: Path) -> None:
    """30 images of 10 boxes: 200 bytes of boxes and classes, the rest paths, offsets and sizes."""
    scale.draw(tmp_path, 30)
    found = scale.measure_index(Namespace(folder=tmp_path))
    path = len(str(tmp_path)) + len("/images/0000/000000000000.jpg")
    assert found["bytes_an_image"] == pytest.approx(10 * 5 * 4 + path + 8 + 8 + 8 + 16 / 30, abs=0.01)
    assert found["open_s"] < found["scan_s"] + 1
    workers = scale.measure_workers(Namespace(folder=tmp_path, count=0, batches=1))
    assert workers["index_mb"] == pytest.approx(found["bytes_an_image"] * 30 / 2**20)


def test_epochs_in_a_log() -> None:
    """The first epoch is left out, as are other progress lines."""
    line = "        {}/2        cpu       0.1      0.02      0.03        12     64x64  8/8 in {} s, 4.1 it/s\n"
    log = "train: 8 images\n" + "".join(line.format(i, s) for i, s in enumerate((9.5, 2.25, 2.5)))
    log += "   Class     Images  4/4 in 1.5 s, 2.7 it/s\n"
    assert later_epochs(log) == [2.25, 2.5]
    with pytest.raises(UserError, match="told of 0 epochs"):
        later_epochs("nothing")


def some_pictures(shared_data: Path, folder: Path, pictures: list[Path]) -> Path:
    """The YAML of a data set of `pictures` of COCO128."""
    (folder / "some.txt").write_text("\n".join(map(str, pictures)))
    names = (shared_data / "data" / "coco128.yaml").read_text(encoding="utf-8")
    yaml = folder / "some.yaml"
    yaml.write_text(f"path: .\ntrain: some.txt\nval: some.txt\n{names[names.index('names:') :]}", encoding="utf-8")
    return yaml


@pytest.mark.slow
def test_commands_with_the_parts_of_the_baseline(shared_data: Path, tmp_path: Path) -> None:
    """`val.py` says the same of real photographs; a training of one epoch comes to its end."""
    pictures = sorted((shared_data / "data" / "coco128").rglob("*.jpg"))[:16]
    yaml = some_pictures(shared_data, tmp_path, pictures)
    common = ["--data", str(yaml), "--device", "cpu", "--project", str(tmp_path / "runs"), "--workers", "0"]
    val = ["val.py", "--weights", str(shared_data / "weights" / "yolov5n.pt"), "--imgsz", "320", "--no-plots", *common]
    baseline = [sys.executable, "-m", "benchmarks.baseline"]
    said = []
    for words in ([sys.executable, *val], [*baseline, *val]):
        answer = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
        (line,) = (line for line in answer.stdout.splitlines() if line.split()[:1] == ["all"])
        said.append([float(word) for word in line.split()[1:]])
    assert said[0][-2] > 0.4
    assert said[0] == pytest.approx(said[1], abs=2e-3)
    train = ["train.py", "--cfg", "yolov5n.yaml", "--img", "64", "--epochs", "1", "--batch", "8", "--noplots", *common]
    answer = subprocess.run([*baseline, *train], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "Results saved to" in answer.stdout
