"""Several detectors that answer as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.errors import UserError


class Ensemble(nn.ModuleList):
    """Joins the candidate boxes of its models, for non-maximum suppression to choose among (as YOLOv5 does).

    Of segmenters it joins the prototypes too (`join_masked`).
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
    ) -> tuple[Tensor | None, ...]:
        """Images (B, 3, H, W) to ``(decoded, None)``, decoded (B, N1 + N2 + …, no) as `models.yolo.Detect` gives it.

        Segmenters: ``(decoded, prototypes, None)``.
        """
        answers = [m(x, augment, profile, visualize) for m in self]
        decoded = [y[0] for y in answers]
        if self.task == "segment":
            return *join_masked(decoded, [y[1] for y in answers]), None
        return torch.cat(decoded, 1), None

    def fuse(self) -> Ensemble:
        """Fuse every model; idempotent."""
        for model in self:
            model.fuse()  # type: ignore[operator]
        return self


def join_masked(decoded: Sequence[Tensor], prototypes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Several segmenters' (or views') answers for the same images as those of one with all of their prototypes.

    Each ``decoded`` (B, N_i, c + nm_i) ends in coefficients for its own ``prototypes`` (B, nm_i, h, w). They become
    (B, N1 + N2 + …, c + nm1 + nm2 + …), with zeros as coefficients for the others' prototypes, and (B, nm1 + nm2 + …,
    h, w), of the size of the first.
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
