"""The largest batch that fits into the GPU's memory."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from utils.errors import is_out_of_memory
from utils.logging import LOGGER

FALLBACK = 16
LARGEST = 1024
SIZES = (1, 2, 4, 8, 16)  # batches that are measured
STATES = {"SGD": 1, "Adam": 2, "AdamW": 2, "RMSProp": 2}  # tensors that an optimiser keeps for each weight


def find_batch_size(
    net: nn.Module,
    imgsz: tuple[int, int],
    amp_dtype: torch.dtype | None,
    optimizer: str = "SGD",
    multi_scale: bool = False,
    fraction: float = 0.8,
) -> int:
    """A batch size whose training step should use about `fraction` of the free GPU memory; 16 on other devices.

    Free is what neither other processes nor this one's own network have taken. A forward and backward pass is measured
    for a few batch sizes, with `multi_scale` at the largest size that occurs, and continued as a straight line; the
    optimiser's state is added. Measurements that do not rise with the batch say nothing: the answer is 16.
    """
    first = next(net.parameters())
    device = first.device
    if device.type != "cuda":
        LOGGER.info(f"--batch-size -1 measures GPU memory; on {device.type} it means {FALLBACK}")
        return FALLBACK
    torch.cuda.empty_cache()
    free = torch.cuda.mem_get_info(device)[0]
    available = free + torch.cuda.memory_reserved(device)
    state = STATES[optimizer] * sum(weight.nbytes for weight in net.parameters() if weight.requires_grad)
    if multi_scale:
        imgsz = largest_size(imgsz, int(max(net.stride)))  # type: ignore[arg-type]
    used: list[int] = []
    for batch_size in SIZES:
        try:
            used.append(_peak_memory(net, batch_size, imgsz, amp_dtype, device) + state)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            break
        finally:
            torch.cuda.empty_cache()
    batch_size = extrapolate(SIZES[: len(used)], used, available * fraction)
    LOGGER.info(f"--batch-size -1: {batch_size} at {imgsz[0]}x{imgsz[1]} ({free / 1e9:.1f} GB free)")
    return batch_size


def largest_size(imgsz: tuple[int, int], stride: int) -> tuple[int, int]:
    """The largest images of a training with ``--multi-scale``: one and a half times `imgsz`, a multiple of `stride`."""
    height, width = (math.ceil(side * 1.5 / stride) * stride for side in imgsz)
    return height, width


def extrapolate(sizes: Sequence[int], used: Sequence[int], budget: float) -> int:
    """The batch size whose memory meets `budget` bytes on the line of least squares through (size, bytes) pairs."""
    slope, standing = np.polyfit(sizes, used, 1) if len(used) > 1 else (0.0, 0.0)
    if slope <= 0.001 * max(used, default=1) / max(sizes, default=1):
        return FALLBACK if not used or FALLBACK in sizes else max(sizes)
    fits = int((budget - standing) / slope + 1e-6)
    if len(sizes) < len(SIZES):  # the next doubling was too much already
        fits = min(fits, 2 * sizes[-1] - 1)
    return max(1, min(fits, LARGEST))


def _peak_memory(
    net: nn.Module, batch_size: int, imgsz: tuple[int, int], amp_dtype: torch.dtype | None, device: torch.device
) -> int:
    """Bytes at the most in a step: `net`, a copy (the average's place), gradients, and what the backward pass needs."""
    twin = copy.deepcopy(net).train()
    torch.cuda.reset_peak_memory_stats(device)
    images = torch.zeros(batch_size, 3, *imgsz, device=device).to(memory_format=torch.channels_last)
    with torch.autocast("cuda", dtype=amp_dtype, enabled=amp_dtype is not None):
        outputs = twin(images)
    sum(o.float().sum() for o in tree_leaves(outputs)).backward()
    return torch.cuda.max_memory_allocated(device)
