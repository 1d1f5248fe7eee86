"""What several processes do together, with a stand-in for `torch.distributed`."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from unittest import mock

import pytest
import torch

from utils import distributed


@pytest.fixture
def torchrun(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets the environment of one process: ``torchrun(rank, local_rank, world, local_world)``."""

    def set_environment(rank: int, local_rank: int, world: int, local_world: int) -> None:
        values = {"RANK": rank, "LOCAL_RANK": local_rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": local_world}
        for name, value in values.items():
            monkeypatch.setenv(name, str(value))

    return set_environment


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`torch.distributed` that is joined and left without anyone else; records what was asked of it, in order."""
    log = mock.MagicMock()
    joined = False

    def join(*_: Any, **__: Any) -> None:
        nonlocal joined
        joined = True

    def leave() -> None:
        nonlocal joined
        joined = False

    log.init_process_group.side_effect = join
    log.destroy_process_group.side_effect = leave
    for name in ("init_process_group", "new_group", "destroy_process_group", "barrier"):
        monkeypatch.setattr(distributed.dist, name, getattr(log, name))
    monkeypatch.setattr(distributed.dist, "is_initialized", lambda: joined)
    monkeypatch.setattr(distributed.dist, "is_nccl_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", log.set_device)
    monkeypatch.setattr(distributed, "_control", None)
    return log


def test_alone_nothing_is_exchanged() -> None:
    value = {"a": 1}
    assert distributed.broadcast(value) is value
    assert distributed.gather(value) == [value]
    assert distributed.all_gather(value) == [value]
    distributed.barrier()
    distributed.destroy_process_group()
    with distributed.main_process_first():
        assert distributed.is_main_process()
        assert distributed.is_first_of_machine()


def test_a_gpu_is_chosen_before_the_group_is_joined(group: Any, torchrun: Any) -> None:
    torchrun(1, 1, 2, 2)
    device = torch.device("cuda", 1)
    distributed.init_process_group(device)
    assert [call[0] for call in group.mock_calls] == ["set_device", "init_process_group", "new_group"]
    group.set_device.assert_called_once_with(device)
    group.init_process_group.assert_called_once_with("nccl", timeout=timedelta(minutes=10), device_id=device)


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_only_steps_have_a_short_timeout(group: Any, torchrun: Any, device: str) -> None:
    torchrun(0, 0, 2, 2)
    distributed.init_process_group(torch.device(device))
    assert group.init_process_group.call_args.kwargs["timeout"] < timedelta(minutes=30)
    group.new_group.assert_called_once_with(backend="gloo", timeout=timedelta(hours=3))
    distributed.barrier()
    group.barrier.assert_called_once_with(group=group.new_group.return_value)


def test_the_group_is_left_when_all_have_come(group: Any, torchrun: Any) -> None:
    torchrun(0, 0, 2, 2)
    distributed.init_process_group(torch.device("cpu"))
    group.reset_mock()
    distributed.destroy_process_group()
    assert [call[0] for call in group.mock_calls] == ["barrier", "destroy_process_group"]
    group.reset_mock()
    distributed.destroy_process_group()
    assert not group.mock_calls


@pytest.mark.parametrize(("rank", "local_rank"), [(0, 0), (1, 1), (2, 0), (3, 1)])
def test_the_first_process_of_each_machine_goes_first(group: Any, torchrun: Any, rank: int, local_rank: int) -> None:
    torchrun(rank, local_rank, 4, 2)
    distributed.init_process_group(torch.device("cpu"))
    with distributed.main_process_first():
        assert group.barrier.call_count == (local_rank != 0), "the others wait before the block"
    assert group.barrier.call_count == 1
    assert distributed.is_main_process() == (rank == 0)
    assert distributed.local_world_size() == 2
