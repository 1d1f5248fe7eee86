"""The building blocks that a row of a network's YAML can name.

All of them map (B, c1, H, W) to (B, c2, H', W'). The names of classes and parameters are an API: YAML rows, and pickles
and state dicts of published checkpoints, contain them. A block that can be simplified for inference has a method
``fuse()``, which works in place and changes nothing the second time; `models.yolo.BaseModel.fuse` calls all of them.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from models.activations import make_activation
from utils.errors import UserError
from utils.ops.fusion import Kernel, affine_of, centred, fold, fuse_conv_and_bn, identity_kernel, with_kernel
from utils.training.recomputation import recomputed

Activation = bool | str | nn.Module | None  # see models.activations.make_activation
Pair = int | tuple[int, int]


def autopad(kernel: Pair, padding: Pair | None = None, dilation: int = 1) -> Pair:
    """The given padding, or else the one with which an odd kernel keeps the size at stride 1."""
    if padding is not None:
        return padding
    if isinstance(kernel, int):
        return dilation * (kernel - 1) // 2
    return dilation * (kernel[0] - 1) // 2, dilation * (kernel[1] - 1) // 2


# Convolutions --------------------------------------------------------------------------------------------------------


class Conv(nn.Module):
    """Convolution, batch norm and activation. `fuse` turns the first two into one convolution."""

    bn: nn.BatchNorm2d | None

    def __init__(
        self,
        c1: int,
        c2: int,
        k: Pair = 1,
        s: Pair = 1,
        p: Pair | None = None,
        g: int = 1,
        d: int = 1,
        act: Activation = True,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c1, c2, k, s, autopad(k, p, d), groups=g, dilation=d, bias=False)
        self.bn = nn.BatchNorm2d(c2)
        self.act = make_activation(act)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.bn is not None:
            x = self.bn(x)
        return self.act(x)

    def fuse(self) -> None:
        if self.bn is not None:
            self.conv, self.bn = fuse_conv_and_bn(self.conv, self.bn), None


class DWConv(Conv):
    """A `Conv` with as many groups as c1 and c2 allow: depthwise where they are equal."""

    def __init__(self, c1: int, c2: int, k: Pair = 1, s: Pair = 1, d: int = 1, act: Activation = True) -> None:
        super().__init__(c1, c2, k, s, g=math.gcd(c1, c2), d=d, act=act)


class DWSConv(nn.Module):
    """A depthwise-separable convolution (Howard et al. 2017, MobileNet): k×k depthwise with stride `s`, then 1×1.

    It needs k² + c2 multiplications per pixel and input channel, and a `Conv` k² · c2. Both parts have batch norm and
    activation.
    """

    def __init__(self, c1: int, c2: int, k: int = 3, s: int = 1, act: Activation = True) -> None:
        super().__init__()
        self.depthwise = Conv(c1, c1, k, s, g=c1, act=act)
        self.pointwise = Conv(c1, c2, 1, 1, act=act)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(x))


class DWConvTranspose2d(nn.ConvTranspose2d):
    """A transposed convolution with as many groups as c1 and c2 allow; `p1` pads the input, `p2` the output."""

    def __init__(self, c1: int, c2: int, k: int = 1, s: int = 1, p1: int = 0, p2: int = 0) -> None:
        super().__init__(c1, c2, k, s, p1, p2, groups=math.gcd(c1, c2))


class Focus(nn.Module):
    """Stacks the four pixels of each 2×2 square as channels and applies a `Conv`: (H, W) to (H/2, W/2)."""

    def __init__(
        self,
        c1: int,
        c2: int,
        k: Pair = 1,
        s: Pair = 1,
        p: Pair | None = None,
        g: int = 1,
        act: Activation = True,
    ) -> None:
        super().__init__()
        self.conv = Conv(4 * c1, c2, k, s, p, g, act=act)

    def forward(self, x: Tensor) -> Tensor:
        even, odd = x[..., ::2], x[..., 1::2]
        return self.conv(
            torch.cat((even[..., ::2, :], even[..., 1::2, :], odd[..., ::2, :], odd[..., 1::2, :]), 1)
        )  # fmt: skip


class GhostConv(nn.Module):
    """A convolution makes half of the channels, and from these a 5×5 depthwise one the others (Han et al. 2020)."""

    def __init__(self, c1: int, c2: int, k: Pair = 1, s: Pair = 1, g: int = 1, act: Activation = True) -> None:
        super().__init__()
        half = c2 // 2
        self.cv1 = Conv(c1, half, k, s, g=g, act=act)
        self.cv2 = Conv(half, half, 5, g=half, act=act)

    def forward(self, x: Tensor) -> Tensor:
        x = self.cv1(x)
        return torch.cat((x, self.cv2(x)), 1)


# Residual units ------------------------------------------------------------------------------------------------------


class Bottleneck(nn.Module):
    """A 1×1 convolution to ``e * c2`` channels and a 3×3 one to c2; the input is added where c1 equals c2."""

    def __init__(self, c1: int, c2: int, shortcut: bool = True, g: int = 1, e: float = 0.5) -> None:
        super().__init__()
        hidden = int(c2 * e)
        self.cv1 = Conv(c1, hidden, 1, 1)
        self.cv2 = Conv(hidden, c2, 3, 1, g=g)
        self.add = shortcut and c1 == c2

    def forward(self, x: Tensor) -> Tensor:
        y = self.cv2(self.cv1(x))
        return x + y if self.add else y


class DWSBottleneck(nn.Module):
    """A `Bottleneck` whose second convolution is a `DWSConv` with kernel size `k`."""

    def __init__(self, c1: int, c2: int, shortcut: bool = True, k: int = 3, e: float = 0.5) -> None:
        super().__init__()
        hidden = int(c2 * e)
        self.cv1 = Conv(c1, hidden, 1, 1)
        self.cv2 = DWSConv(hidden, c2, k)
        self.add = shortcut and c1 == c2

    def forward(self, x: Tensor) -> Tensor:
        y = self.cv2(self.cv1(x))
        return x + y if self.add else y


class CrossConv(nn.Module):
    """A 1×k and a k×1 convolution in place of a k×k one; with `shortcut` the input is added where shapes are equal."""

    def __init__(
        self, c1: int, c2: int, k: int = 3, s: int = 1, g: int = 1, e: float = 1.0, shortcut: bool = False
    ) -> None:
        super().__init__()
        hidden = int(c2 * e)
        self.cv1 = Conv(c1, hidden, (1, k), (1, s))
        self.cv2 = Conv(hidden, c2, (k, 1), (s, 1), g=g)
        self.add = shortcut and c1 == c2 and s == 1

    def forward(self, x: Tensor) -> Tensor:
        y = self.cv2(self.cv1(x))
        return x + y if self.add else y


class GhostBottleneck(nn.Module):
    """Two `GhostConv` with a depthwise convolution between them at stride 2 (Han et al. 2020, figure 3)."""

    def __init__(self, c1: int, c2: int, k: int = 3, s: int = 1) -> None:
        super().__init__()
        half = c2 // 2
        self.conv = nn.Sequential(
            GhostConv(c1, half, 1, 1),
            DWConv(half, half, k, s, act=False) if s == 2 else nn.Identity(),
            GhostConv(half, c2, 1, 1, act=False),
        )
        self.shortcut = (
            nn.Sequential(DWConv(c1, c1, k, s, act=False), Conv(c1, c2, 1, 1, act=False)) if s == 2 else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) + self.shortcut(x)


class TransformerLayer(nn.Module):
    """Multi-head attention and two linear layers, each with its input added, without layer norm, on (L, B, c)."""

    def __init__(self, c: int, num_heads: int) -> None:
        super().__init__()
        self.q = nn.Linear(c, c, bias=False)
        self.k = nn.Linear(c, c, bias=False)
        self.v = nn.Linear(c, c, bias=False)
        self.ma = nn.MultiheadAttention(embed_dim=c, num_heads=num_heads)
        self.fc1 = nn.Linear(c, c, bias=False)
        self.fc2 = nn.Linear(c, c, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ma(self.q(x), self.k(x), self.v(x), need_weights=False)[0]
        return x + self.fc2(self.fc1(x))


class TransformerBlock(nn.Module):
    """`TransformerLayer` over all positions of a map; a linear layer of the features is the positional embedding."""

    def __init__(self, c1: int, c2: int, num_heads: int, num_layers: int) -> None:
        super().__init__()
        self.conv = Conv(c1, c2) if c1 != c2 else None
        self.linear = nn.Linear(c2, c2)
        self.tr = nn.Sequential(*(TransformerLayer(c2, num_heads) for _ in range(num_layers)))

    def forward(self, x: Tensor) -> Tensor:
        if self.conv is not None:
            x = self.conv(x)
        sequence = x.flatten(2).permute(2, 0, 1)  # (H * W, B, c2)
        return self.tr(sequence + self.linear(sequence)).permute(1, 2, 0).reshape(x.shape)


# Cross-stage partial blocks ------------------------------------------------------------------------------------------


class BottleneckCSP(nn.Module):
    """A cross-stage partial block as published (Wang et al. 2019): two linear branches, normalised together."""

    bn: nn.BatchNorm2d | None

    def __init__(self, c1: int, c2: int, n: int = 1, shortcut: bool = True, g: int = 1, e: float = 0.5) -> None:
        super().__init__()
        hidden = int(c2 * e)
        self.cv1 = Conv(c1, hidden, 1, 1)
        self.cv2 = nn.Conv2d(c1, hidden, 1, 1, bias=False)
        self.cv3 = nn.Conv2d(hidden, hidden, 1, 1, bias=False)
        self.cv4 = Conv(2 * hidden, c2, 1, 1)
        self.bn = nn.BatchNorm2d(2 * hidden)
        self.act = nn.SiLU()
        self.m = nn.Sequential(*(Bottleneck(hidden, hidden, shortcut, g, e=1.0) for _ in range(n)))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.cat((self.cv3(self.m(self.cv1(x))), self.cv2(x)), 1)
        if self.bn is not None:
            y = self.bn(y)
        return self.cv4(self.act(y))

    def fuse(self) -> None:
        """Fold each half of the batch norm, which treats channels separately, into the convolution before it."""
        if self.bn is None:
            return
        scales, shifts = (t.chunk(2) for t in affine_of(self.bn))
        folded = [
            with_kernel(conv, Kernel(conv.weight.float() * scale.view(-1, 1, 1, 1), shift))
            for conv, scale, shift in zip((self.cv3, self.cv2), scales, shifts, strict=True)
        ]
        (self.cv3, self.cv2), self.bn = folded, None


class C3(nn.Module):
    """A cross-stage partial block with three convolutions, where one of two branches goes through `n` bottlenecks."""

    def __init__(self, c1: int, c2: int, n: int = 1, shortcut: bool = True, g: int = 1, e: float = 0.5) -> None:
        super().__init__()
        hidden = int(c2 * e)
        self.cv1 = Conv(c1, hidden, 1, 1)
        self.cv2 = Conv(c1, hidden, 1, 1)
        self.cv3 = Conv(2 * hidden, c2, 1)
        self.m = self.inner(hidden, n, shortcut, g)

    def inner(self, c: int, n: int, shortcut: bool, g: int) -> nn.Module:
        """The inner part of the first branch, (B, c, H, W) to the same shape."""
        return nn.Sequential(*(Bottleneck(c, c, shortcut, g, e=1.0) for _ in range(n)))

    def forward(self, x: Tensor) -> Tensor:
        return self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), 1))


class C3x(C3):
    """`C3` with `CrossConv` inside."""

    def inner(self, c: int, n: int, shortcut: bool, g: int) -> nn.Module:
        return nn.Sequential(*(CrossConv(c, c, 3, 1, g, 1.0, shortcut) for _ in range(n)))


class C3TR(C3):
    """`C3` with a `TransformerBlock` of `n` layers and four heads inside."""

    def inner(self, c: int, n: int, shortcut: bool, g: int) -> nn.Module:
        return TransformerBlock(c, c, 4, n)


class C3DWS(C3):
    """`C3` with `DWSBottleneck` inside, so that every k×k convolution is depthwise."""

    def __init__(self, c1: int, c2: int, n: int = 1, shortcut: bool = True, k: int = 3, e: float = 0.5) -> None:
        super().__init__(c1, c2, 0, shortcut, e=e)
        hidden = int(c2 * e)
        self.m = nn.Sequential(*(DWSBottleneck(hidden, hidden, shortcut, k, e=1.0) for _ in range(n)))


class C3Ghost(C3):
    """`C3` with `GhostBottleneck` inside."""

    def inner(self, c: int, n: int, shortcut: bool, g: int) -> nn.Module:
        return nn.Sequential(*(GhostBottleneck(c, c) for _ in range(n)))


class C3SPP(C3):
    """`C3` with an `SPP` inside that has the pooling windows `k`."""

    def __init__(
        self,
        c1: int,
        c2: int,
        k: Sequence[int] = (5, 9, 13),
        n: int = 1,
        shortcut: bool = True,
        g: int = 1,
        e: float = 0.5,
    ) -> None:
        super().__init__(c1, c2, 0, shortcut, g, e)
        hidden = int(c2 * e)
        self.m = SPP(hidden, hidden, k)


# Pooling pyramids ----------------------------------------------------------------------------------------------------


class SPP(nn.Module):
    """Max pooling with several windows in parallel (He et al. 2014), between two 1×1 convolutions."""

    def __init__(self, c1: int, c2: int, k: Sequence[int] = (5, 9, 13)) -> None:
        super().__init__()
        hidden = c1 // 2
        self.cv1 = Conv(c1, hidden, 1, 1)
        self.cv2 = Conv(hidden * (len(k) + 1), c2, 1, 1)
        self.m = nn.ModuleList(nn.MaxPool2d(size, 1, size // 2) for size in k)

    def forward(self, x: Tensor) -> Tensor:
        x = self.cv1(x)
        return self.cv2(torch.cat([x, *(pool(x) for pool in self.m)], 1))


class SPPF(nn.Module):
    """`SPP` with windows k, 2k - 1 and 3k - 2, computed faster by three pools with window k in sequence."""

    def __init__(self, c1: int, c2: int, k: int = 5) -> None:
        super().__init__()
        hidden = c1 // 2
        self.cv1 = Conv(c1, hidden, 1, 1)
        self.cv2 = Conv(4 * hidden, c2, 1, 1)
        self.m = nn.MaxPool2d(k, 1, k // 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.cv1(x)
        y = self.m(x)
        z = self.m(y)
        return self.cv2(torch.cat((x, y, z, self.m(z)), 1))


# Rearrangement -------------------------------------------------------------------------------------------------------


class Contract(nn.Module):
    """Moves squares of gain × gain pixels into channels: (B, c, H, W) to (B, c * gain², H / gain, W / gain)."""

    def __init__(self, gain: int = 2) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        g = self.gain
        x = x.view(b, c, h // g, g, w // g, g).permute(0, 3, 5, 1, 2, 4)  # (B, g, g, c, H / g, W / g)
        return x.reshape(b, c * g * g, h // g, w // g)


class Expand(nn.Module):
    """Moves channels into squares of gain × gain pixels: (B, c, H, W) to (B, c / gain², H * gain, W * gain)."""

    def __init__(self, gain: int = 2) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        g = self.gain
        x = x.view(b, g, g, c // g**2, h, w).permute(0, 3, 4, 1, 5, 2)  # (B, c / g², H, g, W, g)
        return x.reshape(b, c // g**2, h * g, w * g)


class Concat(nn.Module):
    """Joins a list of maps along `dimension`."""

    def __init__(self, dimension: int = 1) -> None:
        super().__init__()
        self.d = dimension

    def forward(self, x: list[Tensor]) -> Tensor:
        return torch.cat(x, self.d)


# MobileNetV2 ---------------------------------------------------------------------------------------------------------


class MobileNetV2_Block(nn.Module):
    """The inverted residual with a linear bottleneck (Sandler et al. 2018, table 1).

    A 1×1 expansion to ``expand_ratio * c1`` channels (absent at ratio 1), a 3×3 depthwise convolution with `stride`,
    and a 1×1 projection. ReLU6 follows the first two, whatever the network's activation. The input is added where the
    stride is 1 and c1 equals c2. Where `recompute` is set (`utils.training.recomputation`), training keeps only the
    input, and computes the tensors inside the block, most of a network's memory, again in the backward pass.
    """

    def __init__(self, c1: int, c2: int, stride: int = 1, expand_ratio: float = 1) -> None:
        super().__init__()
        if stride not in (1, 2):
            raise UserError(f"MobileNetV2_Block takes stride 1 or 2, not {stride!r}")
        hidden = round(c1 * expand_ratio)
        layers = [Conv(c1, hidden, 1, act="ReLU6")] if expand_ratio != 1 else []
        layers += [Conv(hidden, hidden, 3, stride, g=hidden, act="ReLU6"), Conv(hidden, c2, 1, act=False)]
        self.conv = nn.Sequential(*layers)
        self.add = stride == 1 and c1 == c2
        self.recompute = False

    def forward(self, x: Tensor) -> Tensor:
        y = recomputed(self.conv, x) if self.recompute and self.training and torch.is_grad_enabled() else self.conv(x)
        return x + y if self.add else y


class conv_bn_relu_maxpool(nn.Module):
    """A stem: a 3×3 convolution with stride 2 and ReLU, then 3×3 max pooling with stride 2; (H, W) to (H/4, W/4)."""

    def __init__(self, c1: int, c2: int) -> None:
        super().__init__()
        self.conv = Conv(c1, c2, 3, 2, act="ReLU")
        self.maxpool = nn.MaxPool2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.maxpool(self.conv(x))


# Mask prototypes -----------------------------------------------------------------------------------------------------


class Proto(nn.Module):
    """Mask prototypes (Bolya et al. 2019, section 3.1): (B, c1, H, W) to (B, c2, 2H, 2W), with `c_` hidden channels.

    A mask is a sum of the prototypes, weighted by the coefficients of its object. `refining` is most of the cost.
    """

    def __init__(self, c1: int, c_: int = 256, c2: int = 32) -> None:
        super().__init__()
        self.cv1 = self.reading(c1, c_)
        self.upsample = nn.Upsample(scale_factor=2, mode="nearest")
        self.cv2 = self.refining(c_)
        self.cv3 = Conv(c_, c2)

    def reading(self, c1: int, c_: int) -> nn.Module:
        """The layers before the size is doubled, (B, c1, H, W) to (B, c_, H, W)."""
        return Conv(c1, c_, 3)

    def refining(self, c_: int) -> nn.Module:
        """The layers after the size is doubled, (B, c_, 2H, 2W) to the same shape."""
        return Conv(c_, c_, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.cv3(self.cv2(self.upsample(self.cv1(x))))


class LightProto(Proto):
    """`Proto` with depthwise 3×3 convolutions, which mixes channels at H × W, a quarter of the pixels.

    Only a depthwise convolution and the projection to prototypes run at 2H × 2W. There the four copies of a pixel have
    different neighbours and get different values, so that edges have the doubled resolution.
    """

    def reading(self, c1: int, c_: int) -> nn.Module:
        return nn.Sequential(Conv(c1, c_), DWSConv(c_, c_))

    def refining(self, c_: int) -> nn.Module:
        return DWConv(c_, c_, 3)


# RepVGG --------------------------------------------------------------------------------------------------------------


class SEBlock(nn.Module):
    """Squeeze and excitation: weights each channel by a function of the means of all channels (Hu et al. 2018)."""

    def __init__(self, input_channels: int, internal_neurons: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(input_channels, internal_neurons, 1)
        self.up = nn.Conv2d(internal_neurons, input_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.up(self.down(x.mean((2, 3), keepdim=True)).relu()).sigmoid()


class CBAM(nn.Module):
    """Channel attention from means and maxima, and then spatial attention by a 7×7 convolution (Woo et al. 2018)."""

    def __init__(self, input_channels: int, internal_neurons: int, kernel_size: int = 7) -> None:
        super().__init__()
        self.down = nn.Conv2d(input_channels, internal_neurons, 1, bias=False)
        self.up = nn.Conv2d(internal_neurons, input_channels, 1, bias=False)
        self.spatial = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        mean, peak = x.mean((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
        x = x * (self.up(self.down(mean).relu()) + self.up(self.down(peak).relu())).sigmoid()
        return x * self.spatial(torch.cat((x.mean(1, keepdim=True), x.amax(1, keepdim=True)), 1)).sigmoid()


class RepVGGBlock(nn.Module):
    """Parallel k×k, 1×1 and identity branches, each with batch norm, that become one convolution (Ding et al. 2021).

    The identity branch exists where the stride is 1 and the channels are equal. The sum of the branches goes through
    `SEBlock` with `use_se` or `CBAM` with `use_cbam` (``out_channels // 16`` inner neurons, at least one), and through
    ReLU. With `deploy` the block is built with the single convolution that `fuse` makes of the branches.
    """

    rbr_identity: nn.BatchNorm2d | None
    rbr_dense: Conv | None
    rbr_1x1: Conv | None
    rbr_reparam: nn.Conv2d | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        use_se: bool = False,
        use_cbam: bool = False,
        padding: int = 1,
        dilation: int = 1,
        groups: int = 1,
        padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros",
        deploy: bool = False,
    ) -> None:
        super().__init__()
        if kernel_size % 2 == 0 or padding != dilation * (kernel_size // 2):
            raise UserError(
                f"RepVGGBlock: kernel {kernel_size}, dilation {dilation}, padding {padding} do not keep the branches "
                f"aligned; take an odd kernel and padding {dilation * (kernel_size // 2)}"
            )
        if use_se and use_cbam:
            raise UserError("RepVGGBlock takes use_se or use_cbam, not both")
        attention = SEBlock if use_se else CBAM if use_cbam else None
        self.se = attention(out_channels, max(out_channels // 16, 1)) if attention else nn.Identity()
        self.nonlinearity = nn.ReLU()
        self.rbr_identity = self.rbr_dense = self.rbr_1x1 = self.rbr_reparam = None

        def convolution(bias: bool) -> nn.Conv2d:
            return nn.Conv2d(
                in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode
            )  # fmt: skip

        if deploy:
            self.rbr_reparam = convolution(bias=True)
            return
        self.rbr_dense = Conv(in_channels, out_channels, kernel_size, stride, act=False)
        self.rbr_dense.conv = convolution(bias=False)
        self.rbr_1x1 = Conv(in_channels, out_channels, 1, stride, g=groups, act=False)
        if stride == 1 and in_channels == out_channels:
            self.rbr_identity = nn.BatchNorm2d(in_channels)

    def forward(self, x: Tensor) -> Tensor:
        if self.rbr_reparam is not None:
            y = self.rbr_reparam(x)
        else:
            assert self.rbr_dense is not None
            assert self.rbr_1x1 is not None
            y = self.rbr_dense(x) + self.rbr_1x1(x)
            if self.rbr_identity is not None:
                y = y + self.rbr_identity(x)
        return self.nonlinearity(self.se(y))

    def fuse(self) -> None:
        if self.rbr_reparam is not None:
            return
        assert self.rbr_dense is not None
        assert self.rbr_1x1 is not None
        conv = self.rbr_dense.conv
        size = conv.kernel_size[0]
        kernel = fold(conv, self.rbr_dense.bn) + centred(fold(self.rbr_1x1.conv, self.rbr_1x1.bn), size)
        if self.rbr_identity is not None:
            scale, shift = affine_of(self.rbr_identity)
            one = identity_kernel(conv.out_channels, conv.groups, like=conv.weight)
            kernel = kernel + centred(Kernel(one * scale.view(-1, 1, 1, 1), shift), size)
        self.rbr_reparam = with_kernel(conv, kernel)
        self.rbr_dense = self.rbr_1x1 = self.rbr_identity = None


# Names that users' scripts import from here. Their modules import this one, so they are imported only on first use.
_ELSEWHERE = {"DetectMultiBackend": "models.backends", "AutoShape": "models.hub", "Detections": "models.hub"}


def __getattr__(name: str) -> Any:
    if name in _ELSEWHERE:
        return getattr(importlib.import_module(_ELSEWHERE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
