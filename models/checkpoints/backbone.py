"""ImageNet weights for a MobileNetV2 backbone: from a file in torchvision's layout into the rows of a YAML that fit.

torchvision's network computes something else from the same numbers: its BatchNorm adds 1e-5 to the variance where ours
adds 1e-3, and it is fed normalised pictures where ours sees RGB in 0 to 1. Both are folded into the weights here, so
that nothing needs to be remembered when the network is saved, loaded or fused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from models.checkpoints.archive import open_archive
from models.checkpoints.yolov5 import state_dict_of
from models.checkpoints.unpickler import PickledObject
from models.checkpoints.decoder import Decoder
from utils.errors import UserError, nearest, one_line
from utils.logging import LOGGER

TORCHVISION_EPS = 1e-5  # of the BatchNorm that the file's statistics were made for

# What a file's network was fed, as (mean, std) of each channel of RGB in 0 to 1; None: RGB in 0 to 1 itself.
INPUT_NORMS: dict[str, tuple[tuple[float, ...], tuple[float, ...]] | None] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "tf": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),  # -1 to 1
    "none": None,
}

_ENTRY = re.compile(r"(?:module\.)*features\.(\d+)\.(.+)\.(\w+)")
_NORM_PARTS = ("weight", "bias", "running_mean", "running_var")
_ACTIVATION = "ReLU6"
_HINT = (
    "ImageNet weights exist in MobileNetV2's own shapes only: take a --cfg of width_multiple 1.0, such as "
    "yolov5_MobileNetv2.yaml, or leave --backbone-weights out"
)


class Layer(NamedTuple):
    """A convolution without bias, weight (c2, c1 / groups, k, k), and the BatchNorm behind it, (c2) each."""

    weight: Tensor
    gamma: Tensor
    beta: Tensor
    mean: Tensor
    var: Tensor

    def with_eps(self, eps: float) -> Layer:
        """The layer that does with `eps` in its BatchNorm what this one does with torchvision's; exact."""
        return self._replace(gamma=self.gamma * ((self.var + eps) / (self.var + TORCHVISION_EPS)).sqrt())

    def with_normalisation(self, mean: Tensor, std: Tensor) -> Layer:
        """The layer that does to x what this one does to ``(x - mean) / std``, (c1) each; exact but where the padding
        reaches in, for that is 0 before the normalisation here and was 0 behind it there."""
        weight = self.weight / std.view(1, -1, 1, 1)
        return self._replace(weight=weight, mean=self.mean + torch.einsum("oikl,i->o", weight, mean))


class Block(NamedTuple):
    """One of torchvision's ``features``: the stem, an inverted residual, or the last convolution."""

    name: str
    layers: list[Layer]


@dataclass
class RowReport:
    """What became of one row of the YAML's backbone, counted in floating-point tensors. `note`: why not all."""

    index: int
    module: str
    total: int
    transferred: int = 0
    blocks: tuple[str, ...] = ()
    note: str = "no convolution with BatchNorm in it"

    @property
    def title(self) -> str:
        return f"{self.index}, {self.module}"

    def take(self, block: Block) -> None:
        """Count `block` in."""
        self.blocks += (block.name,)
        self.transferred += len(Layer._fields) * len(block.layers)
        self.note = ""

    def __str__(self) -> str:
        count = f"{self.transferred}/{self.total}"
        origin = "; ".join(filter(None, (", ".join(self.blocks), self.note)))
        return f"{self.index:>3}  {self.module:<24}{count:>8}  {origin}"


@dataclass
class BackboneReport:
    """What `load_backbone` did. `unused`: blocks of the file that no row wanted; `remarks`: what else to know."""

    source: str
    rows: list[RowReport]
    unused: list[str]
    remarks: list[str]

    @property
    def transferred(self) -> int:
        return sum(row.transferred for row in self.rows)

    @property
    def total(self) -> int:
        return sum(row.total for row in self.rows)

    def __str__(self) -> str:
        unused = f"; of the file unused: {', '.join(self.unused)}" if self.unused else ""
        return "\n".join(
            [
                f"Backbone weights from {self.source}",
                f"{'row':>3}  {'module':<24}{'tensors':>8}  from",
                *map(str, self.rows),
                f"Transferred {self.transferred}/{self.total} tensors of the backbone{unused}",
                *self.remarks,
            ]
        )


def load_backbone(model: nn.Module, path: str | Path, norm: str = "imagenet", trust: bool = False) -> BackboneReport:
    """Put the MobileNetV2 in `path`, a file in torchvision's layout, into the rows of the backbone of `model` that fit.

    Blocks of the file and rows (each copy of a stacked one) are paired in order where all shapes agree; what the
    network is called and how its modules are nested does not matter. norm: what the file's network was fed, a key of
    `INPUT_NORMS`. trust: as for `open_archive`. Logs and returns the report. In evaluation mode the rows then compute
    from RGB in 0 to 1 what torchvision's network computes from the normalised picture, given the same activations.
    Raises `UserError` where the file is no MobileNetV2, or where nothing of it fits.
    """
    if norm not in INPUT_NORMS:
        raise UserError(f"--backbone-norm '{norm}': one of {', '.join(INPUT_NORMS)}{nearest(norm, INPUT_NORMS)}")
    blocks = read_blocks(path, trust)
    if (statistics := INPUT_NORMS[norm]) is not None:
        stem = blocks[0].layers[0]
        mean, std = (torch.tensor(numbers, dtype=torch.float64) for numbers in statistics)
        if stem.weight.shape[1] == len(mean):
            blocks[0].layers[0] = stem.with_normalisation(mean, std)
    report = _fill(model, blocks, str(path))
    report.remarks.append(f"Input normalisation of the file's network, folded into {blocks[0].name}: {norm}")
    LOGGER.info(report)
    return report


# The file -----------------------------------------------------------------------------------------------------------


def read_blocks(path: str | Path, trust: bool = False) -> list[Block]:
    """The ``features`` in a file in torchvision's layout, in order, in double precision; nothing of the file is run.

    The state dict may be the file itself or its ``state_dict`` or ``model``, its names may start with ``module.``.
    """
    source = str(path)
    try:
        tensors = _tensors(path, trust)
    except UserError as error:
        raise UserError(one_line(str(error))) from error
    modules: dict[int, dict[str, dict[str, Tensor]]] = {}  # feature → module within it → tensor's name → tensor
    for name, tensor in tensors.items():
        if (match := _ENTRY.fullmatch(name)) and tensor.is_floating_point():
            feature, module, part = match.groups()
            modules.setdefault(int(feature), {}).setdefault(module, {})[part] = tensor.double()
    if 0 not in modules:
        first = one_line(", ".join(list(tensors)[:3]), limit=200) or "no tensors"
        ours = any(name.startswith("model.0.") for name in tensors)
        raise UserError(
            f"{source} holds no MobileNetV2 in torchvision's layout (features.0.0.weight, …) but {first}"
            + ("; that is a detector's checkpoint: start from it with --weights" if ours else "")
        )
    return [Block(f"features.{i}", _layers(modules[i], f"{source}: features.{i}")) for i in sorted(modules)]


def _tensors(path: str | Path, trust: bool) -> dict[str, Tensor]:
    archive = open_archive(path, trust, mapped=True)
    decoder, tree = Decoder(archive), archive.tree
    for wrapper in ("state_dict", "model"):
        if isinstance(tree, dict) and isinstance(tree.get(wrapper), (dict, PickledObject)):
            tree = tree[wrapper]
    if isinstance(tree, PickledObject):  # a whole network, as `torch.save(model)` writes it
        return state_dict_of(tree, decoder)
    items = tree.items() if isinstance(tree, dict) else ()
    return {name: decoder.decode(item) for name, item in items if isinstance(name, str) and decoder.is_tensor(item)}


def _layers(modules: Mapping[str, Mapping[str, Tensor]], where: str) -> list[Layer]:
    """The layers among the modules of a feature, which are taken in the order of the numbers in their names."""
    names = sorted(modules, key=lambda name: [int(n) if n.isdigit() else -1 for n in name.split(".")])
    layers = []
    for conv, bn in zip(names[::2], names[1::2], strict=False):
        parts = [modules[conv].get("weight"), *(modules[bn].get(part) for part in _NORM_PARTS)]
        tensors = [part for part in parts if part is not None]
        channels = tensors[0].shape[:1]
        alike = len(tensors) == 5 and tensors[0].dim() == 4 and all(t.shape == channels for t in tensors[1:])
        if not alike or "bias" in modules[conv]:
            break
        layers.append(Layer(*tensors))
    if 2 * len(layers) != len(names):
        odd = names[2 * len(layers)]
        raise UserError(f"{where}.{odd} is no convolution with BatchNorm behind it, as all of MobileNetV2's are")
    return layers


# The network --------------------------------------------------------------------------------------------------------


def _fill(model: nn.Module, blocks: Sequence[Block], source: str) -> BackboneReport:
    """Pair the blocks with the backbone's rows, greedily and in order, and copy; see `load_backbone`."""
    rows: list[Any] = list(model.model)  # type: ignore[arg-type]
    count = len(model.yaml["backbone"])  # type: ignore[index]
    reports, remarks = [], [f"Rows {count} to {len(rows) - 1}, the head, stay as they are"]
    used: list[int] = []
    for row in rows[:count]:
        report = RowReport(row.built.row.index, row.built.row.module, _floats(row))
        reports.append(report)
        for copy in row if type(row) is nn.Sequential else [row]:
            if not (pairs := conv_bn_pairs(copy)):
                continue
            following = used[-1] + 1 if used else 0
            found = next((i for i in range(following, len(blocks)) if _fits(blocks[i], pairs)), None)
            if not used and found != 0:  # without the stem the rest would see what it was never trained on
                raise UserError(f"nothing of {source} fits: row {report.title}: {_difference(pairs, blocks)}; {_HINT}")
            if found is None:
                report.note = f"no counterpart: {_difference(pairs, blocks[following:])}"
                continue
            used.append(found)
            _copy(blocks[found], pairs)
            report.take(blocks[found])
        if report.blocks and (others := _other_activations(row)):
            remarks.append(f"Row {report.title} has {others} where the weights were trained with {_ACTIVATION}")
    if not used:
        raise UserError(f"nothing of {source} fits: no row of this backbone is a convolution with BatchNorm; {_HINT}")
    full = next((r.index for r in reports if r.transferred < r.total), count)
    if 0 < full < count:
        remarks.append(
            f"--freeze {full} holds the rows before the first that is not filled; --freeze backbone all {count} of them"
        )
    return BackboneReport(source, reports, [b.name for i, b in enumerate(blocks) if i not in used], remarks)


def _floats(module: nn.Module) -> int:
    return sum(value.is_floating_point() for value in module.state_dict().values())


def conv_bn_pairs(module: nn.Module) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """The convolutions of `module` in order, each with the BatchNorm behind it; empty unless it is made of such pairs
    (activations and whatever else has no convolution aside)."""
    leaves = [m for m in module.modules() if isinstance(m, (nn.Conv2d, nn.BatchNorm2d))]
    pairs = list(zip(leaves[::2], leaves[1::2], strict=False))
    made_of_pairs = len(leaves) % 2 == 0 and all(
        isinstance(conv, nn.Conv2d) and conv.bias is None and isinstance(bn, nn.BatchNorm2d) and bn.affine
        for conv, bn in pairs
    )
    return pairs if made_of_pairs else []  # type: ignore[return-value]


def _fits(block: Block, pairs: Sequence[tuple[nn.Conv2d, nn.BatchNorm2d]]) -> bool:
    return [layer.weight.shape for layer in block.layers] == [conv.weight.shape for conv, _ in pairs]


@torch.no_grad()
def _copy(block: Block, pairs: Sequence[tuple[nn.Conv2d, nn.BatchNorm2d]]) -> None:
    for layer, (conv, bn) in zip(block.layers, pairs, strict=True):
        given = layer.with_eps(bn.eps)
        own = (conv.weight, bn.weight, bn.bias, bn.running_mean, bn.running_var)
        for target, tensor in zip(own, given, strict=True):
            target.copy_(tensor)  # type: ignore[union-attr]


def _difference(pairs: Sequence[tuple[nn.Conv2d, nn.BatchNorm2d]], left: Sequence[Block]) -> str:
    """How `pairs` differ from the next block of the file."""
    if not left:
        return "the file has no more blocks"
    own, block = [conv.weight for conv, _ in pairs], left[0]
    theirs = [layer.weight for layer in block.layers]
    for mine, given in zip(own, theirs, strict=False):
        if mine.shape != given.shape:
            return f"{list(mine.shape)} here, {list(given.shape)} in {block.name}"
    return f"{len(own)} convolutions here, {len(theirs)} in {block.name}"


def _other_activations(row: nn.Module) -> str:
    """The activations in `row` that MobileNetV2 does not have, by name."""
    names = {type(m.act).__name__ for m in row.modules() if hasattr(m, "act")}
    return ", ".join(sorted(names - {_ACTIVATION, nn.Identity.__name__}))
