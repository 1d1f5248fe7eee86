"""The largest batch that fits into the GPU's memory."""

from __future__ import annotations

import copy
import itertools

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from utils.logging import LOGGER

FALLBACK = 16
LARGEST = 1024


def find_batch_size(
    net: nn.Module, imgsz: tuple[int, int], amp_dtype: torch.dtype | None, fraction: float = 0.8
) -> int:
    """A batch size whose training step should use about `fraction` of the free GPU memory; 16 on other devices.

    Memory of a forward and backward pass is measured for a few batch sizes and continued as a straight line. Where the
    measurements do not rise with the batch, they say nothing, and the answer is 16.
    """
    device = next(net.parameters()).device
    if device.type != "cuda":
        LOGGER.info(f"--batch-size -1 measures GPU memory; on {device.type} it means {FALLBACK}")
        return FALLBACK
    total = torch.cuda.get_device_properties(device).total_memory
    free = total - torch.cuda.memory_reserved(device)
    sizes, used = [], []
    for batch_size in (1, 2, 4, 8, 16):
        try:
            used.append(_peak_memory(net, batch_size, imgsz, amp_dtype, device))
            sizes.append(batch_size)
        except torch.cuda.OutOfMemoryError:
            break
        finally:
            torch.cuda.empty_cache()
    batch_size = extrapolate(sizes, used, free * fraction)
    LOGGER.info(f"--batch-size -1: {batch_size} at {imgsz[0]}x{imgsz[1]} ({free / 1e9:.1f} GB free)")
    return batch_size


def extrapolate(sizes: list[int], used: list[int], budget: float) -> int:
    """The batch size whose memory meets `budget` bytes on the line through the measured (size, bytes) pairs."""
    rising = len(used) >= 2 and all(b > a for a, b in itertools.pairwise(used))
    if not rising:
        return FALLBACK if not used or FALLBACK in sizes else max(sizes)
    slope = (used[-1] - used[0]) / (sizes[-1] - sizes[0])
    fits = int(sizes[0] + (budget - used[0]) / slope)
    if len(sizes) < 5:  # the next doubling was too much already
        fits = min(fits, 2 * sizes[-1] - 1)
    return max(1, min(fits, LARGEST))


def _peak_memory(
    net: nn.Module, batch_size: int, imgsz: tuple[int, int], amp_dtype: torch.dtype | None, device: torch.device
) -> int:
    twin = copy.deepcopy(net).train()
    torch.cuda.reset_peak_memory_stats(device)
    images = torch.zeros(batch_size, 3, *imgsz, device=device)
    with torch.autocast("cuda", dtype=amp_dtype, enabled=amp_dtype is not None):
        outputs = twin(images)
    sum(o.float().sum() for o in tree_leaves(outputs)).backward()
    return torch.cuda.max_memory_allocated(device)
