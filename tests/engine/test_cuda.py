"""The stand-in for a CUDA device: it must refuse what a GPU refuses, and see who waits for it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from tests.engine.cuda import OnCuda, stand_in_cuda


def test_tensors_say_where_they_are_and_keep_their_values() -> None:
    with stand_in_cuda():
        made, moved = torch.arange(3, device="cuda"), torch.arange(3).to("cuda:0")
        total = made.add_(moved) * 2.0
        assert (made.device, total.device.type, total.is_cuda) == (torch.device("cuda:0"), "cuda", True)
        assert isinstance(total.new_zeros(2), OnCuda)
        assert isinstance(torch.zeros_like(total).to(memory_format=torch.contiguous_format), OnCuda)
        assert type(total.cpu()) is torch.Tensor
        assert total.tolist() == [0, 4, 8]


def test_gradients_are_there_too() -> None:
    with stand_in_cuda():
        x = torch.tensor([1.0, 2.0, 3.0], device="cuda", requires_grad=True)
        first, _ = x.square().split((1, 2))  # the other part's gradient is a zero tensor that autograd makes
        first.sum().backward()
        assert isinstance(x.grad, OnCuda)
        assert x.grad.tolist() == [2, 0, 0]


@pytest.mark.parametrize(
    "operation",
    [
        lambda x: x + torch.ones(3),
        lambda x: torch.ones(3).mul_(x),
        lambda x: torch.cat((x, torch.ones(1))),
        lambda x: x[torch.tensor([0])],  # CUDA takes this, and waits for the copy of the indices
        lambda x: torch._foreach_add_([x], [torch.ones(3)]),
        lambda x: torch.ones(2) * x[0],
    ],
)
def test_devices_do_not_mix(operation: Callable[[torch.Tensor], object]) -> None:
    with stand_in_cuda(), pytest.raises(RuntimeError, match="cuda:0 and cpu"):
        operation(torch.ones(3, device="cuda"))


def test_a_number_on_the_cpu_is_no_mixture() -> None:
    with stand_in_cuda():
        assert (torch.ones(3, device="cuda") * torch.tensor(2.0)).tolist() == [2, 2, 2]


def test_numpy_cannot_read_a_gpu() -> None:
    with stand_in_cuda():
        x = torch.ones(3, device="cuda")
        with pytest.raises(TypeError, match="numpy"):
            x.numpy()
        with pytest.raises(TypeError, match="numpy"):
            np.asarray(x)


WAITS: dict[str, Callable[[torch.Tensor], object]] = {
    "item": lambda x: x.sum().item(),
    "bool": lambda x: bool(x.sum() > 0),
    "float": lambda x: float(x[0]),
    "tolist": lambda x: x.tolist(),
    "cpu": lambda x: x.cpu(),
    "nonzero": lambda x: x.nonzero(),
    "mask": lambda x: x[x > 0],
    "write through a mask": lambda x: x.index_put_((x > 0,), torch.zeros(3, device="cuda")),
    "masked_select": lambda x: x.masked_select(x > 0),
    "unique": lambda x: x.unique(),
    "bincount": lambda x: x.long().bincount(),
    "equal": lambda x: torch.equal(x, x.clone()),
    "repeat_interleave": lambda x: x.repeat_interleave(x.long()),
    "a list": lambda x: x.new_tensor([1.0, 2.0]),
    "a list to the device": lambda x: torch.tensor([1.0], device="cuda"),
    "a copy that blocks": lambda x: torch.ones(3).to("cuda"),
    "a copy into": lambda x: x.copy_(torch.ones(3)),
    "a copy out": lambda x: torch.ones(3).copy_(x),
}
FREE: dict[str, Callable[[torch.Tensor], object]] = {
    "arithmetic": lambda x: (x * 2).sum().clamp(min=1),
    "indices": lambda x: x[torch.zeros(2, dtype=torch.int64, device="cuda")],
    "slices": lambda x: x[1:],
    "sort": lambda x: x.sort(),
    "where": lambda x: torch.where(x > 0, x, 0.0),
    "masked_fill": lambda x: x.masked_fill_(x > 0, 0.0),
    "from pinned memory": lambda x: torch.ones(3).to("cuda", non_blocking=True),
    "to pinned memory": lambda x: x.to("cpu", non_blocking=True),
    "another type": lambda x: x.half(),
    "on the CPU": lambda x: torch.ones(3).sum().item(),
}


@pytest.mark.parametrize("name", WAITS)
def test_waits_are_seen(name: str) -> None:
    with stand_in_cuda() as watch:
        x = torch.ones(3, device="cuda")
        assert not watch.waits
        WAITS[name](x)
        assert watch.waits


@pytest.mark.parametrize("name", FREE)
def test_what_does_not_wait(name: str) -> None:
    with stand_in_cuda() as watch:
        FREE[name](torch.ones(3, device="cuda"))
        assert not watch.waits


def test_a_copy_that_does_not_block_is_there_when_its_event_was_waited_for() -> None:
    with stand_in_cuda() as watch:
        x = torch.ones(3, device="cuda")
        copy, event = x.to("cpu", non_blocking=True), torch.cuda.Event()
        event.record()
        late = x.to("cpu", non_blocking=True)
        assert copy.tolist() != [1, 1, 1]
        event.synchronize()
        assert copy.tolist() == [1, 1, 1] != late.tolist()
        assert not watch.waits


def test_to_wait_for_the_last_thing_is_to_wait() -> None:
    with stand_in_cuda() as watch:
        torch.ones(3, device="cuda")
        event = torch.cuda.Event()
        event.record()
        event.synchronize()
        assert watch.waits


def test_nothing_is_left_behind() -> None:
    before = torch.cuda._lazy_init, torch.__future__.get_overwrite_module_params_on_conversion()
    with stand_in_cuda():
        torch.nn.Linear(2, 2).to("cuda")
    assert before == (torch.cuda._lazy_init, torch.__future__.get_overwrite_module_params_on_conversion())
    assert type(torch.ones(2) + 1) is torch.Tensor
