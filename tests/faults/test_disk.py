"""A disk that is full, or cannot be read: one line, and nothing of what was there is lost."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import train
from engine.training.safeguards.interruption import resumable
from models.checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from tests.engine.training.step import make_trainer
from tests.faults.commands import ROOT, equal, state, tiny_training
from utils import files
from utils.data.images import decode
from utils.errors import UserError

pytestmark = pytest.mark.slow


class FullDisk:
    """Takes the place of `utils.files._temporary`: of all writes to such files the `last`-th and later ones fail."""

    def __init__(self, temporary: Callable[..., Any]) -> None:
        self.temporary = temporary
        self.writes = 0
        self.last: int | None = None

    def __call__(self, *args: Any) -> Any:
        handle = self.temporary(*args)
        write = handle.write

        def counted(content: Any) -> int:
            self.writes += 1
            if self.last is not None and self.writes >= self.last:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return write(content)

        handle.write = counted
        return handle


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> FullDisk:
    full = FullDisk(files._temporary)
    monkeypatch.setattr(files, "_temporary", full)
    return full


def test_full_at_every_write_of_a_checkpoint(disk: FullDisk, tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    values = {"task": "detect", "cfg": {"nc": 1}, "names": {0: "x"}, "extra": {"a": 1}}
    small = [Checkpoint(**values, state_dict={"w": torch.full((9,), float(i)), "b": torch.zeros(3)}) for i in range(2)]
    save_checkpoint(path, small[0])
    before, most = path.read_bytes(), disk.writes
    for number in range(1, most + 1):
        disk.writes, disk.last = 0, number
        with pytest.raises(UserError, match=r"^No space left on device at '[^']*last\.pt'; .*--resume [^\n]*$"):
            with resumable(path):
                save_checkpoint(path, small[1])
        assert path.read_bytes() == before, number
        assert os.listdir(tmp_path) == ["last.pt"], number
    disk.last = None
    save_checkpoint(path, small[1])
    assert load_checkpoint(path).state_dict["w"][0] == 1


def test_full_while_a_training_saves(disk: FullDisk, tmp_path: Path) -> None:
    trainer = make_trainer("detect", tmp_path, "cpu")
    saver, session = trainer.saver, trainer.session
    assert saver is not None
    saver.save(session, 0, is_best=True)
    before, disk.writes = state(saver.last), 0
    saver.save(session, 0, is_best=True)
    most = disk.writes
    assert most > 100
    for number in [*range(1, most, most // 8), most]:
        disk.writes, disk.last = 0, number
        with pytest.raises(UserError, match=r"^No space left on device at '[^']*(best|last)\.pt'; .*--resume [^\n]*$"):
            with resumable(saver.last):
                saver.save(session, 0, is_best=True)
        assert sorted(path.name for path in saver.folder.iterdir()) == ["best.pt", "last.pt"], number
        assert all(equal(state(path), before) for path in (saver.last, saver.best))


@pytest.mark.parametrize(("moment", "stage"), [(0.3, "validating"), (0.9, "closing"), (0.99, "closing")])
def test_a_training_goes_on_once_there_is_room(
    disk: FullDisk, tiny_data: Path, tmp_path: Path, moment: float, stage: str
) -> None:
    """The last writes are those of the closing part: best.pt is stripped, and last.pt marked as finished."""
    train.main(train.parse_opt([*tiny_training(tiny_data, tmp_path, epochs=1), "--name", "cached", "--noplots"]))
    words, disk.writes = [*tiny_training(tiny_data, tmp_path, epochs=3), "--noplots"], 0
    train.main(train.parse_opt(words))
    straight, broken = tmp_path / "runs" / "exp", tmp_path / "runs" / "exp2"
    disk.writes, disk.last = 0, int(disk.writes * moment)
    with pytest.raises(UserError, match="No space left on device"):
        train.main(train.parse_opt(words))
    assert not list(broken.rglob("*.tmp"))
    disk.last = None
    last = broken / "weights" / "last.pt"
    assert load_checkpoint(last).extra["stage"] == stage
    train.main(train.parse_opt(["--resume", str(last)]))
    assert (broken / "results.csv").read_bytes() == (straight / "results.csv").read_bytes()
    for name in ("last.pt", "best.pt"):
        assert equal(*(state(folder / "weights" / name) for folder in (straight, broken)))


ON_A_SMALL_DISK = """
import sys
from pathlib import Path
import train
from utils.errors import UserError
words, filler = sys.argv[2:], Path(sys.argv[1]) / "filler"
with filler.open("wb", buffering=0) as file:
    try:
        while True:
            file.write(bytes(4096))
    except OSError:
        file.truncate(file.tell() - 150_000)
try:
    train.main(train.parse_opt(words))
except UserError as error:
    assert "No space left on device" in str(error) and "--resume" in str(error) and "\\n" not in str(error), error
else:
    raise AssertionError("there was room")
assert not list(filler.parent.rglob("*.tmp"))
filler.unlink()
train.main(train.parse_opt(["--resume", str(next(filler.parent.rglob("last.pt")))]))
print("went on")
"""


@pytest.mark.skipif(os.name != "posix" or not shutil.which("unshare") or os.geteuid() != 0, reason="mounts a disk")
def test_a_disk_of_4_mb(tiny_data: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    words = [*tiny_training(tiny_data, tmp_path, epochs=2), "--noplots", "--project", str(small / "runs")]
    mount = f'mount -t tmpfs -o size=4m none "{small}" || exit 77; exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", mount, "sh", sys.executable, "-c", ON_A_SMALL_DISK, str(small), *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    if "unshare:" in done.stderr or done.returncode == 77:
        pytest.skip("this system lets no disk be mounted")
    assert done.returncode == 0, done.stderr
    assert "went on" in done.stdout


@pytest.mark.parametrize("workers", ["0", "1"])
def test_an_image_that_can_no_longer_be_read(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: str
) -> None:
    """The n-th read of a picture fails; which picture it was is told."""
    read, seen = decode.read_file, [0, 0]

    def failing(path: str, *more: Any) -> bytes:
        seen[0] += 1
        if seen[0] == seen[1]:
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        return read(path, *more)

    monkeypatch.setattr(decode, "read_file", failing)
    words = [*tiny_training(tiny_data, tmp_path, epochs=2), "--noplots", "--workers", workers]
    for fails_at in (1, 6, 14) if workers == "0" else (4,):
        seen[:] = 0, fails_at
        with pytest.raises(UserError, match=r"^cannot read image '[^']*\.png': Input/output error[^\n]*$"):
            train.main(train.parse_opt(words))
