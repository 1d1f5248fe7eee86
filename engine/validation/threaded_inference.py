"""Inference on a CPU: parts of a batch run in parallel, one core each, instead of all cores working on each layer."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn

_PART = 2  # images; their feature maps stay in the processor's cache, those of 16 images do not


class ThreadedInference(contextlib.AbstractContextManager):
    """Calls `model` on one or two images at a time, in as many threads as torch uses, and concatenates the answers.

    Each part of the batch is computed by one thread. If all threads share each layer, they wait for the slowest of them
    about 60 times per pass, and that costs several times the work as soon as other processes want a core, as the data
    loader's do. Parts need not wait, take less memory, and give the same answer for the same images. A batch with fewer
    images than threads goes through the model whole, and so does every batch on another device than the CPU. `keep`
    selects the part of each answer that is wanted.
    """

    def __init__(self, model: nn.Module, device: torch.device, keep: Callable[[Any], Any] | None = None) -> None:
        self.model = model
        self.keep = keep or (lambda answer: answer)
        self.threads = torch.get_num_threads()
        own_threads = not getattr(model, "pt", True)  # runtimes other than PyTorch start threads themselves
        self.split = device.type == "cpu" and not own_threads
        self._pool = ThreadPoolExecutor(self.threads, initializer=torch.set_num_threads, initargs=(1,))

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        torch.set_num_threads(self.threads)  # parts of this setting hold for the whole process

    def __call__(self, images: Tensor, **arguments: Any) -> Any:
        """The answer of the model to `images` (B, 3, H, W), computed without gradients."""
        if not self.split or len(images) < self.threads or len(images) == 1:
            return self._one(images, arguments)
        parts = images.split(min(_PART, len(images) // self.threads))
        run = map if self.threads == 1 else self._pool.map
        return concatenated(list(run(self._one, parts, [arguments] * len(parts))))

    def _one(self, images: Tensor, arguments: dict[str, Any]) -> Any:
        with torch.inference_mode():  # holds for the current thread only
            return self.keep(self.model(images, **arguments))


def concatenated(answers: Sequence[Any]) -> Any:
    """Answers of one structure (tensors, lists and tuples of them, None) as one, concatenated along the first axis."""
    first = answers[0]
    if isinstance(first, Tensor):
        return torch.cat(list(answers))
    if isinstance(first, (list, tuple)):
        return type(first)(concatenated(column) for column in zip(*answers, strict=True))
    assert first is None, f"cannot join {type(first).__name__}"
    return None
