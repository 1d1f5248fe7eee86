"""Which device computes, how long it took, memory that is no longer needed, and tensors brought to the CPU."""

from __future__ import annotations

import contextlib
import ctypes
import platform
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from utils.errors import UserError
from utils.logging import LOGGER

Device = str | int | torch.device | None


def select_device(device: Device = "", batch_size: int = 0, newline: bool = True) -> torch.device:
    """The device that ``--device`` names, announced in one log line.

    ``''`` takes the first CUDA GPU where there is one and the CPU otherwise; ``'cpu'``, ``'mps'``, ``'0'``,
    ``'cuda:1'`` and ``'0,1'`` mean what they say. Of several GPUs the first is returned; `device_indices` has
    them all. A `batch_size` above 0 must be divisible by their number. Anything that is not there raises `UserError`.
    A GPU becomes torch's current one, so that clocks, figures of memory and libraries that ask for no device mean it.
    `newline` is accepted for callers of YOLOv5's function and changes nothing.
    """
    name = _plain_name(device)
    if name == "cpu" or (name == "" and not torch.cuda.is_available()):
        return _announce(torch.device("cpu"), f"CPU, {torch.get_num_threads()} threads")
    if name == "mps":
        if not torch.backends.mps.is_available():
            raise UserError(
                "--device mps: this machine or this build of torch has no Metal (MPS) device; use --device cpu"
            )
        return _announce(torch.device("mps"), "Apple MPS")
    indices = device_indices(name)
    if batch_size > 0 and batch_size % len(indices):
        raise UserError(f"--batch-size {batch_size} is not divisible by the {len(indices)} GPUs of --device {name}")
    gpus = [torch.cuda.get_device_properties(i) for i in indices]
    text = "; ".join(
        f"cuda:{i} {gpu.name}, {gpu.total_memory / 2**30:.0f} GiB" for i, gpu in zip(indices, gpus, strict=True)
    )
    torch.cuda.set_device(indices[0])
    return _announce(torch.device("cuda", indices[0]), text)


def select_one_device(device: Device = "", mend: str = "this command computes on one device: name one") -> torch.device:
    """`select_device` for what computes on one device: several GPUs are a `UserError`, which ends with `mend`."""
    if (count := len(device_indices(device))) > 1:
        raise UserError(f"--device {_plain_name(device)} names {count} GPUs; {mend}")
    return select_device(device)


def device_indices(device: Device) -> list[int]:
    """The CUDA GPUs that ``--device`` names: ``'0,2'`` gives [0, 2], ``''`` the first; empty for the CPU and MPS.

    Raises `UserError` where the text is no list of GPUs or this machine lacks one of them.
    """
    name = _plain_name(device)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name in ("cpu", "mps"):
        return []
    if name == "":
        return [0] if count else []
    words = name.split(",")
    if not all(word.isdecimal() for word in words) or len(set(words)) != len(words):
        raise UserError(f"--device '{device}' is not a device; use cpu, mps, or GPU numbers such as 0 or 0,1")
    indices = [int(word) for word in words]
    if missing := [i for i in indices if i >= count]:
        have = f"{count} CUDA GPU{'s' if count != 1 else ''} (0 to {count - 1})" if count else "no CUDA GPU"
        raise UserError(
            f"--device {name}: no GPU {missing[0]}; torch {torch.__version__} sees {have}; try --device cpu"
        )
    return indices


def _plain_name(device: Device) -> str:
    """``'CUDA:0'``, ``' 0 '``, ``0`` and ``'(0)'`` are all ``'0'``; bare ``'cuda'`` is the first GPU."""
    text = "" if device is None else str(device).lower()
    for noise in ("cuda:", "none", "(", ")", "[", "]", "'", " "):
        text = text.replace(noise, "")
    return "0" if text == "cuda" else text.strip(",")


def _announce(device: torch.device, text: str) -> torch.device:
    LOGGER.info(f"Python {platform.python_version()}, torch {torch.__version__}, {text}")
    return device


def time_sync() -> float:
    """Seconds of a monotonic clock, read after the GPU has finished what it was given."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


class Profile(contextlib.ContextDecorator):
    """Times a block: `dt` the last run, `t` the sum of all, in seconds; the GPU's work is waited for.

    ``timer = Profile()``, then ``with timer: …`` any number of times.
    """

    def __init__(self, t: float = 0.0) -> None:
        self.t = t
        self.dt = 0.0
        self._start = 0.0

    def __enter__(self) -> Profile:
        self._start = time_sync()
        return self

    def __exit__(self, *error: object) -> None:
        self.dt = time_sync() - self._start
        self.t += self.dt

    def time(self) -> float:
        """Now, as `time_sync` reads it."""
        return time_sync()


def smart_inference_mode() -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The decorator under which nothing is recorded for a backward pass."""
    return torch.inference_mode()


def return_free_memory() -> None:
    """Give the system back what was freed but kept for reuse, where the C library can (glibc).

    Before processes are forked: they would hold on to those pages for as long as they live.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def to_cpu(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The `tensors`, which may have different sizes and are on one device, as float32 on the CPU.

    They are copied all at once, because every copy waits for the GPU. Tensors that are on the CPU already are returned
    as they are, or converted if necessary.
    """
    if all(tensor.device.type == "cpu" for tensor in tensors):
        return [tensor.float() for tensor in tensors]
    packed = torch.cat([tensor.float().flatten() for tensor in tensors]).cpu()
    parts = packed.split([tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


def to_numpy(array: Any) -> np.ndarray:
    """`array`, a tensor on any device, an array or a list, as a numpy array; it is copied only if necessary."""
    return array.detach().cpu().numpy() if isinstance(array, torch.Tensor) else np.asarray(array)
