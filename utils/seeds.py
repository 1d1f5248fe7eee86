"""Random seeds of every generator in use."""

from __future__ import annotations

import os
import random

import numpy as np
import torch


def init_seeds(seed: int = 0, deterministic: bool = False) -> None:
    """Seed python, numpy and torch (all devices). `deterministic` also asks torch for reproducible kernels."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  users' own code may draw from the global generator
    torch.manual_seed(seed)
    torch.cuda.manual_seed_all(seed)
    if deterministic:
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.deterministic = True
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
