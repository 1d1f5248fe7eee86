"""``--deterministic``: what a training sets, keeps on resuming, and says where it cannot be had."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import train
from engine.task import DetectionTask
from engine.training.safeguards.dry_run import dry_run
from models.checkpoints.checkpoint import load_checkpoint
from tests.engine.training.step import make_network
from utils.errors import UserError
from utils.hyp import load_hyp


@pytest.fixture(autouse=True)
def _restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Torch's settings are those of the whole process; none may stay."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    yield
    torch.use_deterministic_algorithms(False)
    cudnn.deterministic, cudnn.benchmark = before


def test_a_training_sets_it_and_goes_on_with_it(tiny_data: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "cfg": "yolov5n_MobileNetv2.yaml", "data": str(tiny_data), "imgsz": [64], "batch_size": 6, "epochs": 1,
        "workers": 0, "device": "cpu", "noplots": True, "noautoanchor": True, "deterministic": True,
    }  # fmt: skip
    train.run(**options)
    assert torch.are_deterministic_algorithms_enabled()
    last = tmp_path / "runs" / "train" / "exp" / "weights" / "last.pt"
    assert load_checkpoint(last).opt["deterministic"] is True
    torch.use_deterministic_algorithms(False)
    train.run(resume=str(last), epochs=2)
    assert torch.are_deterministic_algorithms_enabled()


def test_an_operation_that_cannot_repeat_is_named_before_the_first_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    task = DetectionTask()
    net = make_network(task)

    def refuse(images: torch.Tensor) -> Any:
        raise RuntimeError(
            "adaptive_max_pool2d_backward_cuda does not have a deterministic implementation, but you set "
            "'torch.use_deterministic_algorithms(True)'. You can turn off determinism just for this operation"
        )

    monkeypatch.setattr(type(net), "forward", lambda self, images: refuse(images))
    with pytest.raises(UserError) as caught:
        dry_run(net, task, load_hyp("hyp.scratch-low.yaml"), torch.device("cpu"))
    assert str(caught.value) == (
        "--deterministic: adaptive_max_pool2d_backward_cuda, which this network needs, gives no repeatable results on "
        "cpu; leave --deterministic out, or give a network without that operation"
    )
