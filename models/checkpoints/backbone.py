"""ImageNet weights for a MobileNetV2 backbone: from a file in torchvision's layout into the rows of a YAML that fit.

torchvision's network computes different outputs from the same weights: its BatchNorm adds 1e-5 to the variance and ours
adds 1e-3, and its input is a normalised image where ours is RGB in 0 to 1. Both are folded into the weights here,
so that saving, loading and fusing the network need not know of them.
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
from models.checkpoints.decoder import Decoder
from models.checkpoints.unpickler import PickledObject
from models.checkpoints.yolov5 import state_dict_of
from utils.errors import UserError, nearest, one_line
from utils.logging import LOGGER

TORCHVISION_EPS = 1e-5  # added to the variance by the BatchNorm of the file's network

# How the input of a file's network was normalised: (mean, std) of each channel of RGB in 0 to 1; None: not at all.
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


class ConvBN(NamedTuple):
    """A convolution without bias, weight (c2, c1 / groups, k, k), and the BatchNorm that follows it, (c2) each."""

    weight: Tensor
    gamma: Tensor
    beta: Tensor
    mean: Tensor
    var: Tensor

    def with_eps(self, eps: float) -> ConvBN:
        """The layer that computes with `eps` in its BatchNorm exactly what this one computes with `TORCHVISION_EPS`."""
        return self._replace(gamma=self.gamma * ((self.var + eps) / (self.var + TORCHVISION_EPS)).sqrt())

    def with_normalisation(self, mean: Tensor, std: Tensor) -> ConvBN:
        """The layer that computes from x what this one computes from ``(x - mean) / std``, (c1) each. This is exact,
        except where the padding takes part: it is 0 before the normalisation here, but after it in torchvision."""
        weight = self.weight / std.view(1, -1, 1, 1)
        return self._replace(weight=weight, mean=self.mean + torch.einsum("oikl,i->o", weight, mean))


class Feature(NamedTuple):
    """One of torchvision's ``features``: the stem, an inverted residual, or the last convolution."""

    name: str
    layers: list[ConvBN]


@dataclass
class RowReport:
    """How many floating-point tensors of one row of the YAML's backbone were filled. `note`: why not all of them."""

    index: int
    module: str
    total: int
    transferred: int = 0
    features: tuple[str, ...] = ()
    note: str = "no convolution with BatchNorm in it"

    @property
    def title(self) -> str:
        return f"{self.index}, {self.module}"

    def take(self, feature: Feature) -> None:
        """Count the tensors of `feature` as transferred."""
        self.features += (feature.name,)
        self.transferred += len(ConvBN._fields) * len(feature.layers)
        self.note = ""

    def __str__(self) -> str:
        count = f"{self.transferred}/{self.total}"
        origin = "; ".join(filter(None, (", ".join(self.features), self.note)))
        return f"{self.index:>3}  {self.module:<24}{count:>8}  {origin}"


@dataclass
class BackboneReport:
    """What `load_backbone` did. `unused`: features in the file that fitted no row; `remarks`: further lines."""

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

    Features of the file and rows (each copy of a stacked one) are paired in order where all shapes agree; what the
    network is called and how its modules are nested does not matter. norm: how its input was normalised, a key of
    `INPUT_NORMS`. trust: as for `open_archive`. Logs and returns the report. In evaluation mode the rows then compute
    from RGB in 0 to 1 what torchvision's network computes from the normalised image, given the same activations.
    Raises `UserError` if the file is not a MobileNetV2, or if nothing in it fits.
    """
    if norm not in INPUT_NORMS:
        raise UserError(f"--backbone-norm '{norm}': one of {', '.join(INPUT_NORMS)}{nearest(norm, INPUT_NORMS)}")
    features = read_features(path, trust)
    if (statistics := INPUT_NORMS[norm]) is not None:
        stem = features[0].layers[0]
        mean, std = (torch.tensor(numbers, dtype=torch.float64) for numbers in statistics)
        if stem.weight.shape[1] == len(mean):
            features[0].layers[0] = stem.with_normalisation(mean, std)
    report = _fill(model, features, str(path))
    report.remarks.append(f"Input normalisation of the file's network, folded into {features[0].name}: {norm}")
    LOGGER.info(report)
    return report


# The file -----------------------------------------------------------------------------------------------------------


def read_features(path: str | Path, trust: bool = False) -> list[Feature]:
    """The ``features`` in a file in torchvision's layout, in order, in double precision; no code in the file is run.

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
            index, module, part = match.groups()
            modules.setdefault(int(index), {}).setdefault(module, {})[part] = tensor.double()
    if 0 not in modules:
        first = one_line(", ".join(list(tensors)[:3]), limit=200) or "no tensors"
        ours = any(name.startswith("model.0.") for name in tensors)
        raise UserError(
            f"{source} holds no MobileNetV2 in torchvision's layout (features.0.0.weight, …) but {first}"
            + ("; that is a detector's checkpoint: start from it with --weights" if ours else "")
        )
    return [Feature(f"features.{i}", _layers(modules[i], f"{source}: features.{i}")) for i in sorted(modules)]


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


def _layers(modules: Mapping[str, Mapping[str, Tensor]], where: str) -> list[ConvBN]:
    """The layers in the modules of a feature, in the order of the numbers in their names."""
    names = sorted(modules, key=lambda name: [int(n) if n.isdigit() else -1 for n in name.split(".")])
    layers = []
    for conv, bn in zip(names[::2], names[1::2], strict=False):
        parts = [modules[conv].get("weight"), *(modules[bn].get(part) for part in _NORM_PARTS)]
        tensors = [part for part in parts if part is not None]
        channels = tensors[0].shape[:1]
        alike = len(tensors) == 5 and tensors[0].dim() == 4 and all(t.shape == channels for t in tensors[1:])
        if not alike or "bias" in modules[conv]:
            break
        layers.append(ConvBN(*tensors))
    if 2 * len(layers) != len(names):
        odd = names[2 * len(layers)]
        raise UserError(f"{where}.{odd} is not a convolution followed by a BatchNorm, as all of MobileNetV2's are")
    return layers


# The network --------------------------------------------------------------------------------------------------------


def _fill(model: nn.Module, features: Sequence[Feature], source: str) -> BackboneReport:
    """Pair the features with the backbone's rows, greedily and in order, and copy; see `load_backbone`."""
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
            found = next((i for i in range(following, len(features)) if _fits(features[i], pairs)), None)
            if not used and found != 0:  # without its stem the network would see inputs that it was not trained on
                difference = _difference(pairs, features)
                raise UserError(f"nothing of {source} fits: row {report.title}: {difference}; {_HINT}")
            if found is None:
                report.note = f"no counterpart: {_difference(pairs, features[following:])}"
                continue
            used.append(found)
            _copy(features[found], pairs)
            report.take(features[found])
        if report.features and (others := _other_activations(row)):
            remarks.append(f"Row {report.title} has {others} where the weights were trained with {_ACTIVATION}")
    if not used:
        raise UserError(f"nothing of {source} fits: no row of this backbone is a convolution with BatchNorm; {_HINT}")
    full = next((r.index for r in reports if r.transferred < r.total), count)
    if 0 < full < count:
        remarks.append(
            f"--freeze {full} holds the rows before the first that is not filled; --freeze backbone all {count} of them"
        )
    return BackboneReport(source, reports, [b.name for i, b in enumerate(features) if i not in used], remarks)


def _floats(module: nn.Module) -> int:
    return sum(value.is_floating_point() for value in module.state_dict().values())


def conv_bn_pairs(module: nn.Module) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """The convolutions of `module` in order, each with the BatchNorm that follows it. Empty unless all convolutions and
    BatchNorms of the module form such pairs."""
    leaves = [m for m in module.modules() if isinstance(m, (nn.Conv2d, nn.BatchNorm2d))]
    pairs = list(zip(leaves[::2], leaves[1::2], strict=False))
    made_of_pairs = len(leaves) % 2 == 0 and all(
        isinstance(conv, nn.Conv2d) and conv.bias is None and isinstance(bn, nn.BatchNorm2d) and bn.affine
        for conv, bn in pairs
    )
    return pairs if made_of_pairs else []  # type: ignore[return-value]


def _fits(feature: Feature, pairs: Sequence[tuple[nn.Conv2d, nn.BatchNorm2d]]) -> bool:
    return [layer.weight.shape for layer in feature.layers] == [conv.weight.shape for conv, _ in pairs]


@torch.no_grad()
def _copy(feature: Feature, pairs: Sequence[tuple[nn.Conv2d, nn.BatchNorm2d]]) -> None:
    for layer, (conv, bn) in zip(feature.layers, pairs, strict=True):
        given = layer.with_eps(bn.eps)
        own = (conv.weight, bn.weight, bn.bias, bn.running_mean, bn.running_var)
        for target, tensor in zip(own, given, strict=True):
            target.copy_(tensor)  # type: ignore[union-attr]


def _difference(pairs: Sequence[tuple[nn.Conv2d, nn.BatchNorm2d]], left: Sequence[Feature]) -> str:
    """How `pairs` differ from the next feature of the file."""
    if not left:
        return "the file has no more features"
    own, feature = [conv.weight for conv, _ in pairs], left[0]
    theirs = [layer.weight for layer in feature.layers]
    for mine, given in zip(own, theirs, strict=False):
        if mine.shape != given.shape:
            return f"{list(mine.shape)} here, {list(given.shape)} in {feature.name}"
    return f"{len(own)} convolutions here, {len(theirs)} in {feature.name}"


def _other_activations(row: nn.Module) -> str:
    """The activations in `row` that MobileNetV2 does not have, by name."""
    names = {type(m.act).__name__ for m in row.modules() if hasattr(m, "act")}
    return ", ".join(sorted(names - {_ACTIVATION, nn.Identity.__name__}))
