"""Loading a state dict into another network: only the tensors that match, with a report; or strictly all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from utils.errors import UserError
from utils.logging import LOGGER

_WARN_BELOW = 0.1  # of all items of the model
_SHOWN = 5


class Mismatch(NamedTuple):
    """A tensor that was not loaded: its shape in the file and in the model, None where it does not exist."""

    name: str
    given: tuple[int, ...] | None
    expected: tuple[int, ...] | None

    def __str__(self) -> str:
        return f"'{self.name}' is {_shown(self.given)} in the file and {_shown(self.expected)} in the model"


@dataclass(frozen=True)
class LoadReport:
    """What `load_matching` did.

    transferred: items of the model that were loaded, out of `total`. mismatches: of the model's items first, in order.
    """

    transferred: int
    total: int
    mismatches: tuple[Mismatch, ...]

    @property
    def fraction(self) -> float:
        return self.transferred / max(self.total, 1)


def load_matching(
    model: nn.Module, state_dict: Mapping[str, torch.Tensor], exclude: Sequence[str] = (), source: str | Path = ""
) -> LoadReport:
    """Copy into `model` every tensor of `state_dict` that has the name and shape of one of the model's.

    Names that contain one of `exclude` are left alone (for example "anchor" where `--cfg` brings its own anchors).
    Prints ``Transferred m/n items`` and tensors whose shapes differ, such as a head for another number of classes. If
    less than a tenth of the model was loaded, this is a warning that names the first mismatches.
    """
    own = model.state_dict()
    given, wanted = (
        {name: tensor for name, tensor in state.items() if not any(word in name for word in exclude)}
        for state in (state_dict, own)
    )
    matching = {name: given[name] for name, tensor in wanted.items() if _shape(given.get(name)) == tensor.shape}
    mismatches = tuple(_mismatches(given, wanted))
    model.load_state_dict(matching, strict=False)
    report = LoadReport(len(matching), len(own), mismatches)
    line = f"Transferred {report.transferred}/{report.total} items" + (f" from {source}" if str(source) else "")
    if report.fraction < _WARN_BELOW:
        first = "; ".join(map(str, mismatches[:_SHOWN])) or "all names are excluded"
        LOGGER.warning(
            f"{line}: the weights are those of another network, so this is nearly a start from scratch. "
            f"First mismatches: {first}. Give the --cfg that the weights were trained with, or --weights '' to mean it"
        )
    else:
        reshaped = [m for m in mismatches if m.given and m.expected]
        LOGGER.info(
            line + (f" (new shapes start afresh: {'; '.join(map(str, reshaped[:_SHOWN]))})" if reshaped else "")
        )
    return report


def load_strictly(model: nn.Module, state_dict: Mapping[str, torch.Tensor], source: str | Path) -> None:
    """Copy all of `state_dict` into `model`, in the model's precision.

    Raises `UserError` with both shapes of the first tensors that are missing, unexpected or of another shape. The
    `anchor_grid` of YOLOv5 before v6, which only repeats the anchors, is ignored.
    """
    own = model.state_dict()
    given = {name: tensor for name, tensor in state_dict.items() if name in own or not name.endswith(".anchor_grid")}
    wrong = _mismatches(given, own)
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise UserError(
            f"{source} does not fit its network: {'; '.join(map(str, wrong[:3]))}{more}; "
            "the file's weights and its network description belong to different models"
        )
    model.load_state_dict(given, strict=True)


def _mismatches(given: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> list[Mismatch]:
    """Differences in names and shapes: the model's items in order, then those that only `given` has."""
    mine = [Mismatch(n, _shape(given.get(n)), tuple(t.shape)) for n, t in own.items()]
    theirs = [Mismatch(n, tuple(t.shape), None) for n, t in given.items() if n not in own]
    return [m for m in mine if m.given != m.expected] + theirs


def _shape(tensor: torch.Tensor | None) -> tuple[int, ...] | None:
    return None if tensor is None else tuple(tensor.shape)


def _shown(shape: tuple[int, ...] | None) -> str:
    return "absent" if shape is None else str(list(shape))
