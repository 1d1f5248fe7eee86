"""Every network below models/, at every scale: it builds, learns, fuses; and what the light ones promise."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.activations import ACTIVATIONS
from models.common import RepVGGBlock
from models.configs import known_cfgs, load_cfg
from models.yolo import DetectionModel, model_of
from utils.files import ROOT
from utils.model_info import count_gflops

FAMILIES = sorted(path.name for path in (ROOT / "models").rglob("*.yaml"))
SCALES = "nsmlx"


def sized(family: str, scale: str) -> str:
    return family.replace("yolov5", f"yolov5{scale}", 1)


def by_scale(names: list[str], quick: str) -> list[Any]:
    """Cases; those of the letters not in `quick` count as slow, and so do those without a letter, as large as l."""
    starts = tuple(f"yolov5{scale}" for scale in quick)
    return [name if name.startswith(starts) else pytest.param(name, marks=pytest.mark.slow) for name in names]


def everyone() -> list[str]:
    return [name for family in FAMILIES for name in (family, *(sized(family, scale) for scale in SCALES))]


def living(name: str) -> DetectionModel:
    """The network in evaluation mode, norms at random, with the statistics of a batch of noise."""
    torch.manual_seed(0)
    model = model_of(name)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.3)
        norm.momentum = None  # statistics of what comes next, not a moving average
    with torch.no_grad():
        model.train()(torch.rand(4, 3, 64, 64))
    return model.eval()


def tensors(output: Any) -> list[Tensor]:
    return [output] if isinstance(output, Tensor) else [t for part in output for t in tensors(part)]


def convolution_gflops(model: nn.Module, imgsz: int) -> float:
    """Twice the multiplications of all convolutions, counted as they run: thop is not asked."""
    total = 0

    def count(conv: nn.Module, _: Any, output: Tensor) -> None:
        assert isinstance(conv, nn.Conv2d)
        nonlocal total
        total += 2 * output.numel() * conv.weight[0].numel()

    hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, nn.Conv2d)]
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, imgsz, imgsz))
    for hook in hooks:
        hook.remove()
    return total / 1e9


def parameters(modules: Any) -> int:
    return sum(p.numel() for m in modules for p in m.parameters())


def test_every_family_has_every_scale() -> None:
    assert set(everyone()) <= set(known_cfgs())
    assert len(FAMILIES) >= 10


@pytest.mark.parametrize("name", by_scale(everyone(), quick="n"))
def test_builds_learns_and_fuses(name: str) -> None:
    model = living(name)
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected = tensors(model(x))
        # raw predictions of three levels: 8, 4 and 2 cells, 3 anchors
        assert [y.shape[:4] for y in expected if y.dim() == 5] == [(2, 3, 8, 8), (2, 3, 4, 4), (2, 3, 2, 2)]
        assert all(y.isfinite().all() for y in expected)

    sum(y.square().mean() for y in tensors(model.train()(x))).backward()  # type: ignore[union-attr]
    for key, p in model.named_parameters():
        assert p.grad is not None, key
        assert p.grad.isfinite().all(), key
        p.grad = None

    model = living(name).fuse()  # type: ignore[assignment]
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    with torch.no_grad():
        for fused, plain in zip(tensors(model(x)), expected, strict=True):
            torch.testing.assert_close(fused, plain, rtol=1e-3, atol=1e-3 * float(plain.abs().max()))


@pytest.mark.parametrize(
    ("name", "imgsz", "gflops", "millions"),
    [("yolov5_MobileNetv2-lite.yaml", 640, 6.2, 2.9), ("yolov5_MobileNetv2-edge.yaml", 320, 0.5, 0.75)],
)
def test_budgets(name: str, imgsz: int, gflops: float, millions: float) -> None:
    model = model_of(name)
    assert model.nc == 80
    assert parameters([model]) <= millions * 1e6
    counted = convolution_gflops(model, imgsz)
    assert counted <= gflops
    everything = count_gflops(model, imgsz)  # norms too, as the line of totals says
    assert everything is None or counted <= everything <= gflops
    deployed = count_gflops(model.fuse(), imgsz)
    assert deployed is None or deployed == pytest.approx(counted, rel=1e-3)


def test_lite_has_the_published_backbone() -> None:
    """Rows 0 to 12: those of `yolov5_MobileNetv2.yaml`, and the tensors of torchvision's `features` but the last."""
    from torchvision.models import mobilenet_v2

    lite, published = (load_cfg(f"yolov5_MobileNetv2{kind}.yaml") for kind in ("-lite", ""))
    assert lite["backbone"][:13] == published["backbone"][:13]
    ours = model_of("yolov5_MobileNetv2-lite.yaml").model[:13].state_dict().values()
    theirs = mobilenet_v2(weights=None).features[:18].state_dict().values()
    assert [v.shape for v in ours] == [v.shape for v in theirs]


@pytest.mark.parametrize("kind", ["lite", "edge", "lite-seg", "edge-seg"])
def test_light_networks_are_light_everywhere(kind: str) -> None:
    model = model_of(f"yolov5n_MobileNetv2-{kind}.yaml")
    acts = {name for m in model.modules() if (name := type(m).__name__) in ACTIVATIONS}
    assert acts - {"Identity"} == {"ReLU6"}
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.kernel_size != (1, 1)]
    assert [m.in_channels for m in convolutions if m.groups != m.in_channels] == [3]  # the stem alone


@pytest.mark.parametrize("name", ["yolov5n_RepVGG.yaml", "yolov5n_RepVGG-seg.yaml"])
def test_repvgg_is_deployed_as_plain_convolutions(name: str) -> None:
    model = model_of(name)
    blocks = [m for m in model.modules() if isinstance(m, RepVGGBlock)]
    branches = sum(m.rbr_identity is not None for m in blocks)
    assert 0 < branches < len(blocks)
    model.fuse()
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert {(m.kernel_size, m.groups) for m in convolutions} == {((1, 1), 1), ((3, 3), 1)}
    assert all(m.rbr_dense is m.rbr_1x1 is m.rbr_identity is None for m in blocks)
    acts = {type(m) for m in model.modules() if type(m).__module__ == "torch.nn.modules.activation"}
    assert acts == {nn.ReLU}


@pytest.mark.parametrize("name", by_scale([sized("yolov5_RepVGG.yaml", s) for s in SCALES], quick="ns"))
def test_repvgg_deployed_is_no_larger_than_yolov5(name: str) -> None:
    ours, theirs = (model_of(n).fuse() for n in (name, name.replace("_RepVGG", "")))
    assert 0.65 < parameters([ours]) / parameters([theirs]) < 0.95
    assert 0.65 < convolution_gflops(ours, 64) / convolution_gflops(theirs, 64) < 0.95


def test_every_network_has_its_row_in_the_tables() -> None:
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    assert [name for name in everyone() if f"\n| {name.removesuffix('.yaml')} | " not in page] == []


def test_every_family_is_explained() -> None:
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    assert [family for family in FAMILIES if "-seg" not in family and f"`{family}`" not in page] == []
