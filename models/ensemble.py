"""Several detectors that answer as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from utils.errors import UserError


class Ensemble(nn.ModuleList):
    """Joins the candidate boxes of its models, for non-maximum suppression to choose among (as YOLOv5 does).

    The models must know the same classes. `names`, `nc`, `task` and `yaml` are those of the first; `stride` is that of
    the model with the coarsest one, so that an image that fits it fits all.
    """

    def __init__(self, models: Sequence[nn.Module], sources: Sequence[object] = ()) -> None:
        super().__init__(models)
        labels = [str(s) for s in sources] or [f"model {i}" for i in range(len(models))]
        first: Any = models[0]
        for label, other in zip(labels, models, strict=True):
            for what in ("task", "names"):
                mine, theirs = getattr(first, what), getattr(other, what)
                if mine != theirs:
                    raise UserError(
                        f"an ensemble needs the same {what} everywhere: {labels[0]} has {_short(mine)}, "
                        f"{label} has {_short(theirs)}"
                    )
        self.names, self.nc, self.task, self.yaml = first.names, first.nc, first.task, first.yaml
        strides: list[Any] = [model.stride for model in models]
        self.stride: Tensor = max(strides, key=lambda stride: float(stride.max()))

    def forward(
        self, x: Tensor, augment: bool = False, profile: bool = False, visualize: Any = False
    ) -> tuple[Tensor, None]:
        """Images (B, 3, H, W) to ``(decoded, None)``, decoded (B, N1 + N2 + …, no) as `models.yolo.Detect` gives it."""
        return torch.cat([m(x, augment, profile, visualize)[0] for m in self], 1), None

    def fuse(self) -> Ensemble:
        """Fuse every model; idempotent."""
        for model in self:
            model.fuse()  # type: ignore[operator]
        return self


def _short(value: object) -> str:
    if isinstance(value, dict):
        return f"{len(value)} names ({', '.join(map(str, list(value.values())[:3]))}, …)"
    return repr(value)
