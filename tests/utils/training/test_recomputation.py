"""A block that computes its hidden tensors again: same gradients, same statistics, less memory."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

from models.common import Conv, MobileNetV2_Block
from tests.engine.training.step import make_trainer
from utils.errors import UserError
from utils.training.recomputation import set_recompute

BLOCKS = pytest.mark.parametrize(("c2", "stride", "ratio"), [(8, 1, 6), (12, 2, 6), (8, 1, 1)])


def _block(c2: int = 8, stride: int = 1, ratio: int = 6) -> nn.Module:
    """A block between two convolutions, so that its input needs a gradient and its output is read."""
    torch.manual_seed(0)
    net = nn.Sequential(Conv(3, 8), MobileNetV2_Block(8, c2, stride, ratio), Conv(c2, 4)).train()
    return net.to(memory_format=torch.channels_last)


def _step(net: nn.Module, dtype: torch.dtype | None = None) -> dict[str, torch.Tensor]:
    """Output, gradients and state after one step on random pictures."""
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
        output = net(images)
    output.square().sum().backward()
    gradients = {f"{name}.grad": p.grad for name, p in net.named_parameters() if p.grad is not None}
    return {"output": output, **gradients, **net.state_dict()}


def _assert_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


@BLOCKS
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_everything_is_the_same_to_the_bit(c2: int, stride: int, ratio: int, dtype: torch.dtype | None) -> None:
    net = _block(c2, stride, ratio)
    twin = copy.deepcopy(net)
    set_recompute(twin, True)
    for _ in range(2):
        expected, found = _step(net, dtype), _step(twin, dtype)
        _assert_equal(found, expected)
    assert found["1.conv.0.bn.num_batches_tracked"] == 2


def test_norms_are_as_they_were() -> None:
    net = _block()
    set_recompute(net, True)
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    _step(net)
    for norm, (momentum, count) in zip(norms, before, strict=True):
        assert norm.momentum == momentum
        assert norm.num_batches_tracked is count


def _kept(net: nn.Module) -> int:
    """Bytes of all tensors but parameters that a forward pass keeps for the backward pass."""
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, nn.Parameter):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = net(torch.randn(2, 8, 32, 32, requires_grad=True))
    assert output.requires_grad
    return sum(kept.values())


def test_only_the_input_is_kept() -> None:
    block = MobileNetV2_Block(8, 8, 1, 6).train()
    hidden = 2 * 48 * 32 * 32 * 4
    assert _kept(block) > 4 * hidden
    set_recompute(block, True)
    # within checkpoint's own hooks nothing is packed: what would be kept is not
    assert _kept(block) <= 2 * 8 * 32 * 32 * 4


def test_where_nothing_is_trained_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluation, export by tracing, fusing: the plain way."""
    net = _block()
    expected = copy.deepcopy(net).eval()
    set_recompute(net, True)
    monkeypatch.setattr("models.common.recomputed", None)  # not to be called
    images = torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        net(images)
    net.load_state_dict(expected.state_dict())
    assert torch.equal(net.eval()(images), expected(images))
    with torch.no_grad():
        traced = torch.jit.trace(copy.deepcopy(net), images)
    assert torch.equal(traced(images), expected(images))
    for module in net.modules():
        if isinstance(module, Conv):
            module.fuse()
    torch.testing.assert_close(net(images), expected(images))


def test_a_network_without_such_blocks_is_refused() -> None:
    plain = nn.Sequential(Conv(3, 4))
    assert set_recompute(plain, False) is plain
    with pytest.raises(UserError, match="--recompute: this network has no block"):
        set_recompute(plain, True)


@pytest.mark.parametrize("task", ["detect", "segment"])
def test_a_training_has_the_same_weights(tmp_path: Path, task: str) -> None:
    found = []
    for recompute in (False, True):
        trainer = make_trainer(task, tmp_path, "cpu")
        set_recompute(trainer.session.net, recompute)
        losses = trainer.train_epoch(0)
        found.append({"losses": losses, **trainer.session.net.state_dict(), **_prefixed(trainer.session.ema.ema)})
    _assert_equal(found[1], found[0])


def _prefixed(average: Any) -> dict[str, torch.Tensor]:
    return {f"average.{name}": value for name, value in average.state_dict().items()}


@pytest.fixture
def alone() -> Iterator[None]:
    """A process group of one."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("alone")
def test_several_processes() -> None:
    """`DistributedDataParallel` accepts it, with accumulated gradients too."""
    plain, twin = _block(), _block()
    set_recompute(twin, True)
    parallel = nn.parallel.DistributedDataParallel(twin)
    for _ in range(2):
        expected = _step(plain)
        _step(parallel)
    for name, parameter in twin.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, expected[f"{name}.grad"], rtol=0, atol=0)
