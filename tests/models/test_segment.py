"""Segmentation networks: the figures of the reference, the head's outputs, and what such a model must survive."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.common import LightProto, Proto
from models.configs import load_cfg
from models.ensemble import Ensemble, join_masked
from models.tta import VIEWS, restore_prototypes
from models.yolo import Detect, DetectionModel, Segment, SegmentationModel, main, model_of
from utils.errors import UserError

GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "golden" / "models.json").read_text())
LIGHT = "yolov5n_MobileNetv2-seg-lightproto.yaml"


def with_statistics(model: nn.Module, seed: int = 0) -> nn.Module:
    """`model` with norms that do something, in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            for value, low, high in ((m.weight, 0.8, 1.2), (m.bias, -0.2, 0.2), (m.running_var, 0.1, 0.3)):
                value.data.uniform_(low, high, generator=generator)  # type: ignore[union-attr]
    return model.eval()


def make(cfg: str | dict[str, Any] = "yolov5n-seg.yaml", seed: int = 0, nc: int = 4) -> SegmentationModel:
    torch.manual_seed(seed)
    return with_statistics(SegmentationModel(cfg, nc=nc), seed)  # type: ignore[return-value]


@pytest.fixture(params=["yolov5n-seg.yaml", LIGHT])
def model(request: pytest.FixtureRequest) -> SegmentationModel:
    return make(request.param)


# The reference -------------------------------------------------------------------------------------------------------


def test_command_prints_table_and_totals(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--cfg", "yolov5_MobileNetv2-seg.yaml"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "yolov5_MobileNetv2-seg summary: 358 layers, 6642717 parameters, 46.3 GFLOPs"
    assert [int(line[24:34]) for line in lines[1:-1]] == GOLDEN["yolov5_MobileNetv2-seg.yaml"]["layer_params"]
    assert lines[-2].split()[:6] == ["28", "[21,", "24,", "27]", "1", "1209565"]
    assert "models.yolo.Segment" in lines[-2]
    assert lines[-2].endswith("32, 256, [128, 256, 512]]")


@pytest.mark.parametrize("rest", ["-seg", "_MobileNetv2-seg", "_MobileNetv2-seg-lightproto"])
def test_names_and_their_scales(rest: str) -> None:
    for scale, multiples in {
        "": (1, 1),
        "n": (0.33, 0.25),
        "s": (0.33, 0.5),
        "m": (0.67, 0.75),
        "x": (1.33, 1.25),
    }.items():
        cfg = load_cfg(f"yolov5{scale}{rest}.yaml")
        assert (cfg["depth_multiple"], cfg["width_multiple"]) == multiples
        assert cfg["head"][-1][2] == "Segment"


@pytest.mark.parametrize("rest", ["", "_MobileNetv2"])
def test_rows_are_those_of_the_detector(rest: str) -> None:
    detector, segmenter = load_cfg(f"yolov5{rest}.yaml"), load_cfg(f"yolov5{rest}-seg.yaml")
    assert segmenter["head"][-1][:2] == detector["head"][-1][:2]
    assert segmenter["head"][-1][3] == [*detector["head"][-1][3], 32, 256]
    for cfg in (detector, segmenter):
        del cfg["head"][-1]
    assert detector == segmenter
    light = load_cfg("yolov5_MobileNetv2-seg-lightproto.yaml")
    assert light["head"][-1] == [[21, 24, 27], 1, "Segment", ["nc", "anchors", 32, 256, {"proto": "LightProto"}]]
    assert light["backbone"] == load_cfg("yolov5_MobileNetv2.yaml")["backbone"]


def test_names_in_the_state_dict_are_yolov5s() -> None:
    names = [name for name in SegmentationModel("yolov5n-seg.yaml").state_dict() if name.startswith("model.24.")]
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    assert names == [
        "model.24.anchors",
        *(f"model.24.m.{level}.{kind}" for level in range(3) for kind in ("weight", "bias")),
        *(
            f"model.24.proto.cv{i}.{name}"
            for i in (1, 2, 3)
            for name in ("conv.weight", *(f"bn.{kind}" for kind in norm))
        ),
    ]


# Prototypes ----------------------------------------------------------------------------------------------------------


def conv_of(x: Tensor, block: nn.Module, padding: int, groups: int = 1) -> Tensor:
    """What a `Conv` with SiLU must give, in double precision."""
    conv, bn = block.conv, block.bn
    y = F.conv2d(x, conv.weight.double(), padding=padding, groups=groups)  # type: ignore[operator, union-attr, arg-type]
    mean, var, weight, bias = (
        getattr(bn, name).double().view(-1, 1, 1) for name in ("running_mean", "running_var", "weight", "bias")
    )
    y = (y - mean) / (var + bn.eps).sqrt() * weight + bias  # type: ignore[union-attr, operator]
    return y / (1 + (-y).exp())


@torch.no_grad()
def test_prototypes_by_hand() -> None:
    torch.manual_seed(0)
    proto = with_statistics(Proto(6, 8, 5))
    x = torch.randn(2, 6, 4, 3)
    y = conv_of(x.double(), proto.cv1, 1)
    y = y.repeat_interleave(2, 2).repeat_interleave(2, 3)
    y = conv_of(conv_of(y, proto.cv2, 1), proto.cv3, 0)
    assert y.shape == (2, 5, 8, 6)
    torch.testing.assert_close(proto(x), y.float(), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_light_prototypes_by_hand() -> None:
    torch.manual_seed(0)
    proto = with_statistics(LightProto(6, 8, 5))
    x = torch.randn(2, 6, 4, 3)
    reduce, separable = proto.cv1  # type: ignore[misc]
    y = conv_of(x.double(), reduce, 0)
    y = conv_of(conv_of(y, separable.depthwise, 1, groups=8), separable.pointwise, 0)
    y = y.repeat_interleave(2, 2).repeat_interleave(2, 3)
    y = conv_of(conv_of(y, proto.cv2, 1, groups=8), proto.cv3, 0)
    torch.testing.assert_close(proto(x), y.float(), rtol=1e-5, atol=1e-5)
    quarters = [proto(x)[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)]
    assert min((quarters[0] - other).abs().max() for other in quarters[1:]) > 1e-3  # copies of a pixel may differ


def test_what_prototypes_cost() -> None:
    """Multiplications at 80 × 80 and 160 × 160, beside which norms and biases hardly count."""
    from utils.model_info import count_gflops

    def gflops(*products: int) -> float:
        return 2 * sum(products) / 1e9

    published, light = (
        count_gflops(SegmentationModel(f"yolov5_MobileNetv2-seg{kind}.yaml")) for kind in ("", "-lightproto")
    )
    detector = count_gflops(DetectionModel("yolov5_MobileNetv2.yaml"))
    assert published is not None
    assert light is not None
    assert detector is not None
    small, large = 80 * 80, 160 * 160
    coefficients = gflops(*(32 * 3 * c * (640 // stride) ** 2 for c, stride in ((128, 8), (256, 16), (512, 32))))
    full = gflops(small * 128 * 256 * 9, large * 256 * 256 * 9, large * 256 * 32)
    cheap = gflops(small * 128 * 256, small * 256 * 9, small * 256 * 256, large * 256 * 9, large * 256 * 32)
    assert published == pytest.approx(detector + coefficients + full, abs=0.15)
    assert light == pytest.approx(detector + coefficients + cheap, abs=0.15)
    assert (round(full, 1), round(cheap, 1)) == (34.4, 1.8)


# Outputs -------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_outputs_in_either_mode(model: SegmentationModel) -> None:
    x = torch.rand(2, 3, 64, 96)
    decoded, prototypes, raw = model(x)
    assert (decoded.shape, prototypes.shape) == ((2, 3 * (8 * 12 + 4 * 6 + 2 * 3), 5 + 4 + 32), (2, 32, 16, 24))
    assert [y.shape for y in raw] == [(2, 3, 8, 12, 41), (2, 3, 4, 6, 41), (2, 3, 2, 3, 41)]
    flat = torch.cat([y.reshape(2, -1, 41) for y in raw], 1)
    assert torch.equal(decoded[..., 9:], flat[..., 9:])  # coefficients are not squashed
    torch.testing.assert_close(decoded[..., 4:9], flat[..., 4:9].sigmoid())
    assert (model.head.nm, model.head.nc, model.head.no, model.task) == (32, 4, 41, "segment")
    model.head.training = True  # the head alone: norms stay as they are
    raw_in_training, prototypes_in_training = model(x)
    assert torch.equal(prototypes_in_training, prototypes)
    assert all(torch.equal(a, b) for a, b in zip(raw, raw_in_training, strict=True))


@torch.no_grad()
def test_boxes_are_those_of_a_detector_with_the_same_weights() -> None:
    torch.manual_seed(0)
    anchors = [[10, 13, 16, 30], [30, 61, 62, 45]]
    segment, detect = Segment(3, anchors, 7, 16, (8, 12)).eval(), Detect(3, anchors, (8, 12)).eval()
    for head in (segment, detect):
        head.set_stride(torch.tensor([8.0, 16.0]))
    for ours, theirs in zip(segment.m, detect.m, strict=True):
        theirs.weight.copy_(ours.weight.view(2, 15, -1)[:, :8].reshape(theirs.weight.shape))  # type: ignore
        theirs.bias.copy_(ours.bias.view(2, 15)[:, :8].flatten())  # type: ignore
    x = [torch.randn(2, 8, 4, 6), torch.randn(2, 12, 2, 3)]
    decoded, prototypes, _ = segment(x)
    assert prototypes.shape == (2, 7, 8, 12)
    torch.testing.assert_close(decoded[..., :8], detect(x)[0])
    assert torch.equal(prototypes, segment.proto(x[0]))


def test_both_outputs_learn(model: SegmentationModel) -> None:
    raw, prototypes = model.train()(torch.rand(2, 3, 64, 64))
    (sum(y.square().mean() for y in raw) + prototypes.square().mean()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@torch.no_grad()
def test_half_precision_gives_floats_of_one_type(model: SegmentationModel) -> None:
    x = torch.rand(1, 3, 64, 64)
    decoded, prototypes, _ = model(x)
    half = copy.deepcopy(model).bfloat16()(x.bfloat16())
    assert (half[0].dtype, half[1].dtype, half[2][0].dtype) == (torch.float32, torch.float32, torch.bfloat16)
    torch.testing.assert_close(half[1], prototypes, rtol=0.1, atol=0.05 * float(prototypes.abs().max()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = model(x)
    assert (mixed[0].dtype, mixed[1].dtype) == (torch.float32, torch.float32)
    torch.testing.assert_close(mixed[0][..., :4], decoded[..., :4], rtol=0.05, atol=2.0)


@torch.no_grad()
def test_fused_model(model: SegmentationModel) -> None:
    x = torch.rand(2, 3, 64, 96)
    expected = model(x)
    twin = copy.deepcopy(model).fuse().fuse()
    assert not any(isinstance(m, nn.BatchNorm2d) for m in twin.modules())
    got = twin(x)
    assert expected[1].std() > 1e-3  # it says something
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.filterwarnings("ignore")
def test_traced_and_exported_models() -> None:
    cfg = load_cfg(LIGHT)
    cfg["backbone"] = [[-1, 1, "Conv", [32, 3, 2]], [-1, 1, "Conv", [64, 3, 2]], [-1, 1, "Conv", [64, 3, 2]]]
    cfg["head"] = [[-1, 1, "Conv", [64, 3, 2]], [[2, 3], 1, *cfg["head"][-1][2:]]]
    cfg["anchors"] = cfg["anchors"][:2]
    model = make(cfg)
    x, other = torch.rand(1, 3, 64, 64), torch.rand(2, 3, 96, 64)
    expected, expected_other = model(x), model(other)
    traced = torch.jit.trace(model, (x,), strict=False)
    torch.testing.assert_close(traced(x)[:2], expected[:2])
    torch.testing.assert_close(traced(other)[:2], expected_other[:2])  # it follows the size
    torch.testing.assert_close(torch.export.export(model, (x,)).module()(x)[:2], expected[:2])


@torch.no_grad()
def test_profile_and_visualize(model: SegmentationModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = torch.rand(1, 3, 64, 64)
    expected = model(x)
    torch.testing.assert_close(model(x, profile=True, visualize=tmp_path / "features"), expected)
    assert "models.yolo.Segment" in capsys.readouterr().out
    assert (tmp_path / "features" / "stage0_Conv_features.png").is_file()


def test_command_profiles(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--cfg", LIGHT, "--imgsz", "64", "--device", "cpu", "--profile", "--line-profile"]) == 0
    assert "backward (ms)" in capsys.readouterr().out


# Several views, several models ---------------------------------------------------------------------------------------


def masks_of(decoded: Tensor, prototypes: Tensor) -> Tensor:
    """Mask logits (B, N, h, w) of all candidates."""
    return torch.einsum("bnk,bkhw->bnhw", decoded[..., -prototypes.shape[1] :], prototypes)


def bilinear(grid: np.ndarray, y: float, x: float) -> np.ndarray:
    """`grid` (nm, h, w) at a point in cells, whose centres lie at 0.5, 1.5, …, and nothing changes beyond the last."""
    _, h, w = grid.shape
    y, x = min(max(y - 0.5, 0), h - 1), min(max(x - 0.5, 0), w - 1)
    j, i = min(int(y), h - 2), min(int(x), w - 2)
    b, a = y - j, x - i
    corners = grid[:, j : j + 2, i : i + 2]
    return np.einsum("nji,j,i->n", corners, [1 - b, b], [1 - a, a])


@torch.no_grad()
def test_augmented_forward_by_hand(model: SegmentationModel) -> None:
    height, width = 64, 128
    x = torch.rand(1, 3, height, width)
    decoded, prototypes, raw = model(x, augment=True)
    assert raw is None
    rows, maps = [], []
    for v, (scale, size, padded) in enumerate(((1.0, (64, 128), (64, 128)), (0.83, (53, 106), (64, 128)),
                                               (0.67, (42, 85), (64, 96)))):  # fmt: skip
        seen = x.flip(3) if v == 1 else x
        if scale < 1:
            seen = F.interpolate(seen, size, mode="bilinear", align_corners=False)
            seen = F.pad(seen, (0, padded[1] - size[1], 0, padded[0] - size[0]), value=0.447)
        boxes, protos, _ = model(seen)
        cells = [3 * padded[0] * padded[1] // stride**2 for stride in (8, 16, 32)]
        keep = [slice(0, cells[0] + cells[1]), slice(None), slice(cells[0], None)][v]
        row = torch.zeros(boxes[0, keep].shape[0], 9 + 96)
        row[:, :9] = boxes[0, keep, :9]
        row[:, :4] *= torch.tensor([width / size[1], height / size[0]] * 2)
        if v == 1:
            row[:, 0] = width - row[:, 0]
        row[:, 9 + 32 * v : 9 + 32 * (v + 1)] = boxes[0, keep, 9:]
        rows.append(row)
        back = np.zeros((32, height // 4, width // 4))
        for j in range(height // 4):
            for i in range(width // 4):
                pixel_x = (i + 0.5) * 4
                pixel_x = width - pixel_x if v == 1 else pixel_x
                point = (j + 0.5) * 4 * size[0] / height / 4, pixel_x * size[1] / width / 4
                back[:, j, i] = bilinear(protos[0].double().numpy(), *point)
        maps.append(torch.from_numpy(back).float())
    torch.testing.assert_close(decoded[0], torch.cat(rows), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(prototypes[0], torch.cat(maps), rtol=1e-4, atol=1e-4)
    plain = model(x)
    first = slice(0, 3 * (8 * 16 + 4 * 8))
    torch.testing.assert_close(masks_of(decoded, prototypes)[:, first], masks_of(*plain[:2])[:, first])


def test_prototypes_come_back_to_where_they_were_seen() -> None:
    """A ramp over the image, as each view would see it: interpolation is exact for it."""
    height, width = 96, 160

    def ramp(h: int, w: int, seen: tuple[int, int], flip: bool) -> Tensor:
        y = (torch.arange(h) + 0.5) * 4 * height / seen[0]
        x = (torch.arange(w) + 0.5) * 4 * width / seen[1]
        x = width - x if flip else x
        return (0.3 * y[:, None] + 0.7 * x).expand(2, 1, h, w)

    views = [ramp(24, 40, (96, 160), False), ramp(24, 40, (79, 132), True), ramp(24, 32, (64, 107), False)]
    assert len(views) == len(VIEWS)
    for found in restore_prototypes(views, (height, width)):
        assert found.shape == (2, 1, 24, 40)
        torch.testing.assert_close(found[..., 1:-1, 1:-1], views[0][..., 1:-1, 1:-1], rtol=1e-5, atol=1e-3)


@torch.no_grad()
def test_ensemble_keeps_every_mask() -> None:
    models = [make(seed=1), make(LIGHT, seed=2)]
    x = torch.rand(2, 3, 64, 64)
    ensemble = Ensemble(models)
    decoded, prototypes, raw = ensemble(x)
    assert (decoded.shape, prototypes.shape, raw, ensemble.task) == ((2, 504, 9 + 64), (2, 64, 16, 16), None, "segment")
    alone = [model(x)[:2] for model in models]
    assert torch.equal(decoded[..., :9], torch.cat([y[..., :9] for y, _ in alone], 1))
    torch.testing.assert_close(masks_of(decoded, prototypes), torch.cat([masks_of(*y) for y in alone], 1))
    augmented = ensemble(x, augment=True)
    assert augmented[1].shape == (2, 2 * 96, 16, 16)
    torch.testing.assert_close(
        masks_of(augmented[0], augmented[1]),
        torch.cat([masks_of(*model(x, augment=True)[:2]) for model in models], 1),
    )


def test_joined_prototypes_take_the_size_of_the_first() -> None:
    ramps = [((torch.arange(n) + 0.5) / n).expand(1, 1, n, n) for n in (4, 8)]
    rows = [torch.full((1, 2, 6), value) for value in (1.0, 2.0)]
    decoded, prototypes = join_masked(rows, ramps)
    assert decoded[0].tolist() == [[1.0] * 5 + [1.0, 0.0]] * 2 + [[2.0] * 5 + [0.0, 2.0]] * 2
    torch.testing.assert_close(prototypes[:, :1, :, 1:-1], prototypes[:, 1:, :, 1:-1])


# Mistakes ------------------------------------------------------------------------------------------------------------

YAML = (Path(__file__).parents[2] / "models" / "segment" / "yolov5-seg.yaml").read_text()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("nc", r"takes \[nc, anchors, number of prototypes, number of channels before them\]"),
        ("nc, anchors, 32, 256, LightProto", r"takes \[nc, anchors, number of prototypes"),
        ("nc, anchors, 0, 256", "the number of prototypes must be a positive whole number, not 0"),
        ("nc, anchors, 32, wide", "the number of channels before the prototypes must be .*, not 'wide'"),
        ("nc, anchors, 32, 256, { proto: LightProte }", "unknown prototype block 'LightProte'.*'LightProto'"),
        ("nc, anchors, 32, 256, { protos: Proto }", "unexpected keyword argument 'protos'"),
    ],
)
def test_mistakes_in_the_head_name_their_line(args: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "net.yaml"
    path.write_text(YAML.replace("nc, anchors, 32, 256", args))
    with pytest.raises(UserError, match=message) as error:
        SegmentationModel(path)
    assert str(error.value).startswith(f"{path}:{len(YAML.splitlines())}: row 24, Segment from [17, 20, 23]")
    assert "\n" not in str(error.value)


def test_networks_of_the_other_task() -> None:
    message = (
        r"yolov5\.yaml:\d+: row 24, Detect .*: a head for the task 'detect', in a network for 'segment'; give another "
        "--cfg, or use the commands for 'detect'"
    )
    with pytest.raises(UserError, match=message):
        SegmentationModel("yolov5n.yaml")
    with pytest.raises(UserError, match="a head for the task 'segment', in a network for 'detect'"):
        DetectionModel("yolov5n-seg.yaml")


def test_the_class_follows_the_head() -> None:
    assert type(model_of("yolov5n-seg.yaml")) is SegmentationModel
    assert type(model_of("yolov5n.yaml")) is DetectionModel
    with pytest.raises(UserError, match="unknown module 'Segmant'"):
        cfg = load_cfg("yolov5n-seg.yaml")
        cfg["head"][-1][2] = "Segmant"
        model_of(cfg)
