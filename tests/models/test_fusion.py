"""What blocks must survive: fusion, copies, saving, tracing, training; for all that are registered."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from torch import nn

from models.common import RepVGGBlock
from models.initialization import initialize_weights
from models.registry import BLOCKS

# Constructor arguments of every registered block that maps one (2, 16, 8, 8) map to another, groups included.
CASES: dict[str, list[tuple[Any, ...]]] = {
    "Conv": [
        (16, 24, 3, 2),
        (16, 24, 3, 1, None, 4),
        (16, 16, 3, 1, None, 16, 2),
        (16, 8, (1, 3), 1, None, 1, 1, "ReLU"),
    ],
    "DWConv": [(16, 16, 3), (16, 24, 5, 2)],
    "DWSConv": [(16, 24, 3, 2), (16, 16, 5)],
    "DWConvTranspose2d": [(16, 24, 4, 2, 1)],
    "Focus": [(16, 24, 3), (16, 24, 3, 1, None, 4)],
    "GhostConv": [(16, 24, 3), (16, 24, 3, 2, 2)],
    "Bottleneck": [(16, 16), (16, 24, True, 4), (16, 16, False)],
    "DWSBottleneck": [(16, 16), (16, 24, True, 5), (16, 16, False)],
    "CrossConv": [(16, 16, 3, 1, 1, 1.0, True), (16, 24, 3, 2, 4)],
    "GhostBottleneck": [(16, 24, 3, 2), (16, 16, 3, 1)],
    "BottleneckCSP": [(16, 24, 2), (16, 24, 1, False, 4)],
    "C3": [(16, 24, 2), (16, 24, 1, False, 4)],
    "C3x": [(16, 24, 2), (16, 24, 1, True, 4)],
    "C3TR": [(16, 32, 1), (16, 16, 2)],
    "C3DWS": [(16, 24, 2), (16, 24, 1, False, 5)],
    "C3Ghost": [(16, 24, 2)],
    "C3SPP": [(16, 24), (16, 24, (3, 5))],
    "SPP": [(16, 24)],
    "SPPF": [(16, 24), (16, 24, 3)],
    "MobileNetV2_Block": [(16, 16, 1, 6), (16, 24, 2, 6), (16, 24, 1, 1), (16, 16)],
    "conv_bn_relu_maxpool": [(16, 24)],
    "RepVGGBlock": [
        (16, 16),
        (16, 24),
        (16, 16, 3, 2),
        (16, 16, 3, 1, True),
        (16, 16, 3, 1, False, True),
        (16, 16, 3, 1, False, False, 1, 1, 4),
        (16, 16, 5, 1, False, False, 2, 1, 16),
        (16, 16, 3, 1, False, False, 2, 2),
        (16, 16, 1, 1, False, False, 0),
        (16, 16, 3, 1, False, False, 1, 1, 2, "reflect"),
        (16, 24, 3, 1, False, False, 1, 1, 1, "zeros", True),
    ],
    "SEBlock": [(16, 4)],
    "CBAM": [(16, 4), (16, 1, 3)],
    "Contract": [(2,)],
    "Expand": [(2,)],
    "nn.Upsample": [(None, 2, "nearest")],
    "nn.MaxPool2d": [(3, 2, 1)],
    "nn.BatchNorm2d": [(16,)],
    "nn.ConvTranspose2d": [(16, 24, 2, 2)],
}
NOT_MAPS = {"Concat", "Detect", "Segment"}
EVERY_CASE = [(name, args) for name, cases in CASES.items() for args in cases]


def build(name: str, args: tuple[Any, ...]) -> nn.Module:
    """The block with norm statistics, scales and shifts at random, in evaluation mode."""
    torch.manual_seed(0)
    block = BLOCKS[name].cls(*args)
    initialize_weights(block)
    randomise_norms(block)
    return block.eval()


def randomise_norms(block: nn.Module) -> None:
    for m in block.modules():
        if isinstance(m, nn.BatchNorm2d):
            assert m.running_mean is not None
            assert m.running_var is not None
            m.running_mean.normal_()
            m.running_var.uniform_(0.3, 3)
            nn.init.uniform_(m.weight, 0.5, 1.5)
            nn.init.normal_(m.bias)


def fuse(block: nn.Module) -> None:
    for m in list(block.modules()):
        if hasattr(m, "fuse"):
            m.fuse()  # type: ignore[operator]


def test_every_registered_block_has_a_case() -> None:
    from models import yolo  # noqa: F401 - registers the heads

    assert set(BLOCKS) - NOT_MAPS == set(CASES)


@pytest.mark.parametrize(("name", "args"), EVERY_CASE)
@torch.no_grad()
def test_fused_equals_unfused(name: str, args: tuple[Any, ...]) -> None:
    block = build(name, args)
    x = torch.randn(2, 16, 8, 8)
    expected = block(x.clone())
    parameters = sum(p.numel() for p in block.parameters())
    fuse(block)
    torch.testing.assert_close(block(x.clone()), expected, rtol=1e-4, atol=1e-4)
    if name not in {"nn.BatchNorm2d"}:
        assert not any(isinstance(m, nn.BatchNorm2d) for m in block.modules())
        assert sum(p.numel() for p in block.parameters()) <= parameters

    state = copy.deepcopy(block.state_dict())
    fuse(block)  # a second time: nothing
    assert list(block.state_dict()) == list(state)
    assert all(torch.equal(value, state[key]) for key, value in block.state_dict().items())

    twin = copy.deepcopy(block)
    for p in block.parameters():
        p.add_(1.0)  # a copy that still called the original would change with it
    torch.testing.assert_close(twin(x.clone()), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "args"), EVERY_CASE)
@pytest.mark.filterwarnings("ignore")
@torch.no_grad()
def test_fused_saves_and_traces(name: str, args: tuple[Any, ...]) -> None:
    block = build(name, args)
    fuse(block)
    x = torch.randn(2, 16, 8, 8)
    expected = block(x.clone())
    file = io.BytesIO()
    torch.save(block, file)
    file.seek(0)
    torch.testing.assert_close(torch.load(file, weights_only=False)(x.clone()), expected)
    traced = torch.jit.trace(block, (x.clone(),))
    torch.testing.assert_close(traced(x.clone()), expected)


@pytest.mark.parametrize("name", sorted(CASES))
def test_training_reaches_every_parameter(name: str) -> None:
    block = build(name, CASES[name][0]).train()
    block(torch.randn(2, 16, 8, 8, requires_grad=True)).square().sum().backward()
    assert all(p.grad is not None for p in block.parameters())


def test_fusing_a_child_first_changes_nothing() -> None:
    block, x = build("RepVGGBlock", (16, 16)), torch.randn(2, 16, 8, 8)
    assert isinstance(block, RepVGGBlock)
    with torch.no_grad():
        expected = block(x)
        block.rbr_dense.fuse()  # type: ignore[union-attr]
        block.fuse()
        torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-4)
