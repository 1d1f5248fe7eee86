"""Seeds and states of all random generators in use."""

from __future__ import annotations

import os
import random
from typing import Any

import numpy as np
import torch

from utils.distributed import gather, rank, world_size


def init_seeds(seed: int = 0, deterministic: bool = False) -> None:
    """Seed Python, numpy and torch (all devices). It must be called before the first operation on a GPU.

    With `deterministic` torch uses kernels whose results are the same each time, for the rest of the process. An
    operation that has none on its device raises a `RuntimeError`, so that no training only seems to be repeatable.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  users' own code may draw from the global generator
    torch.manual_seed(seed)
    torch.cuda.manual_seed_all(seed)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it starts
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False


def rng_state() -> dict[str, Any]:
    """The states of the generators of Python, numpy and torch as tensors, numbers and lists."""
    version, words, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002
    return {
        "python": [version, torch.tensor(words, dtype=torch.int64), gauss],
        "numpy": [kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def gather_rng_states() -> dict[str, Any] | None:
    """The main process's `rng_state`, with those of the other ranks under "others". None in the other processes."""
    states = gather(rng_state())
    return None if states is None else {**states[0], "others": states[1:]}


def restore_rng_states(saved: dict[str, Any], seed: int) -> None:
    """Give each process its own state of those that `gather_rng_states` returned.

    If another number of processes saved them, all processes are seeded anew from `seed`.
    """
    states = [saved, *saved.get("others", [])]
    if len(states) == world_size():
        set_rng_state(states[max(rank(), 0)])
    else:
        init_seeds(seed + max(rank(), 0))


def set_rng_state(state: dict[str, Any]) -> None:
    """Restore the state that `rng_state` returned; generators of GPUs only if there are as many GPUs as then."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words.tolist()), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))  # noqa: NPY002
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])
