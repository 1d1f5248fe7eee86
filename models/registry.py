"""The blocks that a YAML row may name, each with a rule for its constructor arguments and output channels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from models import common
from utils.errors import UserError, nearest


@dataclass(frozen=True)
class RowContext:
    """What a rule knows about a row besides its arguments."""

    channels: list[int]  # of each map that the row's `from` names
    number: int  # repeats, with the depth multiple applied
    width: Callable[[int], int]  # channels as the YAML writes them → channels in this network


@dataclass(frozen=True)
class Plan:
    """How a row is built: constructor arguments, output channels, and the number of copies in sequence."""

    args: list[Any]
    channels: int
    copies: int = 1
    chained: bool = False  # True: args[0] is the number of input channels, which is `channels` from the second copy on


Rule = Callable[[list[Any], RowContext], Plan]


def widened(args: list[Any], context: RowContext) -> Plan:
    """``[c2, …]`` becomes ``(c1, c2 scaled, …)``."""
    c1, c2 = _one(context), context.width(_channels(args))
    return Plan([c1, c2, *args[1:]], c2, context.number, chained=True)


def stacked(args: list[Any], context: RowContext) -> Plan:
    """``[c2, …]`` becomes ``(c1, c2 scaled, n, …)``, for a block that repeats its own inner part n times."""
    c1, c2 = _one(context), context.width(_channels(args))
    return Plan([c1, c2, context.number, *args[1:]], c2)


def same(args: list[Any], context: RowContext) -> Plan:
    """The arguments stay as written, and the channels do not change."""
    return Plan(args, _one(context), context.number)


def normalised(args: list[Any], context: RowContext) -> Plan:
    """``[…]`` becomes ``(c1, …)``."""
    c1 = _one(context)
    return Plan([c1, *args], c1, context.number)


def reduced(args: list[Any], context: RowContext) -> Plan:
    """``[reduction, …]`` becomes ``(c1, c1 / reduction, …)``; the reduction is 16 by default, the quotient at least 1.

    The channels do not change.
    """
    c1, reduction = _one(context), args[0] if args else 16
    if isinstance(reduction, bool) or not isinstance(reduction, int) or reduction < 1:
        raise UserError(f"the first argument must be how many times fewer inner channels there are, not {reduction!r}")
    return Plan([c1, max(c1 // reduction, 1), *args[1:]], c1, context.number)


def joined(args: list[Any], context: RowContext) -> Plan:
    """The arguments stay as written, and the channels of all inputs add up."""
    _not_repeated(context)
    return Plan(args, sum(context.channels))


def contracted(args: list[Any], context: RowContext) -> Plan:
    """The arguments, ``[gain]``, stay as written, and there are gain² times as many channels."""
    _not_repeated(context)
    gain = _gain(args)
    return Plan(args, _one(context) * gain**2)


def expanded(args: list[Any], context: RowContext) -> Plan:
    """The arguments, ``[gain]``, stay as written, and the channels are divided by gain²."""
    _not_repeated(context)
    c1, gain = _one(context), _gain(args)
    if c1 % gain**2:
        raise UserError(f"{c1} channels are not divisible by gain² = {gain**2}")
    return Plan(args, c1 // gain**2)


def head(args: list[Any], context: RowContext) -> Plan:
    """``[nc, anchors, …]`` becomes ``(nc, anchors, …, [c1, c1', …])``; a head has no output channels for later rows."""
    _not_repeated(context)
    return Plan([*args, context.channels], 0)


def segment_head(args: list[Any], context: RowContext) -> Plan:
    """``[nc, anchors, nm, npr]`` becomes ``(nc, anchors, nm, npr scaled, [c1, c1', …])``.

    The defaults are 32 prototypes (nm) and 256 channels before them (npr).
    """
    if not 2 <= len(args) <= 4:
        raise UserError("takes [nc, anchors, number of prototypes, number of channels before them]")
    defaults: list[Any] = [32, 256]
    nm, npr = args[2:] + defaults[len(args) - 2 :]
    for what, value in (("prototypes", nm), ("channels before the prototypes", npr)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UserError(f"the number of {what} must be a positive whole number, not {value!r}")
    return head([*args[:2], nm, context.width(npr)], context)


def _one(context: RowContext) -> int:
    if len(context.channels) != 1:
        raise UserError(f"reads one row, not {len(context.channels)}; join them with Concat first")
    return context.channels[0]


def _channels(args: list[Any]) -> int:
    if not args or isinstance(args[0], bool) or not isinstance(args[0], int) or args[0] < 1:
        raise UserError("the first argument must be the number of output channels")
    return args[0]


def _gain(args: list[Any]) -> int:
    gain = args[0] if args else 2
    if isinstance(gain, bool) or not isinstance(gain, int) or gain < 1:
        raise UserError(f"the first argument must be the whole number that sides are scaled by, not {gain!r}")
    return gain


def _not_repeated(context: RowContext) -> None:
    if context.number > 1:
        raise UserError("cannot be repeated; 'number' must be 1")


@dataclass(frozen=True)
class RegisteredBlock:
    """A registered block: its class, and the rule that turns a row's arguments into the constructor's."""

    cls: type[nn.Module]
    rule: Rule


BLOCKS: dict[str, RegisteredBlock] = {
    **{
        cls.__name__: RegisteredBlock(cls, widened)
        for cls in (
            common.Conv, common.DWConv, common.DWSConv, common.DWConvTranspose2d, common.Focus, common.GhostConv,
            common.Bottleneck, common.DWSBottleneck, common.CrossConv, common.GhostBottleneck, common.C3SPP, common.SPP,
            common.SPPF, common.MobileNetV2_Block, common.conv_bn_relu_maxpool, common.RepVGGBlock,
        )
    },
    **{
        cls.__name__: RegisteredBlock(cls, stacked)
        for cls in (common.BottleneckCSP, common.C3, common.C3x, common.C3TR, common.C3DWS, common.C3Ghost)
    },
    "SEBlock": RegisteredBlock(common.SEBlock, reduced),
    "CBAM": RegisteredBlock(common.CBAM, reduced),
    "Concat": RegisteredBlock(common.Concat, joined),
    "Contract": RegisteredBlock(common.Contract, contracted),
    "Expand": RegisteredBlock(common.Expand, expanded),
    "nn.Upsample": RegisteredBlock(nn.Upsample, same),
    "nn.MaxPool2d": RegisteredBlock(nn.MaxPool2d, same),
    "nn.BatchNorm2d": RegisteredBlock(nn.BatchNorm2d, normalised),
    "nn.ConvTranspose2d": RegisteredBlock(nn.ConvTranspose2d, widened),
}  # fmt: skip


PROTOTYPES: dict[str, type[nn.Module]] = {cls.__name__: cls for cls in (common.Proto, common.LightProto)}


def register(name: str, cls: type[nn.Module], rule: Rule = widened) -> None:
    """Make `cls` known to YAML rows as `name`. Raises `UserError` where the name means another class already."""
    known = BLOCKS.get(name)
    if known is not None and known.cls.__qualname__ != cls.__qualname__:  # equal where a notebook cell is run again
        raise UserError(f"block '{name}' is registered already, as {known.cls.__module__}.{known.cls.__qualname__}")
    BLOCKS[name] = RegisteredBlock(cls, rule)


def find_block(name: str) -> RegisteredBlock:
    """The block that a row names. Raises `UserError` with the nearest known name where there is none."""
    if name not in BLOCKS:
        raise UserError(f"unknown module '{name}'{nearest(name, BLOCKS)}; known are {', '.join(sorted(BLOCKS))}")
    return BLOCKS[name]


def find_prototypes(name: str) -> type[nn.Module]:
    """The prototype block that a Segment row names by ``{proto: name}``.

    Its constructor takes ``(c1, hidden channels, prototypes)``.
    """
    if name not in PROTOTYPES:
        known = ", ".join(PROTOTYPES)
        raise UserError(f"unknown prototype block {name!r}{nearest(str(name), PROTOTYPES)}; known are {known}")
    return PROTOTYPES[name]
