"""train.py from the outside: what it writes, how it goes on after an interruption."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

import train
from engine.task import DetectionTask
from engine.training import trainer
from engine.training.trainer import Trainer
from models.checkpoints.format import load_checkpoint, save_checkpoint
from models.loading import load_model
from utils.errors import UserError

COLUMNS = [
    "epoch",
    "train/box_loss",
    "train/obj_loss",
    "train/cls_loss",
    "metrics/precision",
    "metrics/recall",
    "metrics/mAP_0.5",
    "metrics/mAP_0.5:0.95",
    "val/box_loss",
    "val/obj_loss",
    "val/cls_loss",
    "x/lr0",
    "x/lr1",
    "x/lr2",
]


@pytest.fixture
def options(tiny_data: Path, tmp_path: Path) -> dict[str, Any]:
    """A training of a few seconds."""
    return {
        "cfg": "yolov5n_MobileNetv2.yaml",
        "data": str(tiny_data),
        "hyp": {"nbs": 4, "lr0": 0.01},
        "imgsz": [64],
        "batch_size": 4,
        "epochs": 2,
        "workers": 0,
        "device": "cpu",
        "project": str(tmp_path / "runs"),
        "noplots": True,
        "noautoanchor": True,
    }


def rows(folder: Path) -> list[list[str]]:
    with (folder / "results.csv").open(newline="") as file:
        return list(csv.reader(file))


def test_a_training_writes_what_yolov5s_users_expect(options: dict[str, Any], tmp_path: Path) -> None:
    result = train.run(**{**options, "noplots": False})
    folder = tmp_path / "runs" / "exp"
    table = rows(folder)
    assert table[0] == COLUMNS
    assert [row[0] for row in table[1:]] == ["0", "1"]
    assert all(float(value) == float(value) for row in table[1:] for value in row)
    written = {p.name for p in folder.iterdir()}
    assert {"hyp.yaml", "opt.yaml", "results.png", "labels.jpg", "train_batch0.jpg"} <= written
    assert {"PR_curve.png", "F1_curve.png", "P_curve.png", "R_curve.png", "confusion_matrix.png"} <= written
    assert {"val_batch0_labels.jpg", "val_batch0_pred.jpg"} <= written
    last, best = (torch.load(folder / "weights" / f"{n}.pt", weights_only=True) for n in ("last", "best"))
    assert last["epoch"] == 1
    assert last["optimizer"] is not None
    assert best["optimizer"] is None
    assert {v.dtype for v in best["state_dict"].values() if v.is_floating_point()} == {torch.float16}
    model = load_model(str(folder / "weights" / "best.pt"))
    assert model.names == {0: "light", 1: "dark"}
    assert 0 <= result.metrics.map50 <= 1


@pytest.mark.slow
def test_losses_fall(options: dict[str, Any], tmp_path: Path) -> None:
    hyp = {"nbs": 4, "mosaic": 0.0, "scale": 0.1, "lr0": 0.003}
    train.run(**{**options, "epochs": 80, "noval": True, "optimizer": "AdamW", "hyp": hyp})
    table = rows(tmp_path / "runs" / "exp")[1:]
    for column in (1, 3):  # box and class; the objectness target is the IoU reached, so that loss may rise with skill
        assert float(table[-1][column]) < 0.9 * float(table[0][column]), table[0][column]


class Killed(BaseException):
    """Stands for kill -9: nothing in the code base may catch it."""


def train_killed_in(epoch: int, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    step = Trainer.optimizer_step
    seen: list[int] = []

    def killing(self: Trainer) -> None:
        seen.append(1)
        if len(seen) > epoch * len(self.session.train_loader) + 1:
            raise Killed
        step(self)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Trainer, "optimizer_step", killing)
        train.run(**options)


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
        monkeypatch.setattr("engine.validator.fitness", lambda metrics: next(fitnesses))
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
    monkeypatch.setattr("engine.validator.fitness", lambda metrics: next(fitnesses))
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


def test_the_same_seed_gives_the_same_training(options: dict[str, Any], tmp_path: Path) -> None:
    for seed in (1, 1, 2):
        train.run(**{**options, "epochs": 1, "seed": seed})
    a, b, c = (rows(tmp_path / "runs" / name)[1][1:4] for name in ("exp", "exp2", "exp3"))
    assert a == b != c


@pytest.mark.parametrize("flags", [{"rect": True}, {"quad": True}, {"multi_scale": True}, {"image_weights": True}])
def test_ways_of_feeding(options: dict[str, Any], tmp_path: Path, flags: dict[str, bool]) -> None:
    train.run(**{**options, "epochs": 1, **flags})
    assert len(rows(tmp_path / "runs" / "exp")) == 2


def test_two_sizes_cosine_adamw_single_class_and_smoothing(options: dict[str, Any], tmp_path: Path) -> None:
    extra = {"imgsz": [64, 96], "cos_lr": True, "optimizer": "AdamW", "single_cls": True, "label_smoothing": 0.1}
    train.run(**{**options, **extra})
    checkpoint = load_checkpoint(tmp_path / "runs" / "exp" / "weights" / "last.pt")
    assert checkpoint.names == {0: "item"}
    assert checkpoint.extra["imgsz"] == [64, 96]
    assert checkpoint.hyp["label_smoothing"] == 0.1


def test_frozen_rows_stay_bit_identical(options: dict[str, Any], tmp_path: Path) -> None:
    train.run(**{**options, "epochs": 1, "nosave": False, "name": "a"})
    start = tmp_path / "runs" / "a" / "weights" / "last.pt"
    train.run(**{**options, "epochs": 2, "cfg": "", "weights": str(start), "freeze": [5], "name": "b"})
    before, after = (load_checkpoint(tmp_path / "runs" / n / "weights" / "last.pt") for n in ("a", "b"))
    frozen = [k for k in before.ema if int(k.split(".")[1]) < 5]
    assert len(frozen) > 20
    for key in frozen:
        assert torch.equal(before.ema[key], after.state_dict[key]), key
    assert any(not torch.equal(before.ema[k], after.state_dict[k]) for k in before.ema if k not in frozen)


def test_patience_stops(options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fitnesses = iter([0.5, 0.4, 0.3, 0.2, 0.1])
    monkeypatch.setattr("engine.validator.fitness", lambda metrics: next(fitnesses))
    train.run(**{**options, "epochs": 5, "patience": 2})
    assert [row[0] for row in rows(tmp_path / "runs" / "exp")[1:]] == ["0", "1", "2"]


def test_non_finite_losses_are_named_and_skipped(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = itertools.count()
    whole = DetectionTask.loss

    def loss(self: DetectionTask, *arguments: Any) -> Any:
        total, parts = whole(self, *arguments)
        if torch.is_grad_enabled() and next(steps) > 4:  # in the second epoch
            return total * float("nan"), parts * float("nan")
        return total, parts

    monkeypatch.setattr(DetectionTask, "loss", loss)
    with pytest.raises(UserError, match=r"epoch 4, batch \d+: loss is not finite \(box nan, .*10 batches in a row"):
        train.run(**{**options, "epochs": 30, "noval": True})
    last = load_checkpoint(tmp_path / "runs" / "exp" / "weights" / "last.pt")
    assert all(torch.isfinite(v).all() for v in last.ema.values())
    assert capsys.readouterr().err.count("this batch is skipped") == 9


def test_evolve_searches_and_records(options: dict[str, Any], tmp_path: Path) -> None:
    best = train.run(**{**options, "epochs": 1, "evolve": 2})
    with (tmp_path / "runs" / "exp" / "evolve.csv").open(newline="") as file:
        table = list(csv.reader(file))
    assert len(table) == 3
    assert table[0][0] == "fitness"
    assert table[1] != table[2]
    assert (tmp_path / "runs" / "exp" / "hyp_evolve.yaml").is_file()
    assert best["lr0"] > 0


def test_save_period_and_nosave(options: dict[str, Any], tmp_path: Path) -> None:
    train.run(**{**options, "epochs": 3, "save_period": 2, "noval": True})
    assert (tmp_path / "runs" / "exp" / "weights" / "epoch2.pt").is_file()
    assert not (tmp_path / "runs" / "exp" / "weights" / "epoch1.pt").is_file()
    train.run(**{**options, "nosave": True, "noval": True, "epochs": 1})
    assert (tmp_path / "runs" / "exp2" / "weights" / "last.pt").is_file()
