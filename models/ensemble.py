"""`Ensemble`: several models whose candidate boxes are joined."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.errors import UserError


class Ensemble(nn.ModuleList):
    """Joins the candidate boxes of its models, as YOLOv5 does, for non-maximum suppression to choose among.

    For segmenters it also joins the prototypes (`join_masked`). The models must have the same task and the same
    classes. `names`, `nc`, `task` and `yaml` are those of the first model; `stride` is the coarsest one, so that an
    image size that fits it fits all models.
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
    ) -> tuple[Tensor | None, ...]:
        """``(decoded, None)`` for images (B, 3, H, W), or ``(decoded, prototypes, None)`` from segmenters.

        decoded is (B, N1 + N2 + …, no), with the candidates of all models as `models.yolo.Detect` decodes them.
        """
        answers = [m(x, augment, profile, visualize) for m in self]
        decoded = [y[0] for y in answers]
        if self.task == "segment":
            return *join_masked(decoded, [y[1] for y in answers]), None
        return torch.cat(decoded, 1), None

    def fuse(self) -> Ensemble:
        """Fuse every model. A second call changes nothing."""
        for model in self:
            model.fuse()  # type: ignore[operator]
        return self


def join_masked(decoded: Sequence[Tensor], prototypes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Join the outputs of several segmenters, or of several views of one, as if one segmenter had all prototypes.

    Each ``decoded`` (B, N_i, c + nm_i) ends with coefficients for its own ``prototypes`` (B, nm_i, h, w). Joined they
    are (B, N1 + N2 + …, c + nm1 + nm2 + …), with zeros as coefficients for the prototypes of the others, and
    (B, nm1 + nm2 + …, h, w), in the size of the first.
    """
    counts = [p.shape[1] for p in prototypes]
    rows = []
    for i, (y, nm) in enumerate(zip(decoded, counts, strict=True)):
        known, coefficients = y.split((y.shape[2] - nm, nm), 2)
        rows.append(torch.cat((known, F.pad(coefficients, (sum(counts[:i]), sum(counts[i + 1 :])))), 2))
    size = prototypes[0].shape[2:]
    maps = [p if p.shape[2:] == size else F.interpolate(p, size, mode="bilinear") for p in prototypes]
    return torch.cat(rows, 1), torch.cat(maps, 1)


def _short(value: object) -> str:
    if isinstance(value, dict):
        return f"{len(value)} names ({', '.join(map(str, list(value.values())[:3]))}, …)"
    return repr(value)
