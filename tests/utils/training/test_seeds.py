"""Seeds, and torch's deterministic kernels."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

from utils.training.seeds import init_seeds


@pytest.fixture(autouse=True)
def _restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Torch's settings are those of the whole process; none may stay."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "x")  # so that it is put back
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    yield
    torch.use_deterministic_algorithms(False)
    cudnn.deterministic, cudnn.benchmark = before


def test_the_same_seed_draws_the_same() -> None:
    init_seeds(3)
    first = torch.rand(4)
    init_seeds(3)
    assert torch.equal(torch.rand(4), first)
    assert not torch.are_deterministic_algorithms_enabled()


def test_deterministic_sets_what_torch_needs() -> None:
    init_seeds(0, deterministic=True)
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled()
    assert torch.backends.cudnn.deterministic
    assert not torch.backends.cudnn.benchmark
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def test_the_users_own_workspace_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    init_seeds(0, deterministic=True)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"
