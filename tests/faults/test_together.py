"""Two trainings started at the same moment on a data set that neither has seen."""

from __future__ import annotations

import os
import shutil
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.faults.commands import nurseries, tiny_training

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork") or sys.platform == "darwin", reason="forks processes that use torch"),
]


def new_data(kind: str, source: Path, folder: Path) -> Path:
    """The YAML of a data set without an index cache, or of one that is in an archive still."""
    shutil.copytree(source.parent, folder, ignore=shutil.ignore_patterns("*.cache"))
    if kind == "files":
        return folder / source.name
    archive = folder / "packed.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted((*folder.glob("images/*/*"), *folder.glob("labels/*/*"))):
            file.write(path, path.relative_to(folder))
    yaml = folder / "packed.yaml"
    text = source.read_text().replace("path: .", f"path: {folder / 'unpacked'}")
    yaml.write_text(f"{text}download: {archive.as_uri()}\n")
    return yaml


def test_both_succeed(tiny_data: Path, tmp_path: Path) -> None:
    with nurseries(2, tmp_path, tiny_training(tiny_data, tmp_path, epochs=1)) as servers:
        for number, kind in enumerate(["files", "archive"]):
            data = new_data(kind, tiny_data, tmp_path / f"data{number}")
            folder = tmp_path / f"together{number}"
            folder.mkdir()
            words = [*tiny_training(data, folder, epochs=1), "--noplots", "--cache", "disk", "--batch", "32"]
            with ThreadPoolExecutor(2) as pool:
                codes = [code for code, _ in pool.map(lambda server, words=words: server.run(words), servers)]
            assert codes == [0, 0], "\n".join(server.log.read_text()[-3000:] for server in servers)
            assert sorted(path.name for path in (folder / "runs").iterdir()) == ["exp", "exp2"]
            one, two = ((folder / "runs" / name / "results.csv").read_bytes() for name in ("exp", "exp2"))
            assert one == two
            assert not [path for path in data.parent.rglob("*") if path.suffix in (".tmp", ".part")]
