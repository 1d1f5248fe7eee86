"""Blocks: their arithmetic against independent implementations."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models import common
from models.common import (
    C3,
    C3DWS,
    C3SPP,
    CBAM,
    SPP,
    SPPF,
    BottleneckCSP,
    Contract,
    Conv,
    CrossConv,
    DWConv,
    DWSConv,
    Expand,
    Focus,
    GhostConv,
    MobileNetV2_Block,
    RepVGGBlock,
    SEBlock,
    TransformerBlock,
    TransformerLayer,
    conv_bn_relu_maxpool,
)
from models.initialization import initialize_weights
from tests.models.test_fusion import randomise_norms
from utils.errors import UserError


def randomised(block: nn.Module) -> nn.Module:
    """`block` with norm statistics, scales and shifts at random, in evaluation mode."""
    torch.manual_seed(0)
    initialize_weights(block)
    randomise_norms(block)
    return block.eval()


def test_conv_arguments_reach_the_convolution() -> None:
    conv = Conv(8, 16, 3, 2, None, 2, 3).conv
    assert (conv.stride, conv.groups, conv.dilation, conv.padding) == ((2, 2), 2, (3, 3), (3, 3))
    assert conv.bias is None
    assert Conv(8, 16, 3, p=0).conv.padding == (0, 0)
    assert Conv(8, 16, (1, 5)).conv.padding == (0, 2)
    assert DWConv(8, 12, 3).conv.groups == 4


@torch.no_grad()
@pytest.mark.parametrize(("c2", "stride", "ratio"), [(16, 1, 6), (24, 2, 6), (24, 1, 6), (16, 1, 1), (24, 2, 1)])
def test_mobilenet_block_is_torchvisions_inverted_residual(c2: int, stride: int, ratio: int) -> None:
    from torchvision.models.mobilenetv2 import InvertedResidual

    theirs = randomised(InvertedResidual(16, c2, stride, ratio))
    ours = randomised(MobileNetV2_Block(16, c2, stride, ratio))  # sets the same eps
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    x = 3 * torch.randn(2, 16, 9, 9)
    torch.testing.assert_close(ours(x), theirs(x))


def test_mobilenet_block_keeps_relu6_whatever_the_default() -> None:
    from models.activations import ReLU6, default_activation

    with default_activation("SiLU"):
        block = MobileNetV2_Block(16, 16, 1, 6)
    assert [type(m.act) for m in block.conv] == [ReLU6, ReLU6, nn.Identity]
    with pytest.raises(UserError, match="stride 1 or 2, not 3"):
        MobileNetV2_Block(16, 16, 3)


@torch.no_grad()
def test_stem_by_hand() -> None:
    block = conv_bn_relu_maxpool(3, 4)
    randomised(block)
    x = torch.randn(1, 3, 16, 16)
    conv, bn = block.conv.conv, block.conv.bn
    y = F.max_pool2d(F.relu(bn(F.conv2d(x, conv.weight, stride=2, padding=1))), 3, 2, 1)  # type: ignore[misc]
    torch.testing.assert_close(block(x), y)
    assert y.shape == (1, 4, 4, 4)


@torch.no_grad()
def test_sppf_is_spp_of_its_windows() -> None:
    fast, plain = SPPF(16, 24, 5).eval(), SPP(16, 24, (5, 9, 13)).eval()
    plain.load_state_dict(fast.state_dict())
    x = torch.randn(2, 16, 20, 17)
    assert torch.equal(fast(x), plain(x))


def test_contract_expand_and_focus_by_index() -> None:
    x = torch.arange(2 * 3 * 4 * 6, dtype=torch.float32).view(2, 3, 4, 6)
    y = Contract(2)(x)
    assert y.shape == (2, 12, 2, 3)
    for row in range(2):
        for column in range(2):
            assert torch.equal(y[:, 3 * (2 * row + column) :][:, :3], x[..., row::2, column::2])
    assert torch.equal(Expand(2)(y), x)

    focus = Focus(3, 12, 1)
    focus.conv = nn.Identity()  # type: ignore[assignment]
    quarters = [x[..., row::2, column::2] for row, column in ((0, 0), (1, 0), (0, 1), (1, 1))]
    assert torch.equal(focus(x), torch.cat(quarters, 1))


@torch.no_grad()
def test_transformer_layer_by_definition() -> None:
    c, heads = 8, 2
    layer = TransformerLayer(c, heads).double().eval()
    x = torch.randn(5, 3, c, dtype=torch.float64)  # (L, B, c)
    weight, bias = layer.ma.in_proj_weight.chunk(3), layer.ma.in_proj_bias.chunk(3)
    q, k, v = (
        (outer(x) @ w.T + b).view(5, 3, heads, c // heads).permute(1, 2, 0, 3)
        for outer, w, b in zip((layer.q, layer.k, layer.v), weight, bias, strict=True)
    )
    attention = (q @ k.transpose(2, 3) / math.sqrt(c // heads)).softmax(-1) @ v  # (B, heads, L, c / heads)
    y = x + layer.ma.out_proj(attention.permute(2, 0, 1, 3).reshape(5, 3, c))
    torch.testing.assert_close(layer(x), y + layer.fc2(layer.fc1(y)))


@torch.no_grad()
def test_transformer_block_keeps_positions() -> None:
    block = TransformerBlock(8, 8, 2, 0).eval()  # no layer: what remains is x + linear(x) at each position
    x = torch.randn(2, 8, 3, 5)
    expected = x + (x.permute(0, 2, 3, 1) @ block.linear.weight.T + block.linear.bias).permute(0, 3, 1, 2)
    torch.testing.assert_close(block(x), expected)


@torch.no_grad()
def test_squeeze_excitation_and_cbam_by_definition() -> None:
    x = torch.randn(2, 6, 5, 4)
    mean, peak = x.mean((2, 3)), x.flatten(2).max(2).values

    se = SEBlock(6, 2)
    down, up = se.down.weight[..., 0, 0], se.up.weight[..., 0, 0]
    weights = torch.sigmoid(F.linear(F.relu(F.linear(mean, down, se.down.bias)), up, se.up.bias))
    torch.testing.assert_close(se(x), x * weights[..., None, None])

    cbam = CBAM(6, 2)
    down, up = cbam.down.weight[..., 0, 0], cbam.up.weight[..., 0, 0]
    y = x * torch.sigmoid(F.relu(mean @ down.T) @ up.T + F.relu(peak @ down.T) @ up.T)[..., None, None]
    spatial = F.conv2d(torch.stack((y.mean(1), y.max(1).values), 1), cbam.spatial.weight, padding=3)
    torch.testing.assert_close(cbam(x), y * torch.sigmoid(spatial))


@torch.no_grad()
def test_squeeze_excitation_is_torchvisions() -> None:
    from torchvision.ops import SqueezeExcitation

    ours, theirs = SEBlock(12, 3), SqueezeExcitation(12, 3)
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    x = 3 * torch.randn(2, 12, 7, 5)
    torch.testing.assert_close(ours(x), theirs(x))


@torch.no_grad()
def test_cbam_element_by_element() -> None:
    """Woo et al. 2018, equations 2 and 3, as loops: M_c = σ(MLP(avg) + MLP(max)), then M_s = σ(f([avg; max]))."""
    c, hidden, size, k = 4, 2, 5, 3
    cbam = CBAM(c, hidden, k).double()
    x = torch.randn(1, c, size, size, dtype=torch.float64)
    down, up, kernel = cbam.down.weight, cbam.up.weight, cbam.spatial.weight[0]

    def logistic(value: float) -> float:
        return 1 / (1 + math.exp(-value))

    def mlp(values: list[float], channel: int) -> float:
        inner = [max(sum(float(down[j, i]) * values[i] for i in range(c)), 0.0) for j in range(hidden)]
        return sum(float(up[channel, j]) * inner[j] for j in range(hidden))

    planes = [x[0, i].flatten().tolist() for i in range(c)]
    means, peaks = [sum(p) / len(p) for p in planes], [max(p) for p in planes]
    weighted = [[v * logistic(mlp(means, i) + mlp(peaks, i)) for v in planes[i]] for i in range(c)]
    columns = list(zip(*weighted, strict=True))  # the channels of each pixel
    maps = [[sum(column) / c for column in columns], [max(column) for column in columns]]
    for row in range(size):
        for column in range(size):
            total = 0.0
            for kind, dy, dx in itertools.product(range(2), range(k), range(k)):
                y, z = row + dy - 1, column + dx - 1
                if 0 <= y < size and 0 <= z < size:
                    total += float(kernel[kind, dy, dx]) * maps[kind][y * size + z]
            expected = [weighted[i][row * size + column] * logistic(total) for i in range(c)]
            torch.testing.assert_close(cbam(x)[0, :, row, column].tolist(), expected)


@torch.no_grad()
@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_separable_by_definition(stride: int) -> None:
    """One plane at a time through its own kernel, then a matrix over the channels of each pixel."""
    block = DWSConv(6, 10, 3, stride, act="ReLU6")
    randomised(block)
    first, second = block.depthwise, block.pointwise
    x = 3 * torch.randn(2, 6, 9, 9)
    planes = [F.conv2d(x[:, i : i + 1], first.conv.weight[i : i + 1], stride=stride, padding=1) for i in range(6)]
    y = first.bn(torch.cat(planes, 1)).clamp(0, 6)  # type: ignore[misc]
    y = torch.einsum("bchw,oc->bohw", y, second.conv.weight[..., 0, 0])
    torch.testing.assert_close(block(x), second.bn(y).clamp(0, 6))  # type: ignore[misc]


def test_depthwise_separable_csp_has_no_dense_window() -> None:
    block = C3DWS(32, 32, 2, False, 5)
    windows = [m for m in block.modules() if isinstance(m, nn.Conv2d) and m.kernel_size != (1, 1)]
    assert [(m.kernel_size, m.groups, m.in_channels) for m in windows] == [((5, 5), 16, 16)] * 2


@torch.no_grad()
@pytest.mark.parametrize("attention", ["use_se", "use_cbam"])
def test_attention_in_repvgg_survives_fusing(attention: str) -> None:
    block = RepVGGBlock(32, 32, **{attention: True})  # type: ignore[arg-type]
    randomised(block)
    attended, x = block.se, torch.randn(2, 32, 6, 6)
    dense, one, identity = block.rbr_dense, block.rbr_1x1, block.rbr_identity
    expected = F.relu(attended(dense(x) + one(x) + identity(x)))  # type: ignore[misc]
    assert not torch.equal(attended(x), x)
    block.fuse()
    assert block.se is attended
    assert (block.rbr_dense, block.rbr_1x1, block.rbr_identity) == (None, None, None)
    torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_repvgg_is_the_sum_of_its_branches() -> None:
    block = RepVGGBlock(16, 16, groups=4)
    randomised(block)
    dense, one, identity = block.rbr_dense, block.rbr_1x1, block.rbr_identity
    assert dense is not None
    assert one is not None
    x = torch.randn(2, 16, 8, 8)
    total = dense.bn(F.conv2d(x, dense.conv.weight, padding=1, groups=4))  # type: ignore[misc]
    total = total + one.bn(F.conv2d(x, one.conv.weight, groups=4)) + identity(x)  # type: ignore[misc]
    torch.testing.assert_close(block(x), F.relu(total))


def test_repvgg_options() -> None:
    assert RepVGGBlock(16, 32).rbr_identity is None
    assert RepVGGBlock(16, 16, stride=2).rbr_identity is None
    assert RepVGGBlock(8, 8, use_se=True).se.down.out_channels == 1  # type: ignore[union-attr]
    assert RepVGGBlock(64, 64, use_cbam=True).se.down.out_channels == 4  # type: ignore[union-attr]
    deployed = RepVGGBlock(16, 16, deploy=True)
    assert set(deployed.state_dict()) == {"rbr_reparam.weight", "rbr_reparam.bias"}
    fused = RepVGGBlock(16, 16)
    fused.fuse()
    deployed.load_state_dict(fused.state_dict())
    with pytest.raises(UserError, match="padding 2"):
        RepVGGBlock(16, 16, dilation=2)
    with pytest.raises(UserError, match="not both"):
        RepVGGBlock(16, 16, use_se=True, use_cbam=True)


@torch.no_grad()
def test_shortcuts_only_where_they_fit() -> None:
    def is_residual(block: nn.Module, x: Tensor) -> bool:
        for p in block.parameters():
            p.zero_()
        return torch.equal(block.eval()(x), x)

    x = torch.randn(1, 8, 6, 6)
    assert is_residual(common.Bottleneck(8, 8), x)
    assert not is_residual(common.Bottleneck(8, 8, shortcut=False), x)
    assert not is_residual(common.Bottleneck(8, 16), x)
    assert is_residual(common.DWSBottleneck(8, 8), x)
    assert not is_residual(common.DWSBottleneck(8, 8, False), x)
    assert not is_residual(common.DWSBottleneck(8, 16), x)
    assert is_residual(CrossConv(8, 8, shortcut=True), x)
    assert not is_residual(CrossConv(8, 8, s=2, shortcut=True), x)
    assert is_residual(MobileNetV2_Block(8, 8, 1, 6), x)
    assert not is_residual(MobileNetV2_Block(8, 8, 2, 6), x)
    assert not is_residual(MobileNetV2_Block(8, 16, 1, 6), x)


@pytest.mark.parametrize(
    ("block", "names"),
    [
        (C3(8, 8, 1), ["cv1.conv", "cv1.bn", "cv2.conv", "cv3.bn", "m.0.cv1.conv", "m.0.cv2.bn"]),
        (BottleneckCSP(8, 8, 1), ["cv1.conv", "cv2", "cv3", "cv4.conv", "bn", "m.0.cv2.conv"]),
        (C3SPP(8, 8), ["cv1.conv", "m.cv1.conv", "m.cv2.conv"]),
        (common.C3TR(8, 8, 1), ["m.linear", "m.tr.0.q", "m.tr.0.ma.out_proj", "m.tr.0.fc2"]),
        (common.C3Ghost(8, 8, 1), ["m.0.conv.0.cv1.conv", "m.0.conv.2.cv2.bn"]),
        (common.GhostBottleneck(8, 8, 3, 2), ["conv.1.conv", "shortcut.0.conv", "shortcut.1.conv"]),
        (GhostConv(8, 8), ["cv1.conv", "cv2.conv"]),
        (Focus(3, 8), ["conv.conv"]),
    ],
)
def test_names_are_those_of_published_checkpoints(block: nn.Module, names: list[str]) -> None:
    keys = block.state_dict().keys()
    for name in names:
        assert f"{name}.weight" in keys


def test_runtime_is_reached_through_common() -> None:
    from models.backends import DetectMultiBackend

    assert common.DetectMultiBackend is DetectMultiBackend
    with pytest.raises(AttributeError, match="NoSuchBlock"):
        common.NoSuchBlock  # noqa: B018
