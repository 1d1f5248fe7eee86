"""ImageNet weights in our backbone compute what they compute in torchvision's network; torchvision is the oracle."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import mobilenet_v2

from engine.task import DetectionTask
from engine.training.flags import training_parser
from engine.training.options import TrainOptions
from engine.training.setup import build_network
from models.checkpoints.backbone import ConvBN, load_backbone
from models.checkpoints.checkpoint import Checkpoint, save_checkpoint
from models.configs import known_cfgs, load_cfg
from models.loading import load_model
from models.yolo import DetectionModel, SegmentationModel
from utils.cli import options_of
from utils.errors import UserError

ROWS = (5, 9, 12)  # the last rows at strides 8, 16 and 32, and the features they are
FEATURES = (6, 13, 17)


@pytest.fixture(scope="module")
def reference() -> nn.Module:
    """torchvision's network with random weights and statistics, variances from 1e-7 (a nearly dead channel) to 2."""
    torch.manual_seed(0)
    network = mobilenet_v2(weights=None).eval()
    modules = [m for m in network.features.modules() if isinstance(m, (nn.Conv2d, nn.BatchNorm2d))]
    with torch.no_grad():
        for conv, bn in zip(modules[::2], modules[1::2], strict=True):
            var = 10 ** torch.empty_like(bn.running_var).uniform_(-7, 0.3)
            nn.init.kaiming_normal_(conv.weight)
            conv.weight *= var.sqrt().view(-1, 1, 1, 1)
            bn.running_var.copy_(var)
            bn.running_mean.normal_().mul_(var.sqrt())
            bn.weight.uniform_(0.3, 1)
            bn.bias.normal_().mul_(0.5)
    return network


@pytest.fixture(scope="module")
def pth(reference: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "mobilenet_v2.pth"
    torch.save(reference.state_dict(), path)
    return path


def cfg(**changes: Any) -> dict[str, Any]:
    """The published network with ImageNet's activation in its stem."""
    description = load_cfg("yolov5_MobileNetv2.yaml")
    description["backbone"][0] = [-1, 1, "Conv", [32, 3, 2, None, 1, 1, "ReLU6"]]
    return {**description, "nc": 2, **changes}


def network(pth: Path, norm: str = "imagenet") -> DetectionModel:
    """What `train.py --backbone-weights … --backbone-norm …` starts from."""
    parser = training_parser("", data="a.yaml", project="runs", cfg="b.yaml")
    opt = parser.parse_args(["--backbone-weights", str(pth), "--backbone-norm", norm])
    options = replace(options_of(TrainOptions, opt), cfg=cfg())
    return build_network(options, DetectionTask(), nc=2, hyp={}, checkpoint=None).eval()


@torch.no_grad()
def ours(model: nn.Module, images: Tensor) -> list[Tensor]:
    outputs: dict[int, Tensor] = {}
    hooks = [
        model.model[row].register_forward_hook(lambda m, x, y, row=row: outputs.update({row: y.clone()}))
        for row in ROWS
    ]
    model(images)
    for hook in hooks:
        hook.remove()
    return [outputs[row] for row in ROWS]


@torch.no_grad()
def theirs(model: nn.Module, images: Tensor) -> list[Tensor]:
    return [model.features[: last + 1](images) for last in FEATURES]


def assert_equal(a: list[Tensor], b: list[Tensor], first: tuple[int, ...] = (0, 0, 0)) -> None:
    """Within 1e-4 at each stride, from cell `first` on in both directions."""
    for mine, other, start in zip(a, b, first, strict=True):
        assert other.std() > 0.1
        torch.testing.assert_close(mine[..., start:, start:], other[..., start:, start:], atol=1e-4, rtol=0)


def test_features_are_torchvisions_before_and_after_save_load_and_fuse(
    reference: nn.Module, pth: Path, tmp_path: Path
) -> None:
    images = torch.rand(2, 3, 96, 128)
    expected = theirs(reference, images)
    assert [tuple(y.shape[1:]) for y in expected] == [(32, 12, 16), (96, 6, 8), (320, 3, 4)]
    model = network(pth, norm="none")
    assert_equal(ours(model, images), expected)
    assert_equal(ours(copy.deepcopy(model).fuse(), images), expected)
    save_checkpoint(tmp_path / "m.pt", Checkpoint("detect", model.yaml, model.names, model.state_dict()))
    for fuse in (False, True):
        assert_equal(ours(load_model(tmp_path / "m.pt", fuse=fuse), images), expected)


@pytest.mark.parametrize(
    ("norm", "mean", "std"),
    [("imagenet", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), ("tf", (0.5,) * 3, (0.5,) * 3)],
)
def test_input_normalisation_is_folded(
    reference: nn.Module, pth: Path, norm: str, mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    """The padding of the stem differs (black here, the mean colour there), at the top and the left of an even picture;
    half of the receptive field, 29, 133 and 245 pixels, is what that reaches."""
    images = torch.rand(1, 3, 320, 352)
    normalised = (images - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    expected, model = theirs(reference, normalised), network(pth, norm)
    assert_equal(ours(model, images), expected, first=(4, 9, 8))
    assert_equal(ours(model.fuse(), images), expected, first=(4, 9, 8))
    assert (ours(model, images)[0] - expected[0])[..., 0, 0].abs().max() > 1e-3, "the border does differ"


def test_batchnorm_eps_is_exact() -> None:
    torch.manual_seed(0)
    var = 10 ** torch.linspace(-12, 3, 64, dtype=torch.float64)
    gamma, beta, mean = torch.randn(3, 64, dtype=torch.float64)
    layer = ConvBN(torch.empty(64, 1, 1, 1), gamma, beta, mean, var).with_eps(1e-3)
    x = torch.randn(2, 64, 3, 3, dtype=torch.float64)
    norm = partial(torch.nn.functional.batch_norm, x)
    torch.testing.assert_close(
        norm(layer.mean, layer.var, layer.gamma, layer.beta, eps=1e-3), norm(mean, var, gamma, beta, eps=1e-5),
        atol=1e-13, rtol=1e-12,
    )  # fmt: skip


# What a file may look like --------------------------------------------------------------------------------------------


def saved(content: Any, path: Path, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


def prefixed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


def backbone_of(path: Path, trust: bool = False, **changes: Any) -> dict[str, Tensor]:
    """The floating-point tensors of rows 0 to 12 after `path` was loaded into a network of `cfg(**changes)`."""
    model = DetectionModel(cfg(**changes))
    load_backbone(model, path, "none", trust)
    return {k: v for k, v in model.model[:13].state_dict().items() if v.is_floating_point()}


FORMS: dict[str, Callable[[nn.Module], Any]] = {
    "under state_dict": lambda m: {"state_dict": m.state_dict(), "epoch": 3},
    "under model": lambda m: {"model": m.state_dict()},
    "from DataParallel": lambda m: {"state_dict": prefixed(m.state_dict(), "module.")},
    "features only": lambda m: dict(prefixed(m.features.state_dict(), "features.")),
    "in another order": lambda m: dict(reversed(m.state_dict().items())),
    "parameters": lambda m: {k: nn.Parameter(v) if v.is_floating_point() else v for k, v in m.state_dict().items()},
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_a_file(reference: nn.Module, pth: Path, tmp_path: Path, form: str) -> None:
    expected, given = backbone_of(pth), backbone_of(saved(FORMS[form](reference), tmp_path / "a.pth"))
    assert len(expected) == 255
    assert all(torch.equal(given[name], value) for name, value in expected.items())


def test_old_container_half_precision_and_a_whole_network(reference: nn.Module, pth: Path, tmp_path: Path) -> None:
    expected = backbone_of(pth)
    old = saved(reference.state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert all(torch.equal(value, expected[name]) for name, value in backbone_of(old).items())
    half = saved({k: v.half() for k, v in reference.state_dict().items()}, tmp_path / "half.pth")
    torch.testing.assert_close(
        backbone_of(half)["12.conv.0.conv.weight"], expected["12.conv.0.conv.weight"].half().float()
    )
    whole = saved(reference, tmp_path / "whole.pth")
    with pytest.raises(
        UserError, match=r"torchvision\.models\.mobilenetv2\.MobileNetV2, which is not on the allow-list"
    ):
        backbone_of(whole)
    assert all(torch.equal(value, expected[name]) for name, value in backbone_of(whole, trust=True).items())


# Rows and blocks ------------------------------------------------------------------------------------------------------


def test_the_report_counts_each_row_and_says_why_not(pth: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = DetectionModel("yolov5_MobileNetv2.yaml")
    report = load_backbone(model, pth)
    assert (report.transferred, report.total) == (255, 265)
    assert [row.transferred for row in report.rows] == [5, 10, 15, 15, 15, 30, 15, 45, 15, 30, 15, 30, 15, 0]
    out = capsys.readouterr().out
    assert re.search(r"^  7  MobileNetV2_Block +45/45  features\.8, features\.9, features\.10$", out, re.M)
    assert re.search(
        r"^ 13  SPPF +0/10  no counterpart: \[160, 320, 1, 1\] here, \[1280, 320, 1, 1\] in features\.18$", out, re.M
    )
    assert "Transferred 255/265 tensors of the backbone; of the file unused: features.18" in out
    assert "Rows 14 to 28, the head, stay as they are" in out
    assert "Row 0, Conv has SiLU where the weights were trained with ReLU6" in out


@pytest.mark.parametrize("name", [n for n in known_cfgs() if re.match("yolov5l?_MobileNetv2(?!-edge)", n)])
def test_shipped_networks_at_width_1_take_all_of_it(pth: Path, name: str) -> None:
    model = (SegmentationModel if "-seg" in name else DetectionModel)(name)
    report = load_backbone(model, pth)
    filled = [(row.transferred, row.total) for row in report.rows if row.transferred]
    assert sum(a for a, _ in filled) == sum(b for _, b in filled) == 255
    activations = {type(m.act).__name__ for m in model.model[0].modules() if hasattr(m, "act")}
    assert ("SiLU where" in str(report)) == (activations == {"SiLU"})
    assert "--freeze 13 holds the rows before" in str(report)


def test_rows_are_found_by_structure(pth: Path) -> None:
    """Unstacked, with an attention between them, and a last convolution as torchvision's network has it."""
    rows = []
    for source, number, module, args in cfg()["backbone"][:13]:
        rows += [[source, 1, module, args]] + [[-1, 1, module, [args[0], 1, 6]] for _ in range(number - 1)]
    last = [-1, 1, "Conv", [1280, 1, 1, None, 1, 1, "ReLU6"]]
    plain = cfg()["backbone"][:13]
    head = [[-1, 1, "Detect", ["nc", "anchors"]]]
    nets = []
    for backbone in (plain, [*rows[:3], [-1, 1, "nn.MaxPool2d", [3, 1, 1]], *rows[3:], last]):
        where = len(backbone) - 1
        description = cfg(backbone=backbone, anchors=[[10, 13]], head=[[[where], *head[0][1:]]])
        nets.append(DetectionModel(description))
    reports = [load_backbone(net, pth) for net in nets]
    assert [(r.transferred, r.total) for r in reports] == [(255, 255), (260, 260)]
    assert (reports[0].unused, reports[1].unused) == (["features.18"], [])
    flat = [[v for v in net.model.state_dict().values() if v.is_floating_point()][:255] for net in nets]
    assert all(torch.equal(a, b) for a, b in zip(*flat, strict=True))


def test_fewer_and_more_copies(pth: Path) -> None:
    """Copies that a depth multiple takes away, or adds, leave their neighbours in place."""
    fewer, more = (DetectionModel(cfg(depth_multiple=d, width_multiple=1.0)) for d in (0.33, 1.5))
    report = load_backbone(fewer, pth)
    assert [row.features[-1] for row in report.rows[:13]] == [
        f"features.{i}" for i in (0, 1, 2, 3, 4, 5, 7, 8, 11, 12, 14, 15, 17)
    ]
    report = load_backbone(more, pth)
    assert [row.total - row.transferred for row in report.rows] == [0, 0, 0, 0, 0, 15, 0, 15, 0, 15, 0, 15, 0, 10]
    assert "[32, 192, 1, 1] here, [64, 192, 1, 1] in features.7" in report.rows[5].note


# Mistakes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("letter", "nsmx")
def test_another_width_takes_nothing(pth: Path, letter: str) -> None:
    model = DetectionModel(f"yolov5{letter}_MobileNetv2.yaml", nc=2)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    stem = {"n": 8, "s": 16, "m": 24, "x": 40}[letter]
    with pytest.raises(
        UserError, match=rf"row 0, Conv: \[{stem}, 3, 3, 3\] here, \[32, 3, 3, 3\] in features.0; .*width"
    ) as error:
        load_backbone(model, pth)
    assert "\n" not in str(error.value)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_a_backbone_of_another_kind(pth: Path) -> None:
    with pytest.raises(UserError, match=r"nothing of .* fits: row 0, Conv: \[64, 3, 6, 6\] here"):
        load_backbone(DetectionModel("yolov5l.yaml"), pth)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"conv1.weight": torch.zeros(1)}, r"no MobileNetV2 .* layout \(features.0.0.weight, …\) but conv1"),
        ({"model.0.conv.weight": torch.zeros(1)}, "start from it with --weights"),
        ([1, 2], "no MobileNetV2 in torchvision's layout .* but no tensors"),
        ({"features.0.0.weight": torch.zeros(4, 3, 3, 3)}, "features.0.0 is not a convolution followed by a BatchNorm"),
        (
            {"features.0.0.weight": torch.zeros(4, 3, 3, 3), "features.0.1.weight": torch.zeros(4)},
            "features.0.0 is not a convolution followed by a BatchNorm",
        ),
    ],
)  # fmt: skip
def test_other_files(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        load_backbone(DetectionModel(cfg()), saved(content, tmp_path / "a.pth"))
    assert "\n" not in str(error.value)


def test_unknown_normalisation(pth: Path) -> None:
    with pytest.raises(
        UserError, match=r"--backbone-norm 'imagnet': one of imagenet, tf, none \(did you mean 'imagenet'"
    ):
        load_backbone(DetectionModel(cfg()), pth, "imagnet")
