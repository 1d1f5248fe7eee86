"""A training on a GPU that is not there: everything in a step is on it, and the numbers are those of the CPU."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.modules.batchnorm import _BatchNorm

from engine.training import trainer as trainer_module
from engine.training.resume import restore
from engine.training.safeguards.dry_run import dry_run
from engine.training.saver import snapshot
from engine.training.session import Session
from engine.training.trainer import RunningMean, Trainer
from tests.engine.cuda import stand_in_cuda
from tests.engine.training.step import make_batch, make_network, make_task, make_trainer
from utils.data.batch import Batch

TASKS = pytest.mark.parametrize(("task", "overlap"), [("detect", True), ("segment", True), ("segment", False)])
CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[3]


@TASKS
@pytest.mark.parametrize("scaled", [False, True])
def test_an_epoch_gives_the_weights_of_the_cpu(tmp_path: Path, task: str, overlap: bool, scaled: bool) -> None:
    """Forward, loss, backward, optimiser, EMA; on a GPU the loss goes another way (no row is dropped)."""
    options: dict[str, Any] = {"overlap": overlap, "scaled": scaled}
    on_cpu = make_trainer(task, tmp_path, "cpu", **options)
    start = {key: value.clone() for key, value in on_cpu.session.net.state_dict().items()}
    expected = on_cpu.train_epoch(0)
    with stand_in_cuda():
        trainer = make_trainer(task, tmp_path, "cuda", **options)
        losses = trainer.train_epoch(0).cpu()
        found = {key: value.cpu() for key, value in trainer.session.net.state_dict().items()}
        average = {key: value.cpu() for key, value in trainer.session.ema.ema.state_dict().items()}
    torch.testing.assert_close(losses, expected)
    torch.testing.assert_close(found, dict(on_cpu.session.net.state_dict()), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(average, dict(on_cpu.session.ema.ema.state_dict()), rtol=1e-4, atol=1e-6)
    assert not torch.equal(found["model.0.conv.weight"], start["model.0.conv.weight"])


def _spoil(trainer: Trainer, *numbers: int) -> None:
    """The losses of the batches of these `numbers` are infinite; their gradients are not."""
    criterion, calls = trainer.session.criterion, itertools.count()

    def spoilt(*arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
        loss, items = criterion(*arguments)
        return (loss + float("inf"), items + float("inf")) if next(calls) in numbers else (loss, items)

    trainer.session.criterion = spoilt


def _learned(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Weights and momentum, on the CPU."""
    state = trainer.session.optimizer.state
    named = {name: value.detach().cpu().clone() for name, value in trainer.session.net.named_parameters()}
    momenta = {f"{name} m": state[p]["momentum_buffer"] for name, p in trainer.session.net.named_parameters()}
    return named | {name: value.cpu().clone() for name, value in momenta.items()}


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("bad", [0, 1, 2])
def test_nothing_is_learned_from_a_bad_batch(
    tmp_path: Path, scaled: bool, bad: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """The GPU leaves its step out, the CPU never begins it: with the same result."""
    on_cpu = make_trainer("detect", tmp_path, "cpu", scaled=scaled)
    batches = on_cpu.session.train_loader
    batches.append(make_batch(on_cpu.session.task, 2))
    _spoil(on_cpu, bad)
    expected = on_cpu.train_epoch(0)
    with stand_in_cuda():
        trainer = make_trainer("detect", tmp_path, "cuda", scaled=scaled)
        trainer.session.train_loader = batches
        _spoil(trainer, bad)
        losses = trainer.train_epoch(0).cpu()
        torch.testing.assert_close(_learned(trainer), _learned(on_cpu), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(losses, expected)
    assert capsys.readouterr().err.count(f"batch {bad}: loss is not finite (box inf, obj inf, cls inf)") == 2


@pytest.mark.parametrize("scaled", [False, True])
def test_bad_batches_leave_weights_momentum_and_average_alone(tmp_path: Path, scaled: bool) -> None:
    with stand_in_cuda():
        trainer = make_trainer("detect", tmp_path, "cuda", scaled=scaled)
        before = _learned(trainer)
        _spoil(trainer, 0, 1)
        assert not trainer.train_epoch(0).cpu().any()
        after = _learned(trainer)
        average = {name: value.cpu() for name, value in trainer.session.ema.ema.named_parameters()}
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert all(torch.equal(value, before[name]) for name, value in average.items())


def test_batches_that_share_a_step_with_a_bad_one_are_lost_with_it(tmp_path: Path) -> None:
    with stand_in_cuda():
        trainer = make_trainer("detect", tmp_path, "cuda")
        trainer.session.schedule.accumulate = 2
        trainer.session.schedule.warmup_steps = -1
        before = _learned(trainer)
        _spoil(trainer, 0)
        trainer.train_epoch(0)
        assert all(torch.equal(value, before[name]) for name, value in _learned(trainer).items())
        trainer.train_epoch(1)
        assert not all(torch.equal(value, before[name]) for name, value in _learned(trainer).items())


@pytest.mark.slow
@pytest.mark.parametrize("cfg", [path.name for path in sorted((ROOT / "models").rglob("*.yaml"))])
def test_every_network_trains_there(tmp_path: Path, cfg: str) -> None:
    """Blocks too may keep a tensor where `.to` does not find it."""
    name = "segment" if cfg.endswith("-seg.yaml") or "-seg-" in cfg else "detect"
    with stand_in_cuda():
        trainer = make_trainer(name, tmp_path, "cuda", net=make_task(name).build_model(cfg, nc=3))
        losses = trainer.train_epoch(0)
        decoded, *_ = trainer.session.ema.ema(torch.zeros(1, 3, 64, 64, device="cuda"))
        assert torch.isfinite(losses.cpu()).all()
        assert decoded.is_cuda


def _statistics(session: Session) -> None:
    norm = next(module for module in session.net.modules() if isinstance(module, _BatchNorm))
    norm.running_mean = torch.zeros(norm.num_features)


def _weight(session: Session) -> None:
    convolution = session.net.model[0].conv
    convolution.weight = torch.nn.Parameter(torch.zeros(convolution.weight.shape))


def _images(session: Session) -> None:
    session.train_loader[0].to = lambda device: session.train_loader[0]


def _anchors(session: Session) -> None:
    session.net.model[-1].anchors = session.net.model[-1].anchors.cpu()


def _left_behind(field: str) -> Callable[[Session], None]:
    def plant(session: Session) -> None:
        batch = session.train_loader[0]

        def move(device: torch.device) -> Batch:
            moved = Batch.to(batch, device)
            setattr(moved, field, getattr(batch, field))
            return moved

        batch.to = move

    return plant


def _gradient(session: Session) -> None:
    bias = session.net.model[-1].m[0].bias
    bias.register_hook(lambda gradient: gradient * torch.ones(gradient.shape))


def _momentum(session: Session) -> None:
    weight = session.net.model[0].conv.weight  # as after resuming from a checkpoint read on the CPU
    session.optimizer.state[weight]["momentum_buffer"] = torch.zeros(weight.shape)


def _average(session: Session) -> None:
    session.ema.ema.model[0].bn.running_mean = torch.zeros(session.ema.ema.model[0].bn.num_features)


PLANTS = {
    "weight": _weight,
    "statistics": _statistics,
    "images": _images,
    "anchors": _anchors,
    "targets": _left_behind("targets"),
    "masks": _left_behind("masks"),
    "gradient": _gradient,
    "momentum": _momentum,
    "average": _average,
}


@pytest.mark.parametrize("name", PLANTS)
def test_a_tensor_left_on_the_cpu_is_found(tmp_path: Path, name: str) -> None:
    with stand_in_cuda():
        trainer = make_trainer("segment", tmp_path, "cuda")
        PLANTS[name](trainer.session)
        with pytest.raises(RuntimeError, match="cuda:0 and cpu"):
            trainer.train_epoch(0)


def test_a_running_loss_left_on_the_cpu_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer_module, "RunningMean", lambda count, device: RunningMean(count, CPU))
    with stand_in_cuda(), pytest.raises(RuntimeError, match="cuda:0 and cpu"):
        make_trainer("detect", tmp_path, "cuda").train_epoch(0)


def _half_precision_step(trainer: Trainer) -> tuple[torch.Tensor, Any]:
    """All but the backward pass, which asks for a CUDA context where torch is built for CUDA; the output to decode."""
    s = trainer.session
    batch = s.train_loader[0].to(s.device)
    with trainer.autocast():
        predictions = s.model.train()(trainer.network_input(batch.images))
        loss, items = s.task.loss(s.criterion, predictions, batch)
    assert trainer.guard.accepts(loss, items, epoch=0, step=0, paths=[])
    for parameter in s.net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    trainer.optimizer_step()
    with trainer.autocast():
        return loss, s.ema.ema(trainer.network_input(batch.images))


def _fused_sgd(parameters: list, gradients: list, momenta: list, **_: Any) -> None:
    """torch's own has no rules for tensors without values; it wants all tensors on one device, as this does."""
    for parameter, gradient, momentum in zip(parameters, gradients, momenta, strict=True):
        parameter.add_(momentum.add_(gradient))


@contextlib.contextmanager
def _fake_trainer(task: str, folder: Path, **options: Any) -> Iterator[Trainer]:
    """torch's own rules of devices, and mixed precision, which `stand_in_cuda` lacks; but no values."""
    net = make_network(make_task(task))
    with (
        mock.patch("torch.cuda.amp.common.amp_definitely_not_available", return_value=False),
        mock.patch("models.yolo.is_traced", return_value=False),
        mock.patch("torch.cuda.Event"),
        mock.patch("torch._fused_sgd_", _fused_sgd),
        FakeTensorMode(allow_non_fake_inputs=True),  # a real tensor counts as one on the CPU
    ):
        trainer = make_trainer(task, folder, "cuda", net=net, **options)
        trainer.session.amp_dtype = torch.float16
        yield trainer


@TASKS
@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")  # a copy of the model does
def test_torch_agrees_in_half_precision(tmp_path: Path, task: str, overlap: bool) -> None:
    with _fake_trainer(task, tmp_path, overlap=overlap) as trainer:
        loss, (decoded, *_) = _half_precision_step(trainer)
        assert (loss.device.type, loss.dtype) == ("cuda", torch.float32)
        assert (decoded.device.type, decoded.shape) == ("cuda", (2, 3 * (64 + 16 + 4), 8 + 4 * (task == "segment")))


@pytest.mark.parametrize(
    "name", ["weight", "statistics", "images", "anchors", "targets", "masks", "momentum", "average"]
)
@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
def test_torch_finds_it_too(tmp_path: Path, name: str) -> None:
    with _fake_trainer("segment", tmp_path) as trainer:
        PLANTS[name](trainer.session)
        with pytest.raises(RuntimeError, match="cuda:0.*cpu|cpu.*cuda:0"):
            _half_precision_step(trainer)


@pytest.mark.parametrize("task", ["detect", "segment"])
def test_the_rehearsal_runs_there(tmp_path: Path, task: str) -> None:
    with stand_in_cuda():
        session = make_trainer(task, tmp_path, "cuda").session
        dry_run(session.net, session.task, session.hyp, session.device)


def test_the_validation_computes_in_the_trainings_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr(trainer_module, "validate", lambda *_, **options: asked.update(options) or mock.Mock())
    trainer = make_trainer("detect", tmp_path, "cpu")
    trainer.session.val_loader, trainer.session.amp_dtype = trainer.session.train_loader, torch.bfloat16
    trainer.validate()
    assert asked["amp_dtype"] is torch.bfloat16


def test_a_resumed_training_goes_on_there(tmp_path: Path) -> None:
    """What was read from the file on the CPU, momentum and average included, comes to the device."""
    before = make_trainer("detect", tmp_path, "cpu")
    before.train_epoch(0)
    checkpoint = snapshot(before.session, epoch=0)
    with stand_in_cuda():
        trainer = make_trainer("detect", tmp_path, "cuda")
        trainer.session.net.load_state_dict(checkpoint.state_dict)
        restore(trainer.session, checkpoint)
        losses = trainer.train_epoch(1).cpu()
    torch.testing.assert_close(losses, before.train_epoch(1), rtol=1e-4, atol=1e-6)
