"""The head's arithmetic, the models of the reference, and what a model must survive."""

from __future__ import annotations

import copy
import io
import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from models.yolo import Detect, DetectionModel, Model, model_of
from utils.errors import UserError

ANCHORS = [[10, 13, 16, 30, 33, 23], [30, 61, 62, 45, 59, 119]]
GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "golden" / "models.json").read_text())


def head(nc: int = 3, extra: int = 0, stride: tuple[float, ...] = (8.0, 16.0)) -> Detect:
    torch.manual_seed(0)
    detect = Detect(nc, ANCHORS, (4, 6), extra=extra)
    detect.set_stride(torch.tensor(stride))
    return detect.eval()


def maps(batch: int = 2) -> list[Tensor]:
    torch.manual_seed(1)
    return [torch.randn(batch, 4, 4, 6), torch.randn(batch, 6, 2, 3)]


@pytest.fixture
def model() -> DetectionModel:
    torch.manual_seed(0)
    model = DetectionModel("yolov5n.yaml", nc=4)
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.uniform_(m.weight, 0.8, 1.2)
            nn.init.normal_(m.bias, std=0.1)
            assert m.running_var is not None
            m.running_var.uniform_(0.1, 0.3)
    return model.eval()


# Head ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extra", [0, 5])
def test_decoding_cell_by_cell(extra: int) -> None:
    detect = head(extra=extra)
    with torch.no_grad():
        decoded, raw = detect(maps())
    rows = []
    for level, (y, stride) in enumerate(zip(raw, (8, 16), strict=True)):
        _, na, ny, nx, no = y.shape
        for a in range(na):
            w, h = ANCHORS[level][2 * a : 2 * a + 2]
            for j in range(ny):
                for i in range(nx):
                    p = y[1, a, j, i].double()
                    s = 1 / (1 + (-p).exp())
                    box = [
                        (2 * s[0] - 0.5 + i) * stride,
                        (2 * s[1] - 0.5 + j) * stride,
                        4 * s[2] ** 2 * w,
                        4 * s[3] ** 2 * h,
                    ]
                    rows.append(torch.cat((torch.stack(box), s[4 : no - extra], p[no - extra :])))
    assert decoded.shape == (2, 90, 8 + extra)
    torch.testing.assert_close(decoded[1], torch.stack(rows).float(), rtol=1e-5, atol=1e-5)


def test_raw_predictions_are_the_convolutions() -> None:
    detect, x = head().train(), maps()
    with torch.no_grad():
        raw = detect(x)
        for y, conv, features in zip(raw, detect.m, x, strict=True):
            flat = conv(features)
            for anchor in range(3):
                assert torch.equal(y[:, anchor].movedim(3, 1), flat[:, 8 * anchor : 8 * anchor + 8])


def test_decoding_leaves_the_raw_predictions_alone() -> None:
    detect = head()
    with torch.no_grad():
        _, raw = detect(maps())
        detect.train()
        for y, untouched in zip(raw, detect(maps()), strict=True):
            assert torch.equal(y, untouched)


def test_a_single_level_is_not_decoded_in_place() -> None:
    detect = Detect(2, [[10, 13]], (4,)).eval()
    detect.set_stride(torch.tensor([8.0]))
    x = [torch.randn(1, 4, 2, 2)]
    with torch.no_grad():
        assert torch.equal(detect(x)[1][0], detect.train()(x)[0])


def test_gradients_flow_through_decoded_predictions() -> None:
    detect = head(nc=2).double()
    x = [m.double().requires_grad_() for m in maps(1)]
    assert torch.autograd.gradcheck(lambda *levels: detect(list(levels))[0], x)


def test_gradients_after_inference_mode() -> None:
    detect, x = head(), maps()
    with torch.inference_mode():
        expected = detect(x)[0].clone()
    decoded = detect([m.requires_grad_() for m in x])[0]  # the cells kept from before must be ordinary tensors
    decoded.sum().backward()
    torch.testing.assert_close(decoded.detach(), torch.as_tensor(expected.tolist()))


def test_cells_follow_sizes_and_anchors() -> None:
    detect, x = head(), maps()
    with torch.no_grad():
        first = detect(x)[0]
        other = detect([m[..., :2, :2] for m in x])[0]
        assert other.shape[1] == 2 * 3 * 4
        torch.testing.assert_close(detect(x)[0], first)
        detect.anchors *= 2  # in place, as loading a state dict or auto-anchor does
        torch.testing.assert_close(detect(x)[0][..., 2:4], 2 * first[..., 2:4])


def test_half_precision_decodes_in_float32() -> None:
    detect = head()
    with torch.no_grad():
        expected = detect(maps())[0]
        assert detect.stride.dtype == torch.float32
        half = detect.to(torch.bfloat16)
        assert half.stride.dtype == torch.bfloat16
        decoded = half([m.bfloat16() for m in maps()])[0]
    assert decoded.dtype == torch.float32
    torch.testing.assert_close(decoded, expected, rtol=0.05, atol=0.5)


def test_channels_last_gives_the_same() -> None:
    detect, x = head(), maps()
    with torch.no_grad():
        expected = detect(x)
        got = detect([m.to(memory_format=torch.channels_last) for m in x])
    torch.testing.assert_close(got, expected)


def test_anchors_are_put_in_the_order_of_the_strides() -> None:
    detect = Detect(3, ANCHORS[::-1], (4, 6))
    detect.set_stride(torch.tensor([8.0, 16.0]))
    torch.testing.assert_close(detect.anchors, head().anchors)
    torch.testing.assert_close(detect.anchors[0], torch.tensor([[1.25, 1.625], [2.0, 3.75], [4.125, 2.875]]))
    assert torch.equal(head(stride=(16.0, 8.0)).anchors[0] * 16, torch.tensor(ANCHORS[1]).view(3, 2).float())


def test_biases_say_eight_objects_an_image() -> None:
    detect = head(nc=3)
    before = [conv.bias.detach().clone().view(3, 8) for conv in detect.m]  # type: ignore[operator, union-attr]
    detect.initialize_biases()
    for conv, bias, cells in zip(detect.m, before, (80**2, 40**2), strict=True):
        added = conv.bias.detach().view(3, 8) - bias  # type: ignore[operator, union-attr]
        torch.testing.assert_close(added[:, 4], torch.full((3,), math.log(8 / cells)))
        torch.testing.assert_close(added[:, 5:], torch.full((3, 3), math.log(0.6 / (3 - 0.99999))))
        assert added[:, :4].abs().max() == 0
    before = [conv.bias.detach().clone().view(3, 8) for conv in detect.m]  # type: ignore[operator, union-attr]
    detect.initialize_biases(torch.tensor([1.0, 1.0, 2.0]))
    added = detect.m[0].bias.detach().view(3, 8) - before[0]  # type: ignore[operator, union-attr]
    torch.testing.assert_close(added[0, 5:], torch.tensor([0.25, 0.25, 0.5]).log())


def test_counted_anchors_are_positive_placeholders() -> None:
    detect = Detect(3, 4, (8, 8))
    assert detect.anchors.shape == (2, 4, 2)
    assert detect.anchors.min() > 0


# Models --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GOLDEN)
def test_figures_of_the_reference(name: str) -> None:
    model, figures = model_of(name), GOLDEN[name]
    assert model.task == ("segment" if "-seg" in name else "detect")
    assert len(list(model.modules())) == figures["modules"]
    assert sum(p.numel() for p in model.parameters()) == figures["params"]
    assert [row.np for row in model.model] == figures["layer_params"]
    assert len(model.state_dict()) == figures["state_keys"]
    assert model.stride.tolist() == figures["strides"]


def test_published_state_dict_fits_key_by_key(shared_data: Path) -> None:
    from models.checkpoints.checkpoint import load_checkpoint

    published = load_checkpoint(shared_data / "weights" / "yolov5n.pt").state_dict
    ours = DetectionModel("yolov5n.yaml").state_dict()
    assert list(ours) == list(published)
    assert [v.shape for v in ours.values()] == [v.shape for v in published.values()]


def test_attributes() -> None:
    model = Model("yolov5n_MobileNetv2.yaml", nc=2)
    assert (model.nc, model.names, model.task) == (2, {0: "0", 1: "1"}, "detect")
    assert (model.yaml["nc"], model.yaml["ch"], model.head.nc) == (2, 3, 2)
    assert json.loads(json.dumps(model.yaml)) == model.yaml  # plain data
    rebuilt = DetectionModel(model.yaml)
    assert {k: v.shape for k, v in rebuilt.state_dict().items()} == {k: v.shape for k, v in model.state_dict().items()}
    bn = next(m for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    assert (bn.eps, bn.momentum) == (1e-3, 0.03)
    assert all(m.inplace for m in model.modules() if isinstance(m, (nn.SiLU, nn.ReLU6)))


def test_overrides(capsys: pytest.CaptureFixture[str]) -> None:
    model = DetectionModel("yolov5n.yaml", ch=1, nc=5, anchors=4)
    assert "nc=80 of the network's YAML overridden with nc=5" in capsys.readouterr().out
    assert model.head.anchors.shape == (3, 4, 2)
    assert [y.shape for y in model(torch.zeros(2, 1, 64, 96))] == [
        (2, 4, 8, 12, 10),
        (2, 4, 4, 6, 10),
        (2, 4, 2, 3, 10),
    ]
    anchors = [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]]
    model = DetectionModel("yolov5n.yaml", anchors=anchors)
    assert (model.head.anchors * model.stride.view(3, 1, 1)).flatten(1).tolist() == anchors
    with pytest.raises(UserError, match="nc must be a positive whole number up to 100000, not 0"):
        DetectionModel("yolov5n.yaml", nc=0)


@torch.no_grad()
def test_fused_model(model: DetectionModel) -> None:
    x = torch.rand(2, 3, 64, 96)
    expected = model(x)[0]
    assert expected[..., 4].std() > 1e-4  # it says something
    twin = copy.deepcopy(model)
    assert twin.fuse() is twin
    assert sum(isinstance(m, nn.BatchNorm2d) for m in twin.modules()) == 0
    state = copy.deepcopy(twin.state_dict())
    twin.fuse()
    assert all(torch.equal(v, state[k]) for k, v in twin.state_dict().items())
    torch.testing.assert_close(twin(x)[0], expected, rtol=1e-4, atol=1e-4)

    file = io.BytesIO()
    torch.save(copy.deepcopy(twin), file)
    file.seek(0)
    torch.testing.assert_close(torch.load(file, weights_only=False)(x)[0], expected, rtol=1e-4, atol=1e-4)
    assert any(isinstance(m, nn.BatchNorm2d) for m in model.modules())  # the original was left alone


@torch.no_grad()
@pytest.mark.filterwarnings("ignore")
def test_traced_model_follows_the_size(model: DetectionModel) -> None:
    x, other = torch.rand(1, 3, 64, 64), torch.rand(2, 3, 96, 64)
    expected, expected_other = model(x)[0], model(other)[0]
    traced = torch.jit.trace(model, (x,), strict=False)
    torch.testing.assert_close(traced(x)[0], expected)
    torch.testing.assert_close(traced(other)[0], expected_other)
    torch.testing.assert_close(model(x)[0], expected)  # tracing left nothing behind


@torch.no_grad()
def test_fake_tensors_leave_nothing_behind(model: DetectionModel) -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    x = torch.rand(1, 3, 64, 64)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        assert model(mode.from_tensor(x))[0].shape == (1, 252, 9)
    assert type(model(x)[0]) is Tensor


@torch.no_grad()
def test_exported_model(model: DetectionModel) -> None:
    x = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(torch.export.export(model, (x,)).module()(x)[0], model(x)[0])


@torch.no_grad()
def test_augmented_forward_joins_three_views(model: DetectionModel) -> None:
    x = torch.rand(1, 3, 64, 128)
    decoded, raw = model(x, augment=True)
    levels = [8 * 16, 4 * 8, 2 * 4]  # of the full view; 0.83 → 64 × 128 again, 0.67 → 64 × 96
    small = [8 * 12, 4 * 6, 2 * 3]
    assert raw is None
    assert decoded.shape[1] == 3 * (sum(levels[:2]) + sum(levels) + sum(small[1:]))
    plain = model(x)[0]
    torch.testing.assert_close(decoded[:, : 3 * sum(levels[:2])], plain[:, : 3 * sum(levels[:2])])


@torch.no_grad()
def test_profile_and_visualize(model: DetectionModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = torch.rand(1, 3, 64, 64)
    expected = model(x)[0]
    decoded = model(x, profile=True, visualize=tmp_path / "features")[0]
    torch.testing.assert_close(decoded, expected)
    out = capsys.readouterr().out
    assert "time (ms)" in out
    assert sum("models.common.C3" in line for line in out.splitlines() if "GFLOPs" not in line) == 8
    assert (tmp_path / "features" / "stage0_Conv_features.png").is_file()
    assert (tmp_path / "features" / "stage9_SPPF_features.npy").is_file()


def test_to_moves_everything(model: DetectionModel) -> None:
    model.to("meta")
    assert model.stride.is_meta
    assert model.head.anchors.is_meta
