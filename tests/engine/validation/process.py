"""One of two validating processes: ``python process.py FOLDER`` with the variables that `torchrun` sets.

Validates its share of each case together with the other process; the first one also validates all of it alone. What
they found is written into FOLDER, numbers to the last digit.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engine.validation.listeners import ValidationPlots
from engine.validation.validator import ValidationResult, validate
from tests.engine.training.step import NC, make_task
from tests.engine.validation.scenes import labelled_batches, unsure_network
from utils.distributed import broadcast_tensors, destroy_process_group, init_process_group, rank
from utils.hyp import load_hyp

CPU = torch.device("cpu")
CASES = [(task, batches) for task in ("detect", "segment") for batches in (5, 1)]  # of 1 the second process gets none

DRAWN = ("detect", 5)


class Coarse(nn.Module):
    """`net` with all confidences rounded to sixteenths: many detections are as sure as others, in other images too."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Any:
        decoded, *more = self.net(images)
        decoded[..., 4] = (decoded[..., 4] * 4).round() / 4
        decoded[..., 5 : 5 + NC] = (decoded[..., 5 : 5 + NC] * 4).round() / 4
        return decoded, *more


def figures(result: ValidationResult) -> dict[str, Any]:
    """All that a validation says but for the time it took."""
    return {
        "means": [value.hex() for value in result.means],
        "losses": [value.hex() for value in result.losses],
        "maps": [value.hex() for value in result.maps.tolist()],
        "curves": [group.result.pr_curve.tobytes().hex()[:2000] for group in result.groups],
        "counts": [result.counts.seen, result.counts.images.tolist(), result.counts.instances.tolist()],
        "fitness": result.fitness.hex(),
    }


def compare(name: str, count: int, folder: Path) -> dict[str, Any]:
    """The figures of one case, `count` batches, by both processes and, in the first one, alone."""
    task = make_task(name)
    net = unsure_network(task)
    batches = labelled_batches(task, net, count)
    for buffer in net.buffers():  # as after training: each process has statistics of its own
        if buffer.is_floating_point() and rank() == 1:
            buffer.add_(0.01)
    broadcast_tensors(net.state_dict().values())
    options: dict[str, Any] = {"names": {i: f"class {i}" for i in range(NC)}, "device": CPU}
    options["plots"] = (name, count) == DRAWN
    options["criterion"] = task.criterion(net, load_hyp("hyp.scratch-low.yaml"))
    share = batches[rank() :: 2]
    together = validate(Coarse(net), share, task, processes=2, save_dir=folder / "together", **options)
    found = {"together": figures(together)}
    if rank() == 0:
        options["plots"], unseen = False, ValidationPlots(folder, options["names"], NC, task, batches=0)
        found["alone"] = figures(validate(Coarse(net), batches, task, listeners=[unseen], **options))
        if (name, count) == DRAWN:
            unseen.confusion.csv(folder / "alone.csv", options["names"])
    return found


def main(folder: Path) -> None:
    """Write what this process found, as JSON."""
    torch.set_num_threads(1)
    init_process_group(CPU)
    if rank() == 0:
        (folder / "together").mkdir()
    found = {f"{name}{count}": compare(name, count, folder) for name, count in CASES}
    (folder / f"{rank()}.json").write_text(json.dumps(found))
    destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
