"""Trainings that may be killed: what they are called with, how they are started, what they leave."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from models.checkpoints.checkpoint import load_checkpoint
from tests.conftest import TINY
from utils.yamls import save_yaml

ROOT = Path(__file__).resolve().parents[2]


class Nursery:
    """Starts commands through a process of `nursery.py`, one after the other; what they say goes to `log`."""

    def __init__(self, connection: socket.socket, log: Path) -> None:
        self.stream = connection.makefile("rw")
        self.log = log

    def run(self, words: list[str], limit: float | None = None) -> tuple[int, float]:
        """Exit code (negative: the signal) and seconds of ``train.py`` with `words`, killed after `limit` seconds."""
        self.stream.write(json.dumps([["train.py", *words], str(self.log), limit]) + "\n")
        self.stream.flush()
        code, seconds = json.loads(self.stream.readline())
        return code, seconds


@contextlib.contextmanager
def nurseries(count: int, folder: Path, warm_up: list[str]) -> Iterator[list[Nursery]]:
    """So many processes that start commands, ready after a training of the words `warm_up`; logs are in `folder`."""
    pairs = [socket.socketpair() for _ in range(count)]
    theirs = [str(there.fileno()) for _, there in pairs]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with (folder / "nursery.txt").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.nursery", *theirs, "--", *warm_up], cwd=folder, env=environment,
            pass_fds=[int(word) for word in theirs], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    for _, there in pairs:
        there.close()
    with process:
        try:
            yield [Nursery(here, folder / f"log{number}.txt") for number, (here, _) in enumerate(pairs)]
        finally:
            for here, _ in pairs:
                here.shutdown(socket.SHUT_RDWR)
                here.close()


def tiny_training(data: Path, folder: Path, epochs: int = 4) -> list[str]:
    """The words of a training of a few seconds whose run folders are below ``folder/runs``."""
    cfg, hyp = folder / "net.yaml", folder / "hyp.yaml"
    save_yaml(cfg, TINY)
    save_yaml(hyp, {"nbs": 4, "lr0": 0.01})
    options = {
        "cfg": cfg, "data": data, "hyp": hyp, "img": 64, "batch": 4, "epochs": epochs, "device": "cpu",
        "project": folder / "runs", "workers": 0,
    }  # fmt: skip
    return [word for name, value in options.items() for word in (f"--{name}", str(value))] + ["--noautoanchor"]


def state(checkpoint: Path) -> dict[str, Any]:
    """What must be equal in two checkpoints of the same training."""
    found = load_checkpoint(checkpoint)
    names = ("state_dict", "ema", "ema_updates", "optimizer", "epoch", "best_fitness", "extra")
    return {name: getattr(found, name) for name in names}


def equal(one: Any, other: Any) -> bool:
    """Whether two trees of plain values and tensors are the same to the last bit."""
    import torch

    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(equal(one[k], other[k]) for k in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(equal(a, b) for a, b in zip(one, other, strict=True))
    return one == other
