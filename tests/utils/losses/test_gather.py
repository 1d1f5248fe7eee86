from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from utils.losses.gather import _Gather, gather_rows


def _case(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    prediction = torch.randn(2, 3, 2, 2, 7, generator=generator, dtype=dtype, requires_grad=True)
    return prediction, _cells([0, 5, 5, 23], prediction), torch.tensor([True, True, True, False])


def _cells(flat: list[int], prediction: torch.Tensor) -> torch.Tensor:
    """(R, 4) from positions in the flattened prediction."""
    return torch.stack(torch.unravel_index(torch.tensor(flat, dtype=torch.int64), prediction.shape[:4]), 1)


def _gather(prediction: torch.Tensor, cell: torch.Tensor, valid: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of one level."""
    rows, (objectness,) = gather_rows([prediction], cell, valid, [len(cell)])
    return objectness, rows


def test_values() -> None:
    prediction, cell, valid = _case()
    objectness, rows = _gather(prediction, cell, valid)
    assert objectness.dtype == rows.dtype == torch.float32
    flat = prediction.detach().float().reshape(-1, 7)
    assert torch.equal(objectness, flat[:, 4])
    assert torch.equal(rows, flat[[0, 5, 5, 23]] * valid[:, None])


def test_gradient_is_that_of_plain_indexing_with_repeated_cells() -> None:
    prediction, cell, _ = _case()
    everything = torch.ones(len(cell), dtype=torch.bool)
    assert torch.autograd.gradcheck(lambda p: _Gather.apply(cell, everything, [4], p), prediction)


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4), (0, 2, 3, 1, 4), (0, 1, 4, 2, 3), (3, 0, 4, 2, 1)])
def test_any_order_in_memory(order: tuple[int, ...]) -> None:
    """Of its own, of convolutions with channels last and first, and one that nothing writes."""
    generator = torch.Generator().manual_seed(0)
    plain = torch.randn(2, 3, 4, 5, 7, generator=generator)
    prediction = plain.permute(order).contiguous().permute([order.index(i) for i in range(5)]).requires_grad_()
    flat, valid = [0, 61, 61, 119], torch.ones(4, dtype=torch.bool)
    cell = _cells(flat, prediction)
    objectness, rows = _gather(prediction, cell, valid)
    assert torch.equal(objectness, plain[..., 4].flatten())
    assert torch.equal(rows, plain.view(-1, 7)[flat])
    weights = torch.randn(4, 7, generator=generator)
    (objectness.sum() + (rows * weights).sum()).backward()
    expected = torch.zeros(120, 7)
    expected[:, 4] = 1
    for where, weight in zip(flat, weights, strict=True):
        expected[where] += weight
    assert prediction.grad is not None
    assert prediction.grad.stride() == prediction.stride()
    torch.testing.assert_close(prediction.grad.reshape(-1, 7), expected)


def test_a_part_of_a_larger_tensor() -> None:
    whole = torch.randn(2, 3, 2, 2, 9, requires_grad=True)
    _, rows = _gather(whole[..., 1:8], _cells([4], whole), torch.tensor([True]))
    rows.sum().backward()
    assert torch.equal(rows[0], whole.detach().view(-1, 9)[4, 1:8])
    assert whole.grad is not None
    assert torch.equal(whole.grad.view(-1, 9).sum(1), 7.0 * (torch.arange(24) == 4))


def test_padding_hides_what_is_not_finite() -> None:
    prediction, cell, valid = _case()
    with torch.no_grad():
        prediction.view(-1, 7)[23] = float("inf")
    _, rows = _gather(prediction, cell, valid)
    assert torch.isfinite(rows).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_gets_a_half_precision_gradient(dtype: torch.dtype) -> None:
    prediction, cell, valid = _case(dtype)
    objectness, rows = _gather(prediction, cell, valid)
    (objectness.sum() + rows.sum()).backward()
    assert prediction.grad is not None
    assert prediction.grad.dtype == dtype
    assert prediction.grad.sum() == 24 + 4 * 7


def test_nothing_is_as_large_as_the_prediction_but_one_gradient() -> None:
    """A copy of it, or a second tensor of zeros, would cost more than the rest of the loss."""
    large = 2 * 3 * 16 * 16 * 85
    made = []

    class Large(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor) and result.untyped_storage().nbytes() >= 4 * large:
                made.append(result.untyped_storage().data_ptr())
            return result

    prediction = torch.randn(2, 16, 16, 255).permute(0, 3, 1, 2).view(2, 3, 85, 16, 16).permute(0, 1, 3, 4, 2)
    prediction.requires_grad_()
    cell = _cells([5, 7], prediction)
    with Large():
        objectness, rows = _gather(prediction, cell, torch.tensor([True, True]))
        (objectness.sum() + rows.sum()).backward()
    assert prediction.grad is not None
    assert set(made) <= {prediction.untyped_storage().data_ptr(), prediction.grad.untyped_storage().data_ptr()}


def test_several_levels_are_each_level_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    sizes, counts = [(4, 5), (2, 3), (1, 1)], [3, 0, 2]
    levels = [torch.randn(2, 3, *size, 7, generator=generator).requires_grad_() for size in sizes]
    cells = [
        _cells([7 * i % level[..., 0].numel() for i in range(n)], level)
        for level, n in zip(levels, counts, strict=True)
    ]
    weights, valid = torch.randn(5, 7, generator=generator), torch.ones(5, dtype=torch.bool)
    rows, objectness = gather_rows(levels, torch.cat(cells), valid, counts)
    found = torch.autograd.grad((rows * weights).sum() + sum(o.square().sum() for o in objectness), levels)
    for level, cell, own, row, logits, gradient in zip(
        levels, cells, weights.split(counts), rows.split(counts), objectness, found, strict=True
    ):
        alone, expected = _gather(level, cell, torch.ones(len(cell), dtype=torch.bool))
        assert torch.equal(row, expected)
        assert torch.equal(logits, alone)
        assert torch.equal(gradient, torch.autograd.grad((expected * own).sum() + alone.square().sum(), level)[0])
