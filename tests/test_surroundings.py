"""Commands in surroundings that let them down: lost streams, signals, limits, full disks, names that lie.

Each ends with one line, leaves nothing half-written, and a good input stays good. The slow ones are whole processes.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

import detect
from utils.cli import run_command

pytestmark = pytest.mark.usefixtures("signals_of_a_terminal")

ROOT = Path(__file__).resolve().parents[1]
POSIX = pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell")
TRAIN = ["--cfg", "yolov5n_MobileNetv2.yaml", "--img", "64", "--batch", "4", "--workers", "0", "--device", "cpu"]


@pytest.fixture
def weights(tmp_path: Path, make_weights: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    return str(make_weights("w.pt"))


def picture(name: str) -> str:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Path(name).write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    return name


def detection(weights: str, source: str, *more: str) -> int:
    words = ["--weights", weights, "--img", "64", "--source", source, *more]
    with pytest.raises(SystemExit) as stop:
        run_command(lambda: 0 if detect.main(detect.parse_opt(words)).complete else 1)
    return stop.value.code  # type: ignore[return-value]


def left_over() -> list[Path]:
    return [path for path in Path().rglob("*") if path.suffix in (".tmp", ".part") or ".part." in path.name]


# --- names --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a\nerror: fake.png", "\x1b[2J.png", "a\rerror.png", "gpj.\u202egnp.png"])
def test_a_good_picture_whose_name_lies(name: str, weights: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert detection(weights, picture(f"s/{name}"), "--save-txt", "--save-csv") == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert name not in captured.out
    assert Path("runs/detect/exp", name).is_file()


@pytest.mark.parametrize("name", ["a\nerror: fake.png", "\x1b[2J.png"])
def test_a_broken_picture_whose_name_lies(name: str, weights: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("s").mkdir()
    Path("s", name).write_bytes(b"no picture")
    assert detection(weights, "s") == 1
    err = capsys.readouterr().err
    assert [line.split(":")[0] for line in err.splitlines()] == ["warning", "error"]
    assert name not in err


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("s" * 300, "s"),
        ("s" * 5000 + ".jpg", "s"),
        ("http://[::1/a.jpg", "http://[::1/a.jpg"),
        ("http://" + "a" * 70 + "/a.jpg", "not an address"),
        ("http://127.0.0.1:1/é.jpg", "Connection refused"),
        ("rtsp://127.0.0.1:1/x.mp4", "files are fetched by http or https only"),
        ("9" * 30, "there is no camera"),
        ("fifo.png", "'fifo.png' is neither a file nor a folder"),
        ("/dev/zero", "'/dev/zero' is neither a file nor a folder"),
        ("screen x", "--source 'screen x'"),
        ("screen 0 0 0 0 0", "--source 'screen 0 0 0 0 0'"),
        ("~nouser/x.jpg", "~nouser"),
        ("[", "no image or video in '['"),
        ("l.txt", "l.txt:1: not a list of image paths"),
        ("long.txt", "1 of 1 sources could not be read"),
        ("lists.txt", "a list cannot hold another list"),
        ("no.streams", "no stream in it"),
        ("typo.streams", "'htp://typo' is no address"),
    ],
)
@POSIX
def test_sources_that_are_none(source: str, told: str, weights: str, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo("fifo.png")
    Path("l.txt").write_bytes(b"a\0b.jpg\n" + b"x" * 5000 + b"\n")
    Path("long.txt").write_bytes(b"x" * 5000 + b"\n")
    Path("lists.txt").write_text("l.txt\n")
    Path("no.streams").write_text("# none\n")
    Path("typo.streams").write_text("htp://typo\n")
    assert detection(weights, source) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("warning: ")]
    assert len(errors) == 1
    assert errors[0].startswith("error: ")
    assert told in errors[0]
    assert len(errors[0]) < 1200
    assert not Path("runs").exists() or not any(Path("runs").rglob("*.*"))


@pytest.mark.parametrize("names", [("../../x", ".."), ("a:b", "c?d"), ("n" * 300, "CON")])
def test_classes_that_are_no_folders(
    names: tuple[str, ...], weights: str, make_weights: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    before = set(Path().resolve().parent.rglob("*"))
    hostile = str(make_weights("hostile.pt", names=names))
    source = picture("a.png")
    assert detection(hostile, source, "--save-crop", "--conf-thres", "0.0001", "--max-det", "20", "--nosave") == 0
    new = set(Path().resolve().parent.rglob("*")) - before
    folders = {path.parent for path in new if path.suffix == ".jpg"}
    assert folders
    assert {folder.parent for folder in folders} == {Path("runs/detect/exp/crops").resolve()}


# --- whole processes --------------------------------------------------------------------------------------------------


def shell(command: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """``command``, in which ``"$@"`` is this Python with `words`."""
    return subprocess.run(
        ["bash", "-c", command, "bash", sys.executable, *words],
        capture_output=True, text=True, timeout=240, env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )  # fmt: skip


LIMITS = {
    "full stdout": ('"$@" > /dev/full', 1, "error: cannot write to standard output: No space left on device"),
    "no reader": ('set -o pipefail; "$@" | true', 1, "error: cannot write to standard output: Broken pipe"),
    "small files": ('ulimit -f 1; "$@"', 1, "error: File too large: 'runs/detect/exp/a.png'"),
    "no stdin": ('"$@" <&-', 0, None),
    "no stdout": ('"$@" >&-', 0, None),
    "ASCII": ('PYTHONIOENCODING=ascii "$@"', 0, None),
    "no home": ('HOME=/nowhere TMPDIR=/nowhere "$@"', 0, None),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", LIMITS)
@POSIX
def test_limits(case: str, weights: str) -> None:
    command, code, told = LIMITS[case]
    if "/dev/full" in command and not Path("/dev/full").exists():
        pytest.skip("Linux has /dev/full")
    words = [str(ROOT / "detect.py"), "--weights", weights, "--img", "64", "--source", picture("s/a.png")]
    done = shell(command, *words)
    assert done.returncode == code, done.stderr
    assert done.stderr.splitlines() == ([told] if told else [])
    assert not left_over()


@pytest.mark.slow
@POSIX
def test_few_open_files_end_a_training_with_one_line(weights: str, tiny_data: Path) -> None:
    words = [str(ROOT / "train.py"), *TRAIN, "--data", str(tiny_data), "--epochs", "1", "--noplots", "--workers", "2"]
    done = shell('ulimit -n 20; "$@"', *words)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "Too many open files" in done.stderr
    assert not left_over()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
@pytest.mark.parametrize("wait", [0.0, 0.7])
@POSIX
def test_signals_end_a_training_with_one_line(name: str, wait: float, weights: str, tiny_data: Path) -> None:
    words = [str(ROOT / "train.py"), *TRAIN, "--data", str(tiny_data), "--epochs", "300", "--noval", "--noplots"]
    with subprocess.Popen(
        [sys.executable, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:  # fmt: skip
        last = Path("runs/train/exp/weights/last.pt")
        while not last.is_file() and process.poll() is None:
            time.sleep(0.05)
        time.sleep(wait)
        process.send_signal(getattr(signal, name))
        _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    told = "interrupted" if name == "SIGINT" else f"terminated ({name})"
    assert err == f"error: {told}; go on with --resume {last.as_posix()}\n"
    assert not left_over()
