"""docs/adding-a-block.md: its block works, its test passes, and its rows fail with the messages shown."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models import common
from models.registry import BLOCKS, register
from models.yolo import model_of
from tests.models.test_common import randomised
from utils.errors import UserError
from utils.files import ROOT

GUIDE = (ROOT / "docs" / "adding-a-block.md").read_text(encoding="utf-8")
BLOCK, CASES, TEST = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
ROW, *_ = re.findall(r"```yaml\n(.*)\n```", GUIDE)
MISTAKES = re.findall(r"```yaml\n(.*)\n```\n\n```text\n(.*)\n```", GUIDE)
REPLACED = "- [-1, 1, DWSConv, [64, 5, 2]]"


@pytest.fixture
def block(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The guide's class, registered while the test lasts."""
    names = dict(vars(common))
    exec(BLOCK, names)
    monkeypatch.setattr("models.registry.BLOCKS", dict(BLOCKS))
    register("LargeKernelConv", names["LargeKernelConv"])
    return names["LargeKernelConv"]


def network(folder: Path, row: str) -> Path:
    lite = (ROOT / "models" / "yolov5_MobileNetv2-lite.yaml").read_text(encoding="utf-8")
    assert lite.count(REPLACED) == 1
    path = folder / "yolov5_mine.yaml"
    path.write_text(lite.replace(REPLACED, row), encoding="utf-8")
    return path


@torch.no_grad()
def test_the_block_its_cases_and_its_test(block: Any) -> None:
    names = {"torch": torch, "F": F, "LargeKernelConv": block, "randomised": randomised}
    exec(TEST, names)
    names["test_large_kernel_by_definition"]()
    cases: list[tuple[Any, ...]] = []
    exec(f"cases.extend({{{CASES}}}['LargeKernelConv'])", {"cases": cases})
    assert len(cases) == 3
    for case in cases:
        module, x = block(*case), torch.randn(2, 16, 8, 8)
        randomised(module)
        expected = module(x)
        module.fuse()
        module.fuse()
        assert sum(isinstance(m, nn.Conv2d) and m.groups > 1 for m in module.modules()) == 1
        torch.testing.assert_close(module(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scale", ["", "n"])
def test_the_row(block: Any, scale: str, tmp_path: Path) -> None:
    path = network(tmp_path, ROW)
    model = model_of(path.with_name(f"yolov5{scale}_mine.yaml"))
    assert isinstance(model.model[22], block)


@pytest.mark.parametrize(("row", "message"), MISTAKES)
def test_messages(block: Any, row: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    network(tmp_path, row)
    with pytest.raises(UserError) as error:
        model_of("yolov5_mine.yaml")
    shown, shortened, _ = message.partition("…")
    assert str(error.value).startswith(shown) if shortened else str(error.value) == shown


def test_there_are_ten_steps_and_four_mistakes() -> None:
    assert re.findall(r"^\*\*(\d+)\.", GUIDE, re.MULTILINE) == [str(i) for i in range(1, 11)]
    assert len(MISTAKES) == 4
