"""Which run a training goes on with when torchrun starts it again: its own, or none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import train
from engine.task import DetectionTask
from engine.training.command import begin, check_options
from engine.training.restart import MARK, Launch
from engine.training.saver import Stage
from engine.training.setup import process_device
from models.checkpoints.checkpoint import Checkpoint, save_checkpoint
from tests.engine.training.step import make_options
from utils.errors import UserError

OPTIONS = make_options("detect", epochs=3, data="a.yaml")


def launch(*agents: str, **options: Any) -> Launch:
    return Launch(agents, Launch.of(replace(OPTIONS, **options)).options)


def test_its_own_run_is_found(tmp_path: Path) -> None:
    launch("a:/tmp/1", "b:/tmp/2").mark(tmp_path / "exp")
    assert launch("a:/tmp/1", "b:/tmp/2").find(tmp_path) == tmp_path / "exp"
    assert launch("b:/tmp/2", "c:/tmp/3").find(tmp_path) == tmp_path / "exp", "a machine was replaced"
    launch("a:/tmp/1").unmark(tmp_path / "exp")
    assert launch("a:/tmp/1", "b:/tmp/2").find(tmp_path) is None, "it was finished"


def test_no_other_is(tmp_path: Path) -> None:
    launch("a:/tmp/1").mark(tmp_path / "exp")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / MARK).write_text("- [")
    assert launch("a:/tmp/9").find(tmp_path) is None, "a training of somebody else"
    assert launch("a:/tmp/1", epochs=4).find(tmp_path) is None, "another training of the same script"
    assert launch().find(tmp_path) is None, "no torchrun"


def test_without_torchrun_nothing_is_marked(tmp_path: Path) -> None:
    launch().mark(tmp_path / "exp")
    assert not (tmp_path / "exp").exists()


def test_a_run_that_had_saved_nothing_begins_again_in_its_folder(tmp_path: Path) -> None:
    options = replace(OPTIONS, project=str(tmp_path))
    own = launch("a:/tmp/1", project=str(tmp_path))
    own.mark(tmp_path / "exp")
    assert begin(options, DetectionTask(), set(), own) == (options, None, tmp_path / "exp")
    assert begin(options, DetectionTask(), set(), launch("b:/tmp/1")) == (options, None, None)


def test_a_run_that_was_finished_is_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where a process died after the last thing was written, and before all had left."""
    last = tmp_path / "exp" / "weights" / "last.pt"
    checkpoint = Checkpoint(
        task="detect", cfg={"nc": 1}, names={0: "x"}, state_dict={}, extra={"stage": Stage.FINISHED}
    )
    last.parent.mkdir(parents=True)
    save_checkpoint(last, checkpoint)
    before, own = last.read_bytes(), launch("a:/tmp/1")
    own.mark(tmp_path / "exp")
    monkeypatch.setattr(Launch, "of", lambda options: own)
    assert train.run(project=str(tmp_path)) is None
    assert "exp\nit was finished already\n" in capsys.readouterr().out
    assert last.read_bytes() == before
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["exp", "last.pt", "weights"]


@pytest.mark.parametrize(
    ("name", "reason"), [("image_weights", "each process would draw its own"), ("evolve", "one search a GPU")]
)
def test_what_one_process_alone_can_do_is_refused(name: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match=f"--{name.replace('_', '-')} .* several processes: .*{reason}"):
        check_options(replace(OPTIONS, **{name: 1}))


def test_each_process_has_its_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    assert process_device("cpu") is None, "alone"
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert process_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert process_device("2,3") == torch.device("cuda", 3)
    assert process_device("") == torch.device("cuda", 1)
    with pytest.raises(UserError, match="process 1 has no GPU: --device 0"):
        process_device("0")
