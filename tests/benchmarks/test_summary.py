"""`python -m benchmarks`: the summary, `--only`, `--against`, and small runs of what it runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest
import torch

from benchmarks import ROOT, loader, loss, nms, scale, train_step
from benchmarks.__main__ import compared, measure_against, measure_here
from benchmarks.measures import MEASURES, Figure, Measure
from benchmarks.train_epoch import later_epochs
from utils.errors import UserError

SPEED = Figure("speed", ("ours", "images_s"), "images/s")
TIME = Figure("time", ("ours", "deep", "ms"), "ms", 20)


def command(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *words],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, **environment},
    )  # fmt: skip


def test_figures() -> None:
    """Ratios and rates are to be at least, all else at most, what is to be reached; equal is enough."""
    at_least, at_most = Figure("a", ("x",), "×", 2.5), Figure("b", ("x",), "s", 4)
    assert at_least.cells(2.5) == ["a", "≥ 2.5 ×", "2.50 ×", "yes"]
    assert at_least.cells(2.49)[3] == "no"
    assert at_most.cells(4.0) == ["b", "≤ 4 s", "4.00 s", "yes"]
    assert at_most.cells(4.01)[3] == "no"
    assert at_most.cells(None) == ["b", "≤ 4 s", "not measured", "–"]
    assert SPEED.cells(12.0) == ["speed", "", "12 images/s", ""]
    assert TIME.at({"ours": {"deep": {"ms": 3}}}) == 3
    assert TIME.at({"ours": {}}) is None


def test_unknown_measure_is_one_line() -> None:
    answer = command("--only", "loder")
    assert answer.returncode == 1
    assert answer.stderr.startswith("error: --only loder: unknown measure (did you mean 'loader'?); the measures are ")
    assert len(answer.stderr.splitlines()) == 1


def test_against_what_is_no_checkout_is_one_line(tmp_path: Path) -> None:
    answer = command("--against", str(tmp_path))
    assert answer.returncode == 1
    assert answer.stderr == f"error: --against {tmp_path}: no checkout of this project, it has no train.py\n"


@pytest.fixture
def measure(tmp_path: Path) -> Measure:
    """A file that measures its checkout: what a file `speed` there says; nothing where there is none."""
    script = tmp_path / "measure.py"
    script.write_text(
        "import json, os, pathlib, sys\n"
        "speed = json.loads((pathlib.Path(os.environ['BENCHMARKS_ROOT']) / 'speed').read_text())\n"
        "print('flags', *sys.argv[1:-2])\n"
        "pathlib.Path(sys.argv[-1]).write_text(json.dumps({'rows': {'ours': speed}}))\n"
    )
    return Measure(str(script), ("--short",), (SPEED, TIME), (SPEED, TIME))


def checkout(folder: Path, content: str | None) -> Path:
    folder.mkdir()
    if content is not None:
        (folder / "speed").write_text(content)
    return folder


def test_summary(
    measure: Measure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a measure prints is shown; one that cannot be made has its rows, and the reason."""
    here = checkout(tmp_path / "here", '{"images_s": 30, "deep": {"ms": 15}}')
    monkeypatch.setattr("benchmarks.__main__.run_measure.__defaults__", (here,))
    broken = Measure(str(tmp_path / "none.py"), summary=(TIME,))
    cells, rows = measure_here({"a": measure, "b": broken}, tmp_path)
    assert cells == [
        ["speed", "", "30 images/s", ""],
        ["time", "≤ 20 ms", "15.0 ms", "yes"],
        ["time", "≤ 20 ms", "not measured", "–"],
    ]
    assert rows["a"] == {"ours": {"images_s": 30, "deep": {"ms": 15}}}
    out = capsys.readouterr().out
    assert "\n\nflags --short\n" in out
    assert "== b: not measured: none.py: " in out


def test_against(measure: Measure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rates and times are better by the same rule; what the other checkout lacks is told."""
    here = checkout(tmp_path / "here", '{"images_s": 30, "deep": {"ms": 15}}')
    monkeypatch.setattr("benchmarks.__main__.ROOT", here)
    there = checkout(tmp_path / "there", '{"images_s": 20, "deep": {"ms": 45}}')
    assert measure_against({"a": measure}, there, 2, tmp_path) == (
        [["speed", "20 images/s", "30 images/s", "1.50×"], ["time", "45.0 ms", "15.0 ms", "3.00×"]], [],
    )  # fmt: skip
    older = checkout(tmp_path / "older", '{"images_s": 20}')
    cells, missing = measure_against({"a": measure}, older, 1, tmp_path)
    assert [line[0] for line in cells] == ["speed"]
    assert missing == ["- time: not measured there"]
    oldest = checkout(tmp_path / "oldest", None)
    cells, missing = measure_against({"a": measure}, oldest, 1, tmp_path)
    assert cells == []
    assert missing[0].startswith("- a: cannot be measured there: measure.py: FileNotFoundError")


def test_turns_are_compared_by_their_medians() -> None:
    rows = [{"ours": {"images_s": value}} for value in (10, 20, 400)]
    assert compared(SPEED, rows, rows[:1]) == ["speed", "20 images/s", "10 images/s", "0.50×"]


def test_measures_are_ours_and_the_code_is_theirs(tmp_path: Path) -> None:
    """With BENCHMARKS_ROOT, `benchmarks` is this folder, and all else that of the checkout named; both have both."""
    shutil.copytree(ROOT / "utils", tmp_path / "utils", ignore=shutil.ignore_patterns("data", "__pycache__"))
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "measuring.py").write_text("raise SystemExit('the other one')")
    code = "import benchmarks.measuring as m, utils.errors as u; print(m.__file__, u.__file__)"
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True,
                            env={**os.environ, "BENCHMARKS_ROOT": str(tmp_path)})  # fmt: skip
    ours, theirs = (Path(path).resolve() for path in answer.stdout.split())
    assert ours == ROOT / "benchmarks" / "measuring.py"
    assert theirs == tmp_path.resolve() / "utils" / "errors.py"


def test_every_measure_is_a_file() -> None:
    assert all((ROOT / "benchmarks" / measure.script).is_file() for measure in MEASURES.values())


@pytest.fixture
def _threads() -> Iterator[None]:
    """The measures choose how many threads there are; the other tests want theirs back."""
    before = torch.get_num_threads(), cv2.getNumThreads()
    yield
    torch.set_num_threads(before[0])
    cv2.setNumThreads(before[1])


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize(
    ("name", "module", "words"),
    [
        ("loss", loss, "--batch 1 --imgsz 64 --targets 4 --threads 1 --repeats 1"),
        ("nms", nms, "--made-up --images 1 --threads 1 --repeats 1"),
        ("train_step", train_step, "--cfg yolov5n.yaml --batch 2 --imgsz 64 --threads 1 --repeats 1"),
        ("loader", loader, "--imgsz 64 --batch 4 --turns 1 --workers 2 --data DATA"),
    ],
)
def test_small_runs(name: str, module: object, words: str, tiny_data: Path, tmp_path: Path,
                    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    """Everything that the summary and --against read is there, and positive; the table is told with its conditions."""
    monkeypatch.setattr(nms, "seconds_to_import", lambda modules: 1.0)
    output = tmp_path / f"{name}.json"
    monkeypatch.setattr(sys, "argv", [name, *words.replace("DATA", str(tiny_data)).split(), "--output", str(output)])
    module.main()  # type: ignore[attr-defined]
    rows = json.loads(output.read_text(encoding="utf-8"))["rows"]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for figure in (*MEASURES[name].summary, *MEASURES[name].ours):
        if "2 workers" in figure.label and cores < 2:
            continue
        value = figure.at(rows)
        assert value is not None, figure
        assert value > 0, figure
    out = capsys.readouterr().out
    assert ", processor " in out
    assert "\n| --" in out


def test_index_at_scale(tmp_path: Path) -> None:
    """30 pictures of 10 boxes: 200 bytes of boxes and classes, the rest paths, offsets and sizes."""
    scale.draw(tmp_path, 30)
    found = scale.measure_index(tmp_path)
    path = len(str(tmp_path)) + len("/images/0000/000000000000.jpg")
    assert found["bytes_an_image"] == pytest.approx(10 * 5 * 4 + path + 8 + 8 + 8 + 16 / 30, abs=0.01)
    assert found["open_s"] < found["scan_s"] + 1
    assert scale.measure_workers(tmp_path, 0, batches=1)["index_mb"] == pytest.approx(
        found["bytes_an_image"] * 30 / 2**20
    )


def test_epochs_in_a_log() -> None:
    """The first epoch is left out, as are other progress lines."""
    line = "        {}/2        cpu       0.1      0.02      0.03        12     64x64  8/8 in {} s, 4.1 it/s\n"
    log = "train: 8 images\n" + "".join(line.format(i, s) for i, s in enumerate((9.5, 2.25, 2.5)))
    log += "   Class     Images  4/4 in 1.5 s, 2.7 it/s\n"
    assert later_epochs(log) == [2.25, 2.5]
    with pytest.raises(UserError, match="told of 0 epochs"):
        later_epochs("nothing")


@pytest.mark.slow
def test_commands_the_straightforward_way(shared_data: Path, tmp_path: Path) -> None:
    """`val.py` says the same of real photographs; a training of one epoch comes to its end."""
    pictures = sorted((shared_data / "data" / "coco128").rglob("*.jpg"))[:16]
    (tmp_path / "some.txt").write_text("\n".join(map(str, pictures)))
    names = (shared_data / "data" / "coco128.yaml").read_text(encoding="utf-8")
    yaml = tmp_path / "some.yaml"
    yaml.write_text(f"path: .\ntrain: some.txt\nval: some.txt\n{names[names.index('names:') :]}", encoding="utf-8")
    common = ["--data", str(yaml), "--device", "cpu", "--project", str(tmp_path / "runs"), "--workers", "0"]
    val = ["val.py", "--weights", str(shared_data / "weights" / "yolov5n.pt"), "--imgsz", "320", "--no-plots", *common]
    plainly = [sys.executable, "benchmarks/plainly.py"]
    said = []
    for words in ([sys.executable, *val], [*plainly, *val]):
        answer = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
        (line,) = (line for line in answer.stdout.splitlines() if line.split()[:1] == ["all"])
        said.append([float(word) for word in line.split()[1:]])
    assert said[0][-2] > 0.4
    assert said[0] == pytest.approx(said[1], abs=2e-3)
    train = ["train.py", "--cfg", "yolov5n.yaml", "--img", "64", "--epochs", "1", "--batch", "8", "--noplots", *common]
    answer = subprocess.run([*plainly, *train], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "Results saved to" in answer.stdout
