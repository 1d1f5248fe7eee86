"""Sizes at which a network cannot be timed."""

from __future__ import annotations

import pytest
import torch

from models.inspection.command import inspect_network
from utils.errors import UserError


class Net:
    stride = torch.tensor([8.0, 32.0])
    yaml = {"ch": 3}  # noqa: RUF012

    def info(self, **kwargs: object) -> None:
        pass


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--img 7 --profile", r"--imgsz 7 7 cannot be timed: give multiples of 32, such as --imgsz 64 64"),
        ("--img 100 --line-profile", "--imgsz 128 128"),
        ("--img 64 65 --profile", "--imgsz 64 96"),
        ("--img 16384 --batch 65536 --profile", "takes 192 TiB for the images alone"),
    ],
)
def test_told_before_anything_is_computed(words: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        inspect_network(lambda cfg: Net(), ["--cfg", "x", "--device", "cpu", *words.split()])
