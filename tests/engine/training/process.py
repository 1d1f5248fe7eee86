"""One of several training processes: ``python process.py TASK FOLDER`` with the variables that `torchrun` sets.

Writes the gradients of one backward pass over this process's share of the batch; alone, over the whole of it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn

from engine.training.setup import parallel
from tests.engine.training.step import make_batch, make_trainer
from utils.data.batch import Batch
from utils.distributed import destroy_process_group, init_process_group, rank, world_size


def share_of(name: str, process: int, processes: int) -> Batch:
    """Pictures 2·k and 2·k + 1 are those of process k of two; their objects are alike, so that means over all objects
    are means of the processes' means."""
    task = make_trainer(name, Path(), "cpu").session.task
    parts = [make_batch(task, 0), make_batch(task, 0)]
    parts[1].images = 255 - parts[1].images
    if processes == 2:
        return parts[process]
    moved = parts[1].targets.clone()
    moved[:, 0] += 2
    masks = None if parts[0].masks is None else torch.cat([part.masks for part in parts])
    images = torch.cat([part.images for part in parts])
    return Batch(images, torch.cat((parts[0].targets, moved)), ("a", "b", "c", "d"), None, masks)


def main(name: str, folder: Path) -> None:
    torch.set_num_threads(1)
    device = torch.device("cpu")
    if world_size() > 1:
        init_process_group(device)
    trainer = make_trainer(name, folder, "cpu")
    s = trainer.session
    model = parallel(s.net, {"sync_bn": False}, device).train()
    for module in model.modules():  # statistics of half a batch are others than those of the whole
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    batch = share_of(name, rank(), world_size())
    loss, _ = s.task.loss(s.criterion, model(trainer.network_input(batch.images)), batch)
    (loss * trainer.loss_scale).backward()
    gradients = {key: value.grad for key, value in s.net.named_parameters()}
    torch.save(gradients, folder / f"{world_size()}-{max(rank(), 0)}.pt")
    destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
