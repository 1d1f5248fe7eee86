"""A batch through a network on a CPU: pieces side by side, one core each, instead of all cores on every layer."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn

_PIECE = 2  # images: their feature maps stay in the cache, which those of 16 do not


class Streams(contextlib.AbstractContextManager):
    """Calls `model` on images in pieces of one or two, as many at a time as torch has threads; answers are joined.

    Each piece is computed by one thread alone. Where all threads share each layer they wait for the slowest some 60
    times a pass; as soon as anything else wants a core (the loader's workers do) that costs several times the work.
    Pieces need no waiting, less memory, and the same images give the same answer. A batch with fewer images than
    threads, or a device that is not a CPU, is passed on whole. `keep` takes from an answer what is wanted of it.
    """

    def __init__(self, model: nn.Module, device: torch.device, keep: Callable[[Any], Any] | None = None) -> None:
        self.model = model
        self.keep = keep or (lambda answer: answer)
        self.threads = torch.get_num_threads()
        self.split = device.type == "cpu" and bool(
            getattr(model, "pt", True)
        )  # other runtimes have threads of their own
        self._pool = ThreadPoolExecutor(self.threads, initializer=torch.set_num_threads, initargs=(1,))

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        torch.set_num_threads(self.threads)  # part of that setting is the whole process's

    def __call__(self, images: Tensor, **arguments: Any) -> Any:
        """What the model makes of `images` (B, 3, H, W), without gradients."""
        if not self.split or len(images) < self.threads or len(images) == 1:
            return self._one(images, arguments)
        pieces = images.split(min(_PIECE, len(images) // self.threads))
        run = map if self.threads == 1 else self._pool.map
        return joined(list(run(self._one, pieces, [arguments] * len(pieces))))

    def _one(self, images: Tensor, arguments: dict[str, Any]) -> Any:
        with torch.inference_mode():  # a setting of the thread
            return self.keep(self.model(images, **arguments))


def joined(answers: Sequence[Any]) -> Any:
    """Answers of one structure (tensors, lists and tuples of them, None) as one, joined along the first axis."""
    first = answers[0]
    if isinstance(first, Tensor):
        return torch.cat(list(answers))
    if isinstance(first, (list, tuple)):
        return type(first)(joined(parts) for parts in zip(*answers, strict=True))
    assert first is None, f"cannot join {type(first).__name__}"
    return None
