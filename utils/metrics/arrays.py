"""Tensors of any device, arrays and lists as numpy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


def to_numpy(values: Any) -> np.ndarray:
    """`values` as a numpy array on the CPU; no copy where none is needed."""
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
