"""Folding against the definitions: batch norm written out, float64 sums of branches."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from utils.ops.fusion import Kernel, affine_of, centred, fold, fuse_conv_and_bn, identity_kernel


def random_norm(channels: int, **kwargs: bool) -> nn.BatchNorm2d:
    bn = nn.BatchNorm2d(channels, eps=1e-3, **kwargs).eval()
    assert bn.running_mean is not None
    assert bn.running_var is not None
    bn.running_mean.normal_()
    bn.running_var.uniform_(0.3, 3)
    if bn.affine:
        nn.init.normal_(bn.weight)
        nn.init.normal_(bn.bias)
    return bn


def test_affine_by_hand() -> None:
    bn = nn.BatchNorm2d(1, eps=0.0).eval()
    bn.load_state_dict(
        {
            "weight": torch.tensor([3.0]),
            "bias": torch.tensor([1.0]),
            "running_mean": torch.tensor([2.0]),
            "running_var": torch.tensor([4.0]),
            "num_batches_tracked": torch.tensor(1),
        }
    )
    scale, shift = affine_of(bn)  # (x - 2) / 2 * 3 + 1
    assert scale.item() == pytest.approx(1.5)
    assert shift.item() == pytest.approx(-2.0)


def test_norm_without_parameters_and_without_statistics() -> None:
    bn = random_norm(4, affine=False)
    x = torch.randn(2, 4, 3, 3)
    scale, shift = affine_of(bn)
    torch.testing.assert_close(x * scale.view(-1, 1, 1) + shift.view(-1, 1, 1), bn(x))
    with pytest.raises(ValueError, match="running statistics"):
        affine_of(nn.BatchNorm2d(4, track_running_stats=False))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    "geometry",
    [
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": 3, "stride": 2, "padding": 2, "dilation": 2, "groups": 4},
        {"kernel_size": (1, 5), "padding": (0, 2), "groups": 8},
        {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"},
    ],
)
def test_fused_convolution_equals_the_two(geometry: dict, bias: bool) -> None:
    torch.manual_seed(0)
    conv, bn = nn.Conv2d(8, 16, bias=bias, **geometry), random_norm(16)
    before = copy.deepcopy(conv.state_dict()), copy.deepcopy(bn.state_dict())
    fused = fuse_conv_and_bn(conv, bn)
    x = torch.randn(2, 8, 9, 7)
    expected = bn.double()(conv.double()(x.double())).float()
    torch.testing.assert_close(fused(x), expected, rtol=1e-5, atol=1e-5)
    assert not any(p.requires_grad for p in fused.parameters())
    for module, state in zip((conv, bn), before, strict=True):  # the originals are as they were
        for name, value in module.float().state_dict().items():
            torch.testing.assert_close(value, state[name], rtol=0, atol=1e-7)


def test_fused_keeps_type() -> None:
    conv, bn = nn.Conv2d(4, 4, 1).half(), random_norm(4).half()
    fused = fuse_conv_and_bn(conv, bn)
    assert fused.weight.dtype == fused.bias.dtype == torch.float16  # type: ignore[union-attr]


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_identity_kernel(groups: int) -> None:
    x = torch.randn(1, 6, 5, 4)
    weight = identity_kernel(6, groups, like=x)
    assert weight.shape == (6, 6 // groups, 1, 1)
    assert torch.equal(nn.functional.conv2d(x, weight, groups=groups), x)


def test_parallel_kernels_add_up() -> None:
    torch.manual_seed(0)
    three, one = nn.Conv2d(4, 6, 3, padding=1), nn.Conv2d(4, 6, 1)
    total = fold(three, None) + centred(fold(one, None), 3)
    assert isinstance(total, Kernel)
    x = torch.randn(1, 4, 6, 6)
    torch.testing.assert_close(nn.functional.conv2d(x, total.weight, total.bias, padding=1), three(x) + one(x))
