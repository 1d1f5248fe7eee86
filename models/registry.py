"""What a YAML row may name: each block, and how its arguments and output channels follow from its inputs'."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from models import common
from utils.errors import UserError, nearest


@dataclass(frozen=True)
class Inputs:
    """What a rule knows beside the arguments of its row."""

    channels: list[int]  # of each map named by the row's `from`
    number: int  # repeats, depth multiple applied
    width: Callable[[int], int]  # channels as the YAML writes them → channels of this network


@dataclass(frozen=True)
class Plan:
    """How a row is built: constructor arguments, output channels, and copies one behind another."""

    args: list[Any]
    channels: int
    copies: int = 1
    chained: bool = False  # args[0] is the input channels, which for the second and later copies are `channels`


Rule = Callable[[list[Any], Inputs], Plan]


def widened(args: list[Any], inputs: Inputs) -> Plan:
    """``[c2, …]`` becomes ``(c1, c2 scaled, …)``."""
    c1, c2 = _one(inputs), inputs.width(_channels(args))
    return Plan([c1, c2, *args[1:]], c2, inputs.number, chained=True)


def stacked(args: list[Any], inputs: Inputs) -> Plan:
    """``[c2, …]`` becomes ``(c1, c2 scaled, n, …)``: the block repeats its inside."""
    c1, c2 = _one(inputs), inputs.width(_channels(args))
    return Plan([c1, c2, inputs.number, *args[1:]], c2)


def same(args: list[Any], inputs: Inputs) -> Plan:
    """Arguments as written; channels unchanged."""
    return Plan(args, _one(inputs), inputs.number)


def normalised(args: list[Any], inputs: Inputs) -> Plan:
    """``[…]`` becomes ``(c1, …)``."""
    c1 = _one(inputs)
    return Plan([c1, *args], c1, inputs.number)


def reduced(args: list[Any], inputs: Inputs) -> Plan:
    """``[reduction, …]`` (16 if left out) becomes ``(c1, c1 / reduction, …)``, at least one; channels unchanged."""
    c1, reduction = _one(inputs), args[0] if args else 16
    if isinstance(reduction, bool) or not isinstance(reduction, int) or reduction < 1:
        raise UserError(f"the first argument must be how many times fewer channels the inside has, not {reduction!r}")
    return Plan([c1, max(c1 // reduction, 1), *args[1:]], c1, inputs.number)


def joined(args: list[Any], inputs: Inputs) -> Plan:
    """Arguments as written; channels add up."""
    _not_repeated(inputs)
    return Plan(args, sum(inputs.channels))


def contracted(args: list[Any], inputs: Inputs) -> Plan:
    """``[gain]``: channels times gain²."""
    _not_repeated(inputs)
    gain = _gain(args)
    return Plan(args, _one(inputs) * gain**2)


def expanded(args: list[Any], inputs: Inputs) -> Plan:
    """``[gain]``: channels over gain²."""
    _not_repeated(inputs)
    c1, gain = _one(inputs), _gain(args)
    if c1 % gain**2:
        raise UserError(f"{c1} channels are not divisible by gain² = {gain**2}")
    return Plan(args, c1 // gain**2)


def head(args: list[Any], inputs: Inputs) -> Plan:
    """``[nc, anchors, …]`` becomes ``(nc, anchors, …, [c1, c1', …])``; nothing follows a head."""
    _not_repeated(inputs)
    return Plan([*args, inputs.channels], 0)


def segment_head(args: list[Any], inputs: Inputs) -> Plan:
    """``[nc, anchors, nm, npr]`` becomes ``(nc, anchors, nm, npr scaled, [c1, c1', …])``; 32, 256 where left out."""
    if not 2 <= len(args) <= 4:
        raise UserError("takes [nc, anchors, number of prototypes, number of channels before them]")
    defaults: list[Any] = [32, 256]
    nm, npr = args[2:] + defaults[len(args) - 2 :]
    for what, value in (("prototypes", nm), ("channels before the prototypes", npr)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UserError(f"the number of {what} must be a positive whole number, not {value!r}")
    return head([*args[:2], nm, inputs.width(npr)], inputs)


def _one(inputs: Inputs) -> int:
    if len(inputs.channels) != 1:
        raise UserError(f"reads one row, not {len(inputs.channels)}; join them with Concat first")
    return inputs.channels[0]


def _channels(args: list[Any]) -> int:
    if not args or isinstance(args[0], bool) or not isinstance(args[0], int) or args[0] < 1:
        raise UserError("the first argument must be the number of output channels")
    return args[0]


def _gain(args: list[Any]) -> int:
    gain = args[0] if args else 2
    if isinstance(gain, bool) or not isinstance(gain, int) or gain < 1:
        raise UserError(f"the first argument must be how many times smaller the map gets, not {gain!r}")
    return gain


def _not_repeated(inputs: Inputs) -> None:
    if inputs.number > 1:
        raise UserError("cannot be repeated; 'number' must be 1")


@dataclass(frozen=True)
class Block:
    """A registered block: its class, and the rule that turns a row's arguments into the constructor's."""

    cls: type[nn.Module]
    rule: Rule


BLOCKS: dict[str, Block] = {
    **{
        cls.__name__: Block(cls, widened)
        for cls in (
            common.Conv, common.DWConv, common.DWSConv, common.DWConvTranspose2d, common.Focus, common.GhostConv,
            common.Bottleneck, common.DWSBottleneck, common.CrossConv, common.GhostBottleneck, common.C3SPP, common.SPP,
            common.SPPF, common.MobileNetV2_Block, common.conv_bn_relu_maxpool, common.RepVGGBlock,
        )
    },
    **{
        cls.__name__: Block(cls, stacked)
        for cls in (common.BottleneckCSP, common.C3, common.C3x, common.C3TR, common.C3DWS, common.C3Ghost)
    },
    "SEBlock": Block(common.SEBlock, reduced),
    "CBAM": Block(common.CBAM, reduced),
    "Concat": Block(common.Concat, joined),
    "Contract": Block(common.Contract, contracted),
    "Expand": Block(common.Expand, expanded),
    "nn.Upsample": Block(nn.Upsample, same),
    "nn.MaxPool2d": Block(nn.MaxPool2d, same),
    "nn.BatchNorm2d": Block(nn.BatchNorm2d, normalised),
    "nn.ConvTranspose2d": Block(nn.ConvTranspose2d, widened),
}  # fmt: skip


PROTOTYPES: dict[str, type[nn.Module]] = {cls.__name__: cls for cls in (common.Proto, common.LightProto)}


def register(name: str, cls: type[nn.Module], rule: Rule = widened) -> None:
    """Make `cls` known to YAML rows as `name`; a name that means another class already is a `UserError`."""
    known = BLOCKS.get(name)
    if known is not None and known.cls.__qualname__ != cls.__qualname__:
        raise UserError(f"block '{name}' is registered already, as {known.cls.__module__}.{known.cls.__qualname__}")
    BLOCKS[name] = Block(cls, rule)


def find_block(name: str) -> Block:
    """The block that a row names; an unknown name is a `UserError` with the nearest known one."""
    if name not in BLOCKS:
        raise UserError(f"unknown module '{name}'{nearest(name, BLOCKS)}; known are {', '.join(sorted(BLOCKS))}")
    return BLOCKS[name]


def find_prototypes(name: str) -> type[nn.Module]:
    """The block of ``(c1, channels between, prototypes)`` that a Segment row means by ``{proto: name}``."""
    if name not in PROTOTYPES:
        known = ", ".join(PROTOTYPES)
        raise UserError(f"unknown prototype block {name!r}{nearest(str(name), PROTOTYPES)}; known are {known}")
    return PROTOTYPES[name]
