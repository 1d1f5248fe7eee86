"""--backbone-weights and --freeze backbone in a training; what the weights compute is in models/checkpoints."""

from __future__ import annotations

import shutil
import urllib.error
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.models import mobilenet_v2

import train
from engine.training.flags import training_parser
from engine.training.trainer import Trainer
from models.checkpoints.checkpoint import load_checkpoint
from utils.cli import run_command
from utils.yamls import load_yaml

BACKBONE = 14  # rows of yolov5_MobileNetv2.yaml


@pytest.fixture(scope="module")
def pth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "mobilenet_v2.pth"
    torch.save(mobilenet_v2(weights=None).state_dict(), path)
    return path


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """The state of the network as `Trainer.fit` finds it, filled in by a training."""
    state: dict[str, Tensor] = {}
    fit = Trainer.fit

    def recorded(self: Trainer) -> Any:
        state.update({k: v.clone() for k, v in self.session.net.state_dict().items()})
        return fit(self)

    monkeypatch.setattr(Trainer, "fit", recorded)
    return state


def is_frozen(name: str) -> bool:
    return int(name.split(".")[1]) < BACKBONE


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    """Names of the tensors that differ in any bit."""
    return {k for k, v in before.items() if v.contiguous().numpy().tobytes() != after[k].contiguous().numpy().tobytes()}


def test_a_frozen_backbone_stays_bit_identical_over_training_and_resume(
    tiny_data: Path, tmp_path: Path, pth: Path, start: dict[str, Tensor]
) -> None:
    weights = tmp_path / "mine.pth"
    weights.write_bytes(pth.read_bytes())
    train.run(
        cfg="yolov5_MobileNetv2.yaml", backbone_weights=str(weights), freeze=["backbone"], data=str(tiny_data),
        hyp={"nbs": 4, "lr0": 0.1}, imgsz=[64], batch_size=4, epochs=1, workers=0, device="cpu",
        project=str(tmp_path / "runs"), noplots=True, noautoanchor=True, noval=True,
    )  # fmt: skip
    folder = tmp_path / "runs" / "exp"
    assert load_yaml(folder / "opt.yaml")["backbone_weights"] == str(weights)
    assert load_yaml(folder / "opt.yaml")["freeze"] == ["backbone"]
    kernel = torch.load(pth, weights_only=True)["features.17.conv.2.weight"]
    assert torch.equal(start["model.12.conv.2.conv.weight"], kernel)
    first = dict(start)
    weights.unlink()  # going on needs the checkpoint alone

    checkpoint = load_checkpoint(folder / "weights" / "last.pt")
    frozen = {name for name in first if is_frozen(name)}
    assert len(frozen) == 318
    for state in (checkpoint.state_dict, checkpoint.ema):
        assert not changed(first, state) & frozen
        assert {"model.14.conv.weight", "model.14.bn.running_mean"} <= changed(first, state)

    train.run(resume=str(folder / "weights" / "last.pt"), epochs=2)
    resumed = load_checkpoint(folder / "weights" / "last.pt")
    assert resumed.epoch == 1
    for state in (resumed.state_dict, resumed.ema):
        assert not changed(first, state) & frozen


@pytest.mark.parametrize(
    ("words", "freeze"),
    [
        ([], [0]),
        (["--freeze", "10"], [10]),
        (["--freeze", "0", "1", "2"], [0, 1, 2]),
        (["--freeze", "backbone"], ["backbone"]),
        (["--freeze", "backbone", "14"], ["backbone", 14]),
    ],
)
def test_words_behind_freeze(words: list[str], freeze: list[int | str]) -> None:
    assert training_parser("", data="a.yaml", project="runs", cfg="b.yaml").parse_args(words).freeze == freeze


MISTAKES = {  # good.pth has the layout of ImageNet weights, page.pth is a web page, other.pth of another network
    "--backbone-weights imagenet": "mobilenet_v2-7ebf99e0.pth (no route); without a network, put it at",
    "--backbone-weights absent.pth": "'absent.pth' is neither imagenet nor imagenet-v1 nor a file; tried absent.pth",
    "--backbone-weights imagnet": "(did you mean 'imagenet",
    "--backbone-weights page.pth": "page.pth is not a PyTorch checkpoint but a web page",
    "--backbone-weights other.pth": "other.pth holds no MobileNetV2 in torchvision's layout",
    "--backbone-weights good.pth --cfg yolov5s_MobileNetv2.yaml": (
        "row 0, Conv: [16, 3, 3, 3] here, [32, 3, 3, 3] in features.0; ImageNet weights exist in"
    ),
    "--backbone-weights good.pth --weights yolov5n.pt": "--weights already brings a backbone",
    "--backbone-weights good.pth --backbone-norm imagnet": "invalid choice: 'imagnet'",
    "--freeze backbon": "--freeze: 'backbon' is neither a number nor 'backbone' (did you mean 'backbone'?)",
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(
    mistake: str,
    tiny_data: Path,
    tmp_path: Path,
    pth: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise urllib.error.URLError("no route")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.chdir(tmp_path)
    shutil.copy(pth, "good.pth")
    Path("page.pth").write_text("<html>", encoding="utf-8")
    torch.save({"layer1.0.conv1.weight": torch.zeros(1)}, "other.pth")
    words = ["--data", str(tiny_data), "--workers", "0", "--device", "cpu", *mistake.split()]
    with pytest.raises(SystemExit) as stop:
        run_command(lambda: train.main(train.parse_opt(words)))
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("warning: ")]
    assert stop.value.code in (1, 2)
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert MISTAKES[mistake] in lines[0]
    assert not (tmp_path / "runs").exists()
