"""The README's trainings, word for word: its first command, and the first of the masks."""

from __future__ import annotations

import csv
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CASES = {  # script: network, figures of the last epoch that must be reached, the next command that is printed
    "train.py": ("yolov5n_MobileNetv2.yaml", {"metrics/mAP_0.5": 0.75}, "detect.py"),
    "segment/train.py": (
        "yolov5n_MobileNetv2-seg.yaml", {"metrics/mAP_0.5(B)": 0.65, "metrics/mAP_0.5(M)": 0.6}, "segment/predict.py",
    ),
}  # fmt: skip


def readme_command(script: str) -> list[str]:
    """The arguments of the first training with `script` in the README's code blocks."""
    found = re.search(rf"python ({script} .*?)$", (ROOT / "README.md").read_text(encoding="utf-8"), re.M)
    assert found
    return shlex.split(found[1])


def test_the_readme_begins_with_the_training() -> None:
    first = re.search(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    assert first
    assert shlex.split(first[1])[-len(readme_command("train.py")) :] == readme_command("train.py")


@pytest.mark.parametrize("script", CASES)
def test_the_readme_trains_the_embedded_data_set(script: str) -> None:
    words = readme_command(script)
    assert CASES[script][0] in words
    assert "--data" not in words, "the embedded data set is the default"


@pytest.mark.slow
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("script", CASES)
def test_training_learns_and_says_what_comes_next(script: str, tmp_path: Path) -> None:
    _, least, following = CASES[script]
    file, *flags = readme_command(script)
    command = [sys.executable, str(ROOT / file), *flags]  # typed in another folder, which `runs/` goes to
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    project = "train-seg" if script.startswith("segment") else "train"
    with (tmp_path / "runs" / project / "exp" / "results.csv").open(newline="") as results:
        last = list(csv.DictReader(results))[-1]
    for name, value in least.items():
        assert float(last[name]) >= value, name
    assert f"python {following} --weights" in done.stdout
    drawn = re.search(r"Detections drawn:\s+(\S+)", done.stdout)
    assert drawn
    assert (tmp_path / drawn[1]).stat().st_size > 10_000
