"""The options of a command as a typed, frozen object, which ``--help`` has no need of."""

from __future__ import annotations

import argparse
from dataclasses import MISSING, dataclass, fields
from pathlib import PurePath
from typing import Any, TypeVar

_Options = TypeVar("_Options", bound="CommandOptions")


@dataclass(frozen=True)
class CommandOptions:
    """The options of a command as a typed, frozen object, made once from what its parser gives.

    Subclasses have one field for each flag, in the order of the flags. What has to change later, such as the batch size
    or the settings of a training that is resumed, goes into a copy, made with `dataclasses.replace`.
    """

    @classmethod
    def from_namespace(cls: type[_Options], namespace: argparse.Namespace) -> _Options:
        """The options that a parser gave; only fields with a default may be missing from `namespace`."""
        wanted = [f.name for f in fields(cls) if f.default is MISSING or hasattr(namespace, f.name)]
        return cls(**{name: getattr(namespace, name) for name in wanted})

    def to_dict(self) -> dict[str, Any]:
        """Names and values in the order of the flags, as opt.yaml and checkpoints hold them."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


def list_of_weights(weights: Any) -> list[str]:
    """The value of --weights as a list, where a script may have set a single path, or None."""
    return [str(weights)] if isinstance(weights, (str, PurePath)) else [str(path) for path in weights or ()]
