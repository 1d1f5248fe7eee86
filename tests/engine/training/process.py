"""Scenes of several training processes at the price of one import of torch: ``python process.py FOLDER [NAME…]``.

One process is forked off that plays alone, then two that play together: each finds the variables that `torchrun` sets,
plays all scenes that are meant for so many processes (or those named), writes what it found to
``FOLDER/<scene>-<processes>-<rank>.pt``, and ends as any Python program does. Prints a line for one that ended badly.
"""

from __future__ import annotations

import gc
import importlib
import os
import random
import socket
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

from engine.training.setup import data_parallel
from engine.training.trainer import Trainer
from tests.engine.training.step import Batches, make_batch, make_trainer
from utils import distributed
from utils.data.batch import Batch
from utils.distributed import is_main_process, main_process_first, rank, world_size
from utils.training.schedule import Schedule
from utils.training.seeds import gather_rng_states, init_seeds, restore_rng_states

CPU = torch.device("cpu")


def share_of(trainer: Trainer, seed: int) -> Batch:
    """Pictures 2·k and 2·k + 1 are those of process k of two; their objects are alike, so that means over all objects
    are means of the processes' means."""
    task = trainer.session.task
    parts = [make_batch(task, seed), make_batch(task, seed)]
    parts[1].images = 255 - parts[1].images
    if world_size() == 2:
        return parts[rank()]
    moved = parts[1].targets.clone()
    moved[:, 0] += 2
    masks = None if parts[0].masks is None else torch.cat([part.masks for part in parts])
    images = torch.cat([part.images for part in parts])
    return Batch(images, torch.cat((parts[0].targets, moved)), ("a", "b", "c", "d"), None, masks)


class StatisticsKept:
    """In the place of the `Freezer`: statistics of half a batch are others than those of the whole."""

    def train(self, model: nn.Module) -> None:
        model.train()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()


def make_epoch(name: str, batches: int, accumulate: int) -> tuple[Trainer, list[Any]]:
    """A trainer of this process's share, and the list that gets the gradients of each optimiser step in an epoch."""
    trainer = make_trainer(name, Path(), "cpu")
    s = trainer.session
    s.model, s.freezer = data_parallel(s.net, CPU, sync_bn=False), StatisticsKept()  # type: ignore[assignment]
    s.train_loader = Batches(share_of(trainer, seed) for seed in range(batches))
    s.schedule = Schedule(lambda epoch: 1.0, momentum=0.9, accumulate=accumulate, warmup_steps=-1)
    steps: list[Any] = []

    def record() -> None:
        steps.append({key: value.grad.clone() for key, value in s.net.named_parameters()})
        s.optimizer.zero_grad(set_to_none=True)

    trainer.optimizer_step = record  # type: ignore[method-assign]
    return trainer, steps


# --- scenes -----------------------------------------------------------------------------------------------------------


def gradients(name: str, batches: int) -> Any:
    """The gradients of one step that so many batches make up, and how often the processes exchanged them."""
    trainer, steps = make_epoch(name, batches, accumulate=batches)
    exchanges: list[int] = []

    def exchange(_, bucket):  # type: ignore[no-untyped-def]  # torch reads the annotations, and wants no strings
        if bucket.is_last():
            exchanges.append(bucket.index())
        return allreduce_hook(None, bucket)

    if world_size() > 1:
        trainer.session.model.register_comm_hook(None, exchange)  # type: ignore[operator]
    trainer.train_epoch(0)
    (found,) = steps
    return {"gradients": found, "exchanges": exchanges}


def refusal() -> Any:
    """How many steps are made where the second of three batches has no finite loss in the last process."""
    trainer, steps = make_epoch("detect", batches=3, accumulate=1)
    s, calls = trainer.session, iter(range(3))
    criterion = s.criterion

    def spoilt(*arguments: Any) -> Any:
        loss, items = criterion(*arguments)
        return (loss * float("nan") if next(calls) == 1 and rank() == 1 else loss), items

    s.criterion = spoilt
    trainer.train_epoch(0)
    return len(steps)


def generators() -> Any:
    """What each process draws next: after its state was saved, after that was restored, and after another number's."""
    init_seeds(rank())

    def draw() -> list[float]:
        return [random.random(), float(np.random.rand()), float(torch.rand(()))]  # noqa: NPY002

    saved = distributed.broadcast(gather_rng_states())
    assert saved is not None
    first = draw()
    restore_rng_states(saved, seed=7)
    again = draw()
    restore_rng_states({**saved, "others": []}, seed=7)
    anew = draw()
    init_seeds(7 + rank())
    return {"first": first, "again": again, "anew": anew, "seeded": draw()}


def exchange() -> Any:
    """What `broadcast`, `gather` and `all_gather` give; who enters `main_process_first` finds what the first wrote."""
    value = {"rank": rank(), "tensor": torch.full((3,), rank())}
    with main_process_first():
        found = Path("written").exists()
        Path("written").touch()
    return {
        "broadcast": distributed.broadcast(value),
        "gather": distributed.gather(value),
        "all_gather": distributed.all_gather(value),
        "found": found,
    }


SCENES: dict[str, tuple[tuple[int, ...], Callable[[], Any]]] = {  # name: (numbers of processes, what each does)
    "detect": ((1, 2), partial(gradients, "detect", 1)),
    "segment": ((1, 2), partial(gradients, "segment", 1)),
    "accumulated": ((1, 2), partial(gradients, "detect", 2)),
    "refusal": ((2,), refusal),
    "generators": ((2,), generators),
    "exchange": ((2,), exchange),
}


def play(names: list[str], processes: int, number: int, port: int) -> None:
    """One process, from its start to its clean end."""
    if processes > 1:
        variables = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": processes, "MASTER_PORT": port}
        os.environ.update({key: str(value) for key, value in variables.items()}, MASTER_ADDR="127.0.0.1")
    with distributed.process_group(CPU if processes > 1 else None):
        assert is_main_process() == (number == 0)
        for name in names:
            torch.save(SCENES[name][1](), f"{name}-{processes}-{max(rank(), 0)}.pt")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def main(wanted: list[str]) -> None:
    torch.set_num_threads(1)
    importlib.import_module("torch._dynamo")  # `DistributedDataParallel` would, in every process
    gc.freeze()  # nor does each have to go through all that was imported whenever it looks for what can go
    for processes in (1, 2):
        names = [name for name in wanted or SCENES if processes in SCENES[name][0]]
        port, children = free_port(), []
        for number in range(processes):
            if not (child := os.fork()):
                return play(names, processes, number, port)
            children.append(child)
        for number, child in enumerate(children):
            if code := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
                print(f"process {number} of {processes} ended with {code}", flush=True)
    return None


if __name__ == "__main__":
    os.chdir(sys.argv[1])
    main(sys.argv[2:])
