"""Two trainings started at the same moment on a data set that neither has seen."""

from __future__ import annotations

import os
import shutil
import sys
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.faults.commands import ROOT, Nursery, nurseries, tiny_training

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork") or sys.platform == "darwin", reason="forks processes that use torch"),
]


def new_data(kind: str, source: Path, folder: Path) -> Path:
    """The YAML of a data set without an index cache, of one that is in an archive still, or of one not yet drawn."""
    if kind == "shapes":
        folder.mkdir()
        yaml = folder / "shapes.yaml"
        yaml.write_text((ROOT / "data" / "shapes.yaml").read_text().replace("path: shapes", f"path: {folder / 'new'}"))
        return yaml
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


@pytest.fixture(scope="module")
def servers(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Nursery]]:
    folder = tmp_path_factory.mktemp("servers")
    with nurseries(2, folder, tiny_training(tiny_data, folder, epochs=1)) as both:
        yield both


@pytest.mark.parametrize("kind", ["files", "archive", "shapes"])
def test_both_succeed(kind: str, servers: list[Nursery], tiny_data: Path, tmp_path: Path) -> None:
    data = new_data(kind, tiny_data, tmp_path / "data")
    words = [*tiny_training(data, tmp_path, epochs=1), "--noplots", "--cache", "disk", "--batch", "32"]
    with ThreadPoolExecutor(2) as pool:
        codes = [code for code, _ in pool.map(lambda server: server.run(words), servers)]
    assert codes == [0, 0], "\n".join(server.log.read_text()[-3000:] for server in servers)
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["exp", "exp2"]
    one, two = ((tmp_path / "runs" / name / "results.csv").read_bytes() for name in ("exp", "exp2"))
    assert one == two
    assert not [path for path in data.parent.rglob("*") if path.suffix in (".tmp", ".part")]
