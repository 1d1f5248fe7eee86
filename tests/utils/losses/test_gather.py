from __future__ import annotations

import torch

from utils.losses.gather import _Gather, gather


def _case(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    prediction = torch.randn(2, 3, 2, 2, 7, generator=generator, dtype=dtype, requires_grad=True)
    return prediction, torch.tensor([0, 5, 5, 23]), torch.tensor([True, True, True, False])


def test_values() -> None:
    prediction, cell, valid = _case()
    objectness, rows = gather(prediction, cell, valid)
    assert objectness.dtype == rows.dtype == torch.float32
    flat = prediction.detach().float().reshape(-1, 7)
    assert torch.equal(objectness, flat[:, 4])
    assert torch.equal(rows, flat[cell] * valid[:, None])


def test_gradient_is_that_of_plain_indexing_with_repeated_cells() -> None:
    prediction, cell, _ = _case()
    everything = torch.ones_like(cell, dtype=torch.bool)
    assert torch.autograd.gradcheck(lambda p: _Gather.apply(p, cell, everything), prediction)


def test_a_permuted_prediction() -> None:
    prediction, cell, valid = _case()
    permuted = prediction.detach().permute(0, 1, 3, 2, 4).requires_grad_()
    gather(permuted, cell, valid)[0].sum().backward()
    assert permuted.grad is not None
    assert permuted.grad[..., 4].eq(1).all()
    assert permuted.grad.sum() == 24


def test_padding_hides_what_is_not_finite() -> None:
    prediction, cell, valid = _case()
    with torch.no_grad():
        prediction.view(-1, 7)[23] = float("inf")
    _, rows = gather(prediction, cell, valid)
    assert torch.isfinite(rows).all()


def test_half_precision_gets_a_half_precision_gradient() -> None:
    prediction, cell, valid = _case(torch.float16)
    objectness, rows = gather(prediction, cell, valid)
    (objectness.sum() + rows.sum()).backward()
    assert prediction.grad is not None
    assert prediction.grad.dtype == torch.float16
