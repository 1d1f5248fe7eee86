"""What a training leaves behind that was interrupted, and how it goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import train
from engine.training import trainer
from engine.training.trainer import Trainer
from models.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from tests.trainings import Killed, options, rows, train_killed_in
from utils.errors import UserError

__all__ = ["options"]  # the fixture


def test_resume_continues_as_if_nothing_had_happened(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {**options, "epochs": 3}
    train.run(**options)
    train_killed_in(2, options, monkeypatch)
    straight, broken = tmp_path / "runs" / "exp", tmp_path / "runs" / "exp2"
    assert load_checkpoint(broken / "weights" / "last.pt").epoch == 1
    train.run(resume=str(broken / "weights" / "last.pt"))
    assert not (tmp_path / "runs" / "exp3").exists(), "a resumed training goes on in its folder"
    assert rows(broken) == rows(straight)
    a, b = (load_checkpoint(f / "weights" / "last.pt") for f in (straight, broken))
    for key, value in a.state_dict.items():
        torch.testing.assert_close(b.state_dict[key], value, msg=key)


def test_killed_in_the_first_epoch_leaves_a_loadable_last(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_killed_in(0, options, monkeypatch)
    last = tmp_path / "runs" / "exp" / "weights" / "last.pt"
    assert load_checkpoint(last).epoch == -1
    train.run(resume=str(last))
    assert load_checkpoint(last).epoch == 1


@pytest.mark.parametrize(("place", "early"), [("strip_optimizer", False), ("validate", True), ("mark_finished", False)])
def test_killed_after_the_last_epoch_the_rest_is_done(
    options: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    place: str,
    early: bool,
) -> None:
    """best.pt is stripped and validated, whatever of that the first attempt had done."""

    def kill(*args: Any, **named: Any) -> None:
        raise Killed

    if early:
        fitnesses = iter([0.5, *[0.4] * 9])
        monkeypatch.setattr("engine.validation.validator.fitness", lambda metrics: next(fitnesses))
        options = {**options, "epochs": 9, "patience": 1}
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(f"engine.training.command.{place}", kill)
        train.run(**options)
    folder = tmp_path / "runs" / "exp"
    last, best = folder / "weights" / "last.pt", folder / "weights" / "best.pt"
    assert load_checkpoint(last).epoch == 1
    weights, table = load_checkpoint(last).state_dict, (folder / "results.csv").read_bytes()
    (folder / ".results.csv.abc.tmp").touch()
    capsys.readouterr()

    train.run(resume=str(last))
    assert "Results saved to" in (said := capsys.readouterr().out)
    assert "Training epochs" not in said
    assert load_checkpoint(best).optimizer is None
    assert all(torch.equal(value, weights[key]) for key, value in load_checkpoint(last).state_dict.items())
    assert (folder / "results.csv").read_bytes() == table
    assert not list(folder.rglob("*.tmp"))
    hint = (
        "stopped early .* after 2 epochs; nothing to resume.*--patience 2" if early else "2 epochs; nothing to resume"
    )
    with pytest.raises(UserError, match=hint):
        train.run(resume=str(last))


def test_a_training_that_stopped_early_goes_on_with_more_patience(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitnesses = iter([0.5, *[0.4] * 20])
    monkeypatch.setattr("engine.validation.validator.fitness", lambda metrics: next(fitnesses))
    train.run(**{**options, "epochs": 4, "patience": 1})
    assert len(rows(tmp_path / "runs" / "exp")) == 1 + 2
    train.run(resume=str(tmp_path / "runs" / "exp" / "weights" / "last.pt"), patience=0)
    assert len(rows(tmp_path / "runs" / "exp")) == 1 + 4


def test_last_is_written_after_the_other_files(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between two files of one epoch, a training repeats its end; it would not if last.pt told otherwise.

    The first two are the state before the first epoch and the epoch that is still to be validated.
    """
    written = []

    def record(path: Path, checkpoint: Any) -> None:
        written.append(path.name)
        save_checkpoint(path, checkpoint)

    monkeypatch.setattr("engine.training.saver.save_checkpoint", record)
    train.run(**{**options, "epochs": 1, "save_period": 1})
    assert written[:5] == ["last.pt", "last.pt", "best.pt", "epoch0.pt", "last.pt"]


def test_a_refused_training_leaves_no_folder(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError):
        train.run(**{**options, "weights": "nowhere.pt"})
    assert not (tmp_path / "runs").exists()


def test_a_validation_that_fails_loses_no_epoch(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The epoch is saved before it is validated; going on, its validation comes first, and nothing differs."""
    options = {**options, "epochs": 3}
    train.run(**options)
    straight = tmp_path / "runs" / "exp"

    def broken(*_: Any, **__: Any) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    for epoch in (1, 2):  # the last one too
        with monkeypatch.context() as patch:
            validations = iter([trainer.validate] * epoch + [broken])
            patch.setattr(trainer, "validate", lambda *a, calls=validations, **kw: next(calls)(*a, **kw))
            with pytest.raises(UserError, match=rf"validation of epoch {epoch} .*--resume \S*last.pt --batch-size 2"):
                train.run(**{**options, "name": f"broken{epoch}"})
        folder = tmp_path / "runs" / f"broken{epoch}"
        last = folder / "weights" / "last.pt"
        assert load_checkpoint(last).epoch == epoch
        assert len(rows(folder)) == 1 + epoch
        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "train_epoch", watched(Trainer.train_epoch, trained := []))
            train.run(resume=str(last))
        assert trained == list(range(epoch + 1, 3)), "no epoch is trained twice"
        assert rows(folder) == rows(straight)
        for name in ("last", "best"):
            a, b = (load_checkpoint(f / "weights" / f"{name}.pt") for f in (straight, folder))
            assert a.best_fitness == b.best_fitness
            assert a.extra == b.extra
            assert all(torch.equal(b.weights[key], value) for key, value in a.weights.items())


def watched(method: Any, epochs: list[int]) -> Any:
    """`method` of an epoch, which is written down."""

    def call(self: Trainer, epoch: int) -> Any:
        epochs.append(epoch)
        return method(self, epoch)

    return call


def test_memory_that_runs_out_in_training_or_in_the_closing_part(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")

    options = {**options, "epochs": 1}
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_epoch", broken)
        with pytest.raises(UserError, match=r"not enough memory in epoch 0 at --batch-size 4; .*--batch-size 2"):
            train.run(**options)
    with monkeypatch.context() as patch:
        patch.setattr("engine.training.command.validate", broken)
        with pytest.raises(UserError, match=r"not enough memory in the closing validation .*--batch-size 2"):
            train.run(**options)
    train.run(resume=str(tmp_path / "runs" / "exp2" / "weights" / "last.pt"))
    assert load_checkpoint(tmp_path / "runs" / "exp2" / "weights" / "best.pt").optimizer is None


def test_resume_takes_more_epochs_and_refuses_the_rest(options: dict[str, Any], tmp_path: Path) -> None:
    train.run(**options)
    last = str(tmp_path / "runs" / "exp" / "weights" / "last.pt")
    with pytest.raises(UserError, match=r"finished its 2 epochs; nothing to resume.*--epochs 4"):
        train.run(resume=last)
    with pytest.raises(UserError, match=r"--imgsz cannot change on resume; --epochs, --batch-size"):
        train.run(resume=last, imgsz=[96])
    train.run(resume=last, epochs=3, batch_size=6, workers=0)
    assert [row[0] for row in rows(tmp_path / "runs" / "exp")[1:]] == ["0", "1", "2"]
    with pytest.raises(UserError, match="stripped|no optimiser state"):
        train.run(resume=str(tmp_path / "runs" / "exp" / "weights" / "best.pt"))
