"""examples/tutorial.ipynb: committed without outputs, and it runs from top to bottom on the CPU.

Its cells are plain Python, without commands of Jupyter, so they run as one script: no notebook server is needed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "examples" / "tutorial.ipynb"


def cells(kind: str) -> list[dict[str, Any]]:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return [cell for cell in notebook["cells"] if cell["cell_type"] == kind]


def test_it_has_no_outputs() -> None:
    assert cells("code")
    assert [cell["id"] for cell in cells("code") if cell["outputs"] or cell["execution_count"] is not None] == []


def test_its_cells_are_plain_python() -> None:
    for cell in cells("code"):
        compile("".join(cell["source"]), cell["id"], "exec")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_it_runs_from_top_to_bottom(tmp_path: Path) -> None:
    folder = tmp_path / "examples"  # the notebook looks for the project, and writes, one folder above its own
    folder.mkdir()
    script = folder / "tutorial.py"
    script.write_text("\n\n".join("".join(cell["source"]) for cell in cells("code")), encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "YOLOv5_DATASETS_DIR": str(tmp_path / "datasets")}
    done = subprocess.run(
        [sys.executable, script.name], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    runs = tmp_path / "runs" / "tutorial"
    assert (runs / "train" / "weights" / "best.onnx").is_file()
    assert len(list((runs / "detect").glob("*.jpg"))) == 10
    assert len(list((runs / "onnx").glob("*.jpg"))) == 10
