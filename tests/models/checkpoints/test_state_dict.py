"""Tensors that match are loaded and counted; those that do not are named with both shapes."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import nn

from models.checkpoints.state_dict import Mismatch, load_matching, load_strictly
from utils.errors import UserError


def network(classes: int = 3) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(conv=nn.Conv2d(3, 4, 1, bias=False), bn=nn.BatchNorm2d(4), head=nn.Conv2d(4, classes, 1))
    )


def test_everything_fits(capsys: pytest.CaptureFixture[str]) -> None:
    source, target = network(), network()
    report = load_matching(target, source.state_dict(), source="yolov5n.pt")
    assert (report.transferred, report.total, report.mismatches, report.fraction) == (8, 8, (), 1.0)
    assert all(
        torch.equal(a, b) for a, b in zip(source.state_dict().values(), target.state_dict().values(), strict=True)
    )
    out = capsys.readouterr()
    assert out.out == "Transferred 8/8 items from yolov5n.pt\n"
    assert out.err == ""


def test_another_number_of_classes(capsys: pytest.CaptureFixture[str]) -> None:
    source, target = network(80), network(3)
    head = target.head.weight.clone()
    report = load_matching(target, source.state_dict(), source="a.pt")
    assert (report.transferred, report.total) == (6, 8)
    assert report.mismatches == (
        Mismatch("head.weight", (80, 4, 1, 1), (3, 4, 1, 1)),
        Mismatch("head.bias", (80,), (3,)),
    )
    assert torch.equal(target.head.weight, head)
    assert torch.equal(target.conv.weight, source.conv.weight)
    out = capsys.readouterr()
    assert out.out.startswith(
        "Transferred 6/8 items from a.pt (new shapes start afresh: 'head.weight' is [80, 4, 1, 1]"
    )
    assert out.err == ""


def test_excluded_names_stay(capsys: pytest.CaptureFixture[str]) -> None:
    source, target = network(), network()
    report = load_matching(target, source.state_dict(), exclude=("bn.", "bias"))
    assert (report.transferred, report.total, report.mismatches) == (2, 8, ())
    assert torch.equal(target.head.weight, source.head.weight)
    assert not torch.equal(target.head.bias, source.head.bias)


def test_hardly_anything_fits_is_loud(capsys: pytest.CaptureFixture[str]) -> None:
    """`Transferred 0/xxx items` went unnoticed in YOLOv5 (#5753)."""
    report = load_matching(
        network(), {"conv.weight": torch.ones(9, 3, 1, 1), "features.0": torch.ones(2)}, source="b.pth"
    )
    assert (report.transferred, report.fraction) == (0, 0.0)
    assert report.mismatches[0] == Mismatch("conv.weight", (9, 3, 1, 1), (4, 3, 1, 1))
    assert report.mismatches[-1] == Mismatch("features.0", (2,), None)
    err = capsys.readouterr().err
    assert err.startswith("warning: Transferred 0/8 items from b.pth: the weights are those of another network")
    assert "'conv.weight' is [9, 3, 1, 1] in the file and [4, 3, 1, 1] in the model" in err
    assert "'bn.weight' is absent in the file and [4] in the model" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(("kept", "loud"), [(1, False), (0, True)])
def test_loud_below_a_tenth(kept: int, loud: bool, capsys: pytest.CaptureFixture[str]) -> None:
    net = nn.ParameterDict({f"p{i}": torch.zeros(2) for i in range(10)})
    load_matching(net, {f"p{i}": torch.ones(2) for i in range(kept)})
    assert bool(capsys.readouterr().err) is loud


def test_half_precision_becomes_the_models() -> None:
    source, target = network().half(), network()
    load_matching(target, source.state_dict())
    assert target.conv.weight.dtype == torch.float32
    assert torch.equal(target.conv.weight, source.conv.weight.float())


def test_strict_names_tensors_and_shapes() -> None:
    state = network(80).state_dict()
    del state["conv.weight"]
    state["extra"] = torch.ones(1, 2)
    with pytest.raises(UserError) as caught:
        load_strictly(network(), state, "x.pt")
    assert str(caught.value) == (
        "x.pt does not fit its network: 'conv.weight' is absent in the file and [4, 3, 1, 1] in the model; "
        "'head.weight' is [80, 4, 1, 1] in the file and [3, 4, 1, 1] in the model; 'head.bias' is [80] in the file "
        "and [3] in the model and 1 more; the file's weights and its network description belong to different models"
    )


def test_strict_passes_over_the_old_anchor_grid() -> None:
    source, target = network(), network()
    load_strictly(target, {**source.state_dict(), "model.24.anchor_grid": torch.ones(3)}, "x.pt")
    assert torch.equal(source.head.weight, target.head.weight)
