"""Times a network, and each of its rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from utils.logging import LOGGER
from utils.model_info import measure_model

Watcher = Callable[[nn.Module, Any, Any], None]  # called with each row, its inputs and its output


class RowTimer:
    """Logs the milliseconds (mean of `repeats` runs), the GFLOPs and the parameters of each row it is called with."""

    def __init__(self, repeats: int = 10) -> None:
        self.repeats = repeats
        self.total_ms = 0.0
        LOGGER.info(f"{'time (ms)':>10} {'GFLOPs':>10} {'params':>10}  module")

    def __call__(self, row: nn.Module, inputs: Any, output: Any) -> None:
        milliseconds = time_ms(lambda: row(inputs), self.repeats, _device(inputs))
        self.total_ms += milliseconds
        gflops = _gflops(row, inputs)
        flops = f"{gflops:10.2f}" if gflops is not None else f"{'-':>10}"
        LOGGER.info(f"{milliseconds:10.2f} {flops} {row.np:10d}  {row.type}")

    def log_total(self) -> None:
        LOGGER.info(f"{self.total_ms:10.2f} {'-':>10} {'-':>10}  total")


def profile_model(model: nn.Module, images: Tensor, repeats: int = 3) -> None:
    """Log the totals of `model` and the time of a forward and a backward pass on `images` (B, ch, H, W)."""
    model = deepcopy(model).train()
    info = measure_model(model, (images.shape[2], images.shape[3]))
    images = images.requires_grad_()

    def forward() -> Tensor:
        return sum(y.float().sum() for y in _tensors(model(images)))  # type: ignore[return-value]

    forward_ms = time_ms(forward, repeats, images.device)
    both_ms = time_ms(lambda: forward().backward(), repeats, images.device)
    LOGGER.info(
        f"{'params':>12}{'GFLOPs':>10}{'forward (ms)':>15}{'backward (ms)':>15}  input\n"
        f"{info.parameters:>12}{info.gflops or float('nan'):>10.1f}{forward_ms:>15.1f}{both_ms - forward_ms:>15.1f}"
        f"  {tuple(images.shape)}"
    )


def time_ms(run: Callable[[], Any], repeats: int, device: torch.device) -> float:
    """The mean milliseconds of `run` after one warm-up call; the device's queue is drained before and after."""
    run()
    _drain(device)
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    _drain(device)
    return (time.perf_counter() - start) * 1000 / repeats


def _tensors(output: Any) -> Iterator[Tensor]:
    """All tensors of a model's output, however nested."""
    if isinstance(output, Tensor):
        yield output
    else:
        for part in output:
            yield from _tensors(part)


def _drain(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _device(inputs: Any) -> torch.device:
    return (inputs if isinstance(inputs, Tensor) else inputs[0]).device


def _gflops(row: nn.Module, inputs: Any) -> float | None:
    try:
        import thop
    except ImportError:
        return None
    return 2 * thop.profile(deepcopy(row), inputs=(inputs,), verbose=False)[0] / 1e9
