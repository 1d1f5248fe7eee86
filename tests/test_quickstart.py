"""The README's first command, word for word."""

from __future__ import annotations

import csv
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def first_command() -> list[str]:
    """The arguments of the training in the README's first code block."""
    block = re.search(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    assert block
    return shlex.split(block[1].split("&& python", 1)[1])


def test_the_readme_trains_the_embedded_data_set() -> None:
    words = first_command()
    assert words[0] == "train.py"
    assert "yolov5n_MobileNetv2.yaml" in words
    assert "--data" not in words, "the embedded data set is the default"


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_first_command_learns_and_says_what_comes_next(tmp_path: Path) -> None:
    command = [sys.executable, *first_command(), "--project", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "exp" / "results.csv").open(newline="") as file:
        last = list(csv.DictReader(file))[-1]
    assert float(last["metrics/mAP_0.5"]) >= 0.75
    assert "python detect.py --weights" in done.stdout
    drawn = re.search(r"Detections drawn:\s+(\S+)", done.stdout)
    assert drawn
    assert Path(drawn[1]).stat().st_size > 10_000
