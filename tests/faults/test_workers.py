"""A process that loads data is killed, as the system does where memory runs out: one line, and no hanging."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

import train
from engine.training.trainer import Trainer
from tests.faults.commands import tiny_training
from utils.cli import run_command

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="kills with a signal")]


@pytest.mark.parametrize("steps", [1, 4])
def test_a_killed_worker_ends_the_training_with_one_line(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], steps: int
) -> None:
    step, seen = Trainer.optimizer_step, []

    def killing(self: Trainer) -> None:
        seen.append(1)
        if len(seen) == steps:
            for worker in self.session.train_loader._batches._iterator._workers:
                os.kill(worker.pid, signal.SIGKILL)
        step(self)

    monkeypatch.setattr(Trainer, "optimizer_step", killing)
    words: list[Any] = [*tiny_training(tiny_data, tmp_path), "--noplots", "--workers", "1"]
    with pytest.raises(SystemExit) as end:
        run_command(lambda: train.main(train.parse_opt(words)))
    said = capsys.readouterr().err
    assert end.value.code == 1
    assert "Traceback" not in said
    assert "a process that loads data died (Killed)" in said
    assert "--workers (0: none)" in said
    assert f"go on with --resume {tmp_path.as_posix()}/runs/exp/weights/last.pt" in said
    monkeypatch.setattr(Trainer, "optimizer_step", step)
    train.main(train.parse_opt(["--resume", str(tmp_path / "runs" / "exp" / "weights" / "last.pt")]))
