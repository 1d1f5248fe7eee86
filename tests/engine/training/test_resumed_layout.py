from __future__ import annotations

from pathlib import Path

from engine.training.resume import restore
from engine.training.saver import snapshot
from models.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from tests.engine.training.step import make_trainer


def test_momentum_and_average_lie_in_memory_as_the_weights(tmp_path: Path) -> None:
    """The file has all contiguous; kernels for many tensors at once want one order (that of an axis of 1 is free)."""
    before = make_trainer("detect", tmp_path, "cpu")
    before.train_epoch(0)
    save_checkpoint(tmp_path / "last.pt", snapshot(before.session, epoch=0))
    checkpoint = load_checkpoint(tmp_path / "last.pt")
    session = make_trainer("detect", tmp_path, "cpu").session
    session.net.load_state_dict(checkpoint.state_dict)
    restore(session, checkpoint)
    striped = 0
    averages = dict(session.ema.ema.named_parameters())
    for name, parameter in session.net.named_parameters():
        momentum = session.optimizer.state[parameter]["momentum_buffer"]
        assert momentum.stride() == averages[name].stride() == parameter.stride(), name
        striped += not parameter.is_contiguous()
    assert striped
