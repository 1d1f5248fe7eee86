"""A CUDA device for machines that have none: its tensors say ``cuda:0``, and their values lie in ordinary memory.

torch's own stand-in, `FakeTensorMode`, has no values: whatever reads one ends there, as non-maximum suppression does at
its first line. And where torch was built for CUDA but no driver is found, its backward pass asks for a CUDA context.
Here every operation is computed, on the CPU, after the rules of the device are checked: an operation on CUDA tensors
takes no CPU tensor beside them, but a single number (CUDA would also take indices from the CPU, at the price of a copy
that blocks); and whoever makes the CPU wait for the GPU is written down. What is copied to the CPU without waiting
is there when an event recorded after it has been waited for, and noise before. Mixed precision is not stood in for:
autocast goes by what torch itself takes a tensor's device to be.
"""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

ROOT = Path(__file__).resolve().parents[2]
CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
META = torch.device("meta")  # what torch itself, in C++, takes `OnCuda` to be: CUDA there would ask for a driver
aten = torch.ops.aten
COPIES = (aten._to_copy.default, aten.copy_.default)
UNTAGGED = {"aten::nonzero_numpy", "torchvision::nms"}  # whose results are as large as their values say
MASKABLE = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default)


class OnCuda(torch.Tensor):
    """The values of `held`, said to be on the GPU."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> OnCuda:
        with torch.inference_mode(held.is_inference()):  # in inference mode a view of a parameter is no such tensor
            tensor = torch.Tensor._make_wrapper_subclass(
                cls,
                held.size(),
                strides=held.stride(),
                storage_offset=held.storage_offset(),
                dtype=held.dtype,
                device=META,
            )
        tensor.held = held
        return tensor

    device = property(lambda self: CUDA)
    is_cuda = property(lambda self: True)
    is_cpu = is_meta = property(lambda self: False)
    __torch_function__ = torch._C._disabled_torch_function_impl

    def __repr__(self, **_: Any) -> str:
        return f"OnCuda({self.held!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def new_tensor(self, data: Any, **options: Any) -> torch.Tensor:
        return torch.tensor(data, **{"dtype": self.dtype, "device": CUDA, **options})

    def numpy(self, *, force: bool = False) -> np.ndarray:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu()")

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        return self.numpy()


class Watch(TorchDispatchMode):
    """Computes whatever is done within the block; `waits` counts who made the CPU wait for the GPU: (place, what).

    A place is "file:function", the innermost one of the project. `underway` are copies to the CPU: (to, what).
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[tuple[str, str]] = Counter()
        self.launches = 0
        self.underway: list[tuple[torch.Tensor, torch.Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if _waits(func, args, kwargs):
            self.waits[_place(sys._getframe(1)), func._schema.name.removeprefix("aten::")] += 1
        result = _compute(func, args, kwargs)
        there = any(isinstance(leaf, OnCuda) for leaf in tree_leaves((args, kwargs, result)))
        self.launches += there
        if there and func is aten._to_copy.default and not isinstance(result, OnCuda) and kwargs.get("non_blocking"):
            self.underway.append((result, result.clone()))
            result.fill_(-7)
        return result

    def event(self) -> mock.Mock:
        """Stands in for `torch.cuda.Event`. To wait for one is to wait for the GPU if nothing was launched after it."""
        event = mock.Mock(spec=["record", "synchronize"])
        recorded: list[tuple[int, list[tuple[torch.Tensor, torch.Tensor]]]] = []

        def synchronize() -> None:
            launches, copies = recorded[-1]
            if launches == self.launches:
                self.waits[_place(sys._getframe(1)), "synchronize"] += 1
            for to, what in copies:
                to.set_(what)

        event.record.side_effect = lambda: recorded.append((self.launches, list(self.underway)))
        event.synchronize.side_effect = synchronize
        return event


@contextlib.contextmanager
def stand_in_cuda() -> Iterator[Watch]:
    """Within the block ``device="cuda"`` works: tensors made or moved there are `OnCuda`."""
    torch._C._ensureCUDADeviceGuardSet()
    settings = (
        (torch.__future__.set_overwrite_module_params_on_conversion, True, False),
        (torch._C._set_only_lift_cpu_tensors, True, torch._C._only_lift_cpu_tensors()),
    )
    with contextlib.ExitStack() as stack:
        for setter, value, before in settings:
            setter(value)
            stack.callback(setter, before)
        stack.enter_context(mock.patch("torch.cuda._lazy_init"))
        stack.enter_context(mock.patch("torch.cuda.amp.common.amp_definitely_not_available", return_value=False))
        stack.enter_context(mock.patch("models.yolo.is_traced", return_value=False))  # nor is a CUDA tensor
        watch = Watch()
        stack.enter_context(mock.patch("torch.cuda.Event", watch.event))
        yield stack.enter_context(watch)


def _compute(func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """`func` on the values, its results where a GPU's would be. A `RuntimeError` where devices are mixed."""
    leaves = tree_leaves((args, kwargs))
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    there = [tensor for tensor in tensors if isinstance(tensor, OnCuda)]
    if there and func not in COPIES and any(t.dim() for t in tensors if not isinstance(t, OnCuda)):
        raise RuntimeError(f"{func}: expected all tensors on one device, but found cuda:0 and cpu")
    asked = next((leaf.type for leaf in leaves if isinstance(leaf, torch.device)), None)
    here = tree_map_only(OnCuda, lambda tensor: tensor.held, (args, kwargs))
    args_here, kwargs_here = tree_map_only(torch.device, lambda _: CPU, here)
    result = func(*args_here, **kwargs_here)
    if func is aten.copy_.default:
        return args[0]
    if asked == "cpu" or (asked is None and not there):
        return result
    known = {id(tensor.held): tensor for tensor in there}  # an operation in place gives its argument back
    return tree_map_only(torch.Tensor, lambda t: known[id(t)] if id(t) in known else OnCuda(t), result)


def _waits(func: Any, args: tuple, kwargs: dict[str, Any]) -> bool:
    """Whether the CPU cannot go on before the GPU has done `func`, or all that comes before it."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    there = any(isinstance(tensor, OnCuda) for tensor in tensors)
    if func is aten._to_copy.default:
        to_cuda = kwargs["device"].type != "cpu" if kwargs.get("device") else there
        return there != to_cuda and not kwargs.get("non_blocking")  # torch has the CPU's side in pinned memory
    if func is aten.copy_.default:
        to_cuda, from_cuda = (isinstance(tensor, OnCuda) for tensor in args[:2])
        return to_cuda != from_cuda and not (to_cuda and args[2:] == (True,))
    if func in MASKABLE:  # a mask is made into indices, as many as it has ones
        return there and any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])
    if func._schema.name in UNTAGGED:
        return there
    return there and bool({torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape} & set(func.tags))


def _place(frame: FrameType | None) -> str:
    """The innermost file and function of the project; "torch" where there is none."""
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(ROOT) and "site-packages" not in path.parts and path != Path(__file__):
            return f"{path.relative_to(ROOT).as_posix()}:{frame.f_code.co_name}"
        frame = frame.f_back
    return "torch"
