"""The wheel: one package, whose command trains outside the checkout. Building it needs network for the build tools."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def run(*words: str | Path, cwd: Path, expected: int = 0) -> subprocess.CompletedProcess[str]:
    own = {key: value for key, value in os.environ.items() if key != "YOLOv5_DATASETS_DIR"}  # that of the tests
    done = subprocess.run([str(word) for word in words], cwd=cwd, env=own, capture_output=True, text=True, check=False)
    assert done.returncode == expected, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT, cwd=folder)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def command(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The installed command, in an environment that borrows the packages of this one (torch alone takes minutes)."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", folder, cwd=folder)
    python = folder / "bin" / "python"
    own = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).stdout.strip()
    (Path(own) / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", wheel, cwd=folder)
    return folder / "bin" / "yolov5-mobilenet"


@pytest.mark.slow
def test_the_wheel_takes_no_common_names(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"yolov5_mobilenetv2"}


@pytest.mark.slow
def test_the_wheel_holds_what_the_commands_need(wheel: Path) -> None:
    inside = {name.partition("/")[2] for name in zipfile.ZipFile(wheel).namelist()}
    tracked = run("git", "ls-files", "models", "utils", "engine", "segment", "data", "*.py", cwd=ROOT).stdout.split()
    needed = {name for name in tracked if name.split("/")[0] in ("models", "utils", "engine", "segment", "data")}
    assert needed <= inside
    assert {"train.py", "val.py", "detect.py", "export.py", "hubconf.py"} <= inside


@pytest.mark.slow
def test_one_epoch_outside_the_checkout(command: Path, tmp_path: Path) -> None:
    words = ["train", "--cfg", "yolov5n_MobileNetv2.yaml", "--img", "64", "--epochs", "1", "--device", "cpu"]
    told = run(command, *words, cwd=tmp_path).stdout
    assert "Next:\n  yolov5-mobilenet detect --weights runs/train/exp/weights/best.pt" in told
    assert (tmp_path / "runs" / "train" / "exp" / "weights" / "best.pt").is_file()
    assert (tmp_path / "datasets" / "shapes").is_dir()
    run(command, "detect", "--img", "64", "--source", "datasets/shapes/images/val", cwd=tmp_path)
    assert len(list((tmp_path / "runs" / "detect" / "exp").glob("*.jpg"))) == 80


@pytest.mark.slow
def test_an_unknown_command_is_one_line(command: Path, tmp_path: Path) -> None:
    done = run(command, "tran", cwd=tmp_path, expected=1)
    assert done.stderr.startswith("error: 'tran' is no command; the commands are train, val")
    assert done.stderr.count("\n") == 1
