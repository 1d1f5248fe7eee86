"""The options of a command as a typed, frozen object, which ``--help`` has no need of."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class CommandOptions:
    """The options of a command as a typed, frozen object, made once by `utils.cli.options_of`.

    Subclasses have one field for each flag, in the order of the flags. What has to change later, such as the batch size
    or the settings of a training that is resumed, goes into a copy, made with `dataclasses.replace`.
    """

    def to_dict(self) -> dict[str, Any]:
        """Names and values in the order of the flags, as opt.yaml and checkpoints hold them."""
        return {field.name: getattr(self, field.name) for field in fields(self)}
