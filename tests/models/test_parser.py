"""From rows to modules: channels, repeats, arguments, and errors that name the row."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import nn

from models import registry
from models.activations import ReLU6
from models.common import CBAM
from models.configs import load_cfg
from models.parser import BuiltRow, absolute_sources, output_shapes, parse_model, read_rows
from models.registry import RowContext, find_block, register
from models.yolo import DetectionModel
from utils.errors import UserError
from utils.files import ROOT


def network(*rows: Any, **keys: Any) -> dict[str, Any]:
    """A description whose head is the last row."""
    *backbone, head = rows
    return {"nc": 3, "anchors": 2, "backbone": backbone, "head": [head], **keys}


def built(layer: nn.Module) -> BuiltRow:
    """What the parser noted on `layer`."""
    return cast(BuiltRow, layer.built)


DETECT = [[-1], 1, "Detect", ["nc", "anchors"]]


def test_widths_and_depths() -> None:
    layers, _ = parse_model(
        network([-1, 1, "Conv", [64, 3, 2]], [-1, 6, "C3", [100]], DETECT, depth_multiple=0.33, width_multiple=0.25), 3
    )
    first, second = (built(layer) for layer in list(layers)[:2])
    assert first.args == [3, 16, 3, 2]
    assert second.args == [16, 32, 2]  # 25 → 32; 6 × 0.33 → 2 bottlenecks
    assert second.copies == 2
    assert len(layers[1].m) == 2  # type: ignore[arg-type]


def test_a_convolution_that_writes_predictions_is_not_scaled() -> None:
    rows = [[-1, 1, "Conv", [17]], [-1, 1, "Conv", [16]]]  # 16 = 2 anchors × (3 classes + 5)
    layers, _ = parse_model(network(*rows, DETECT, width_multiple=0.25), 3)
    assert [built(layer).args[1] for layer in list(layers)[:2]] == [8, 16]


def test_repeats_chain_their_channels() -> None:
    layers, _ = parse_model(network([-1, 3, "MobileNetV2_Block", [16, 1, 6]], DETECT), 8)
    assert isinstance(layers[0], nn.Sequential)
    assert len(layers[0]) == 3
    assert layers[0](torch.zeros(1, 8, 4, 4)).shape == (1, 16, 4, 4)
    assert [block.add for block in layers[0]] == [False, True, True]  # type: ignore[union-attr]


def test_rows_know_their_place() -> None:
    layers, save = parse_model(load_cfg("yolov5n.yaml"), [3])
    assert save == [4, 6, 10, 14, 17, 20, 23]
    assert [layer.i for layer in layers] == list(range(25))
    assert layers[12].f == [-1, 6]
    assert layers[9].type == "models.common.SPPF"
    assert layers[11].type == "torch.nn.modules.upsampling.Upsample"
    assert layers[24].type == "models.yolo.Detect"
    assert sum(layer.np for layer in layers) == sum(p.numel() for p in layers.parameters())  # type: ignore[misc]


def test_channel_rules() -> None:
    rows = [
        [-1, 1, "Conv", [16, 3, 2]],
        [-1, 1, "Contract", [2]],  # 64
        [-1, 1, "Expand", [2]],  # 16
        [[-1, 0], 1, "Concat", [1]],  # 32
        [-1, 1, "nn.BatchNorm2d", []],
        [-1, 1, "nn.MaxPool2d", [2]],
        [-1, 1, "nn.ConvTranspose2d", [24, 2, 2]],
        [-1, 1, "DWConvTranspose2d", [24, 2, 2]],
        [-1, 1, "RepVGGBlock", [32, 3, 2]],
        [-1, 1, "conv_bn_relu_maxpool", [16]],
        [-1, 1, "Focus", [16]],
        [-3, 1, "Conv", [8]],
    ]
    layers, save = parse_model(network(*rows, DETECT), 3)
    shapes = [tuple(shape[1:]) for shape in output_shapes(layers, 3, 64)]
    assert shapes == [
        (16, 32, 32), (64, 16, 16), (16, 32, 32), (32, 32, 32), (32, 32, 32), (32, 16, 16), (24, 32, 32),
        (24, 64, 64), (32, 32, 32), (16, 8, 8), (16, 4, 4), (8, 32, 32),
    ]  # fmt: skip
    assert save == [0, 8]


def test_arguments_are_literals_names_or_words() -> None:
    d = network([-1, 1, "Conv", ["8", "(1, 3)", "None", "True", "nc", "SiLU", ["1", "x"]]], DETECT)
    row = read_rows(d)[0]
    assert row.args == [8, (1, 3), None, True, 3, "SiLU", [1, "x"]]
    row = read_rows(network([-1, 1, "Conv", ["__import__('os')", "nc * 2"]], DETECT))[0]
    assert row.args == ["__import__('os')", "nc * 2"]  # left as text: nothing is evaluated


def test_arguments_by_name() -> None:
    rows = [[-1, 3, "RepVGGBlock", [32, 3, 2, {"use_cbam": "True"}]], [-1, 1, "SPPF", [32, {"k": 3}]]]
    layers, _ = parse_model(network(*rows, DETECT, width_multiple=0.5), 3)
    blocks: Any = layers[0]
    assert [type(block.se) for block in blocks] == [CBAM] * 3
    assert built(layers[0]).args == [3, 16, 3, 2, {"use_cbam": True}]
    assert layers[1].m.kernel_size == 3  # type: ignore[union-attr]
    for named, message in (
        ({"use_sbam": True}, r"row 0, RepVGGBlock from -1 with arguments \[16, {'use_sbam': True}\]: .*'use_sbam'"),
        ({3: True}, r"row 0: named arguments must be a mapping of names to values, not {3: True}"),
    ):
        with pytest.raises(UserError, match=message):
            parse_model(network([-1, 1, "RepVGGBlock", [16, named]], DETECT), 3)


def test_attention_rows_take_a_reduction() -> None:
    rows = [[-1, 1, "SEBlock", []], [-1, 1, "CBAM", [4, 3]], [-1, 1, "SEBlock", [64]]]
    layers, _ = parse_model(network(*rows, DETECT), 32)
    assert [built(layer).args for layer in list(layers)[:3]] == [[32, 2], [32, 8, 3], [32, 1]]
    for wrong in (0, 0.5, True):
        with pytest.raises(UserError, match="row 0, SEBlock .*how many times fewer inner channels there are, not"):
            parse_model(network([-1, 1, "SEBlock", [wrong]], DETECT), 32)


def test_no_evaluation_in_the_package() -> None:
    for file in (ROOT / "models").rglob("*.py"):
        calls = [n.func for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.Call)]
        assert not {"eval", "exec"} & {f.id for f in calls if isinstance(f, ast.Name)}, file


def test_activation_of_a_network_is_its_own() -> None:
    rows = [[-1, 1, "Conv", [8]], [-1, 1, "C3", [8]], [-1, 1, "Conv", [8, 1, 1, None, 1, 1, "Hardswish"]]]
    for written in ("ReLU6", "nn.ReLU6()"):
        layers, _ = parse_model(network(*rows, DETECT, activation=written), 3)
        acts = [type(m) for m in layers.modules() if "activation" in type(m).__module__]
        assert acts == [ReLU6, nn.Hardswish]  # the default once: it is shared
    layers, _ = parse_model(network(*rows, DETECT), 3)
    assert isinstance(layers[0].act, nn.SiLU)


def test_dry_run_moves_no_statistic() -> None:
    layers, _ = parse_model(network([-1, 1, "Conv", [8, 3, 2]], DETECT), 3)
    before = {key: value.clone() for key, value in layers.state_dict().items()}
    output_shapes(layers, 3)
    assert layers.training
    assert all(torch.equal(value, before[key]) for key, value in layers.state_dict().items())


def test_sources() -> None:
    rows = read_rows(network([-1, 1, "Conv", [8]], [-1, 1, "Conv", [8]], [[-1, -2, 0], 1, "Concat", [1]], DETECT))
    assert [absolute_sources(row) for row in rows] == [[-1], [0], [1, 0, 0], [2]]


# Mistakes ------------------------------------------------------------------------------------------------------------

YAML = (ROOT / "models" / "yolov5.yaml").read_text()
DETECT_ROW = "[[17, 20, 23], 1, Detect, [nc, anchors]]"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("C3, [128]", "C33, [128]", r"row 2, C33 from -1 with arguments \[128\]: unknown module 'C33' .* 'C3'"),
        ("nn.Upsample", "nn.Upsampled", r"row 11, .*unknown module 'nn.Upsampled' \(did you mean 'nn.Upsample'"),
        ("SPPF, [1024, 5]", "os.system, [ls]", r"row 9, .*unknown module 'os.system'"),
        ("[[-1, 6], 1", "[[-1, 4], 1", r"row 12, Concat from \[-1, 4\] with arguments \[1\]: cannot take inputs of "
         r"shapes \[\(1, 512, 8, 8\), \(1, 256, 16, 16\)\] \(image 128\).*Sizes of tensors must match"),
        ("[[-1, 6], 1", "[[-1, 60], 1", r"row 12, .*'from' 60 names no earlier row"),
        ("[[-1, 6], 1", "[[-1, 12], 1", r"row 12, .*'from' 12 names no earlier row"),
        ("[[-1, 6], 1", "[[-1, -14], 1", r"row 12, .*'from' -14 names no earlier row"),
        ("[[-1, 6], 1", "[[-1, 6], 2", r"row 12, .*cannot be repeated"),
        ("[[-1, 6], 1", "[x, 1", r"row 12: 'from' must be a row number"),
        ("[-1, 3, C3, [128]]", "[[0, 1], 3, C3, [128]]", r"row 2, .*reads one row, not 2.*Concat"),
        ("[-1, 3, C3, [128]]", "[-1, 0, C3, [128]]", r"row 2: 'number' must be a whole number from 1 to 2000, not 0"),
        ("[-1, 3, C3, [128]]", "[-1, C3, [128]]", r"row 2: expected \[from, number, module, args\], found \[-1, 'C3'"),
        ("[-1, 3, C3, [128]]", "[-1, 3, C3, 128]", r"row 2: expected a module name and a list of arguments"),
        ("[-1, 3, C3, [128]]", "[-1, 3, C3, [wide]]", r"row 2, .*first argument must be the number of output channels"),
        ("[-1, 3, C3, [128]]", "[-1, 1, Expand, [3]]", r"row 2, .*128 channels are not divisible by gain² = 9"),
        ("[-1, 3, C3, [128]]", "[-1, 1, Conv, [128, 3, 1, None, 7]]", r"row 2, .*groups \(input channels \[128\]"),
        ("[-1, 3, C3, [128]]", "[-1, 1, Conv, [128, 3, 1, None, 1, 1, relu]]", r"row 2, .*unknown activation 'relu'"),
        ("SPPF, [1024, 5]", "SPPF, [1024, 5, 6, 7]", r"row 9, .*positional arguments"),
        ("SPPF, [1024, 5]", "Conv, [1024, 9, 1, 0]", r"row 9, .*shapes \[\(1, 1024, 4, 4\)\].*[Kk]ernel size"),
        ("  - [116, 90, 156, 198, 373, 326] # P5/32\n", "", r"row 24, .*anchors for 2 levels, but the head reads 3"),
        (DETECT_ROW, "[[17, 20, 23], 1, Detect, [ncc, anchors]]", r"row 24, .*classes must be .* not 'ncc'"),
        (DETECT_ROW, "[-1, 1, Conv, [16]]", r"row 24, .*the last row must be a detection head"),
    ],
)  # fmt: skip
def test_mistakes_name_file_line_and_row(old: str, new: str, message: str, tmp_path: Path) -> None:
    assert old in YAML
    text = YAML.replace(old, new, 1)
    (tmp_path / "net.yaml").write_text(text)
    changed = next(i for i, (a, b) in enumerate(zip(YAML.splitlines(), text.splitlines(), strict=False), 1) if a != b)
    with pytest.raises(UserError, match=message) as error:
        DetectionModel(tmp_path / "net.yaml")
    line = changed if new else len(text.splitlines())  # with a line of anchors gone, it is the head that complains
    assert str(error.value).startswith(f"{tmp_path / 'net.yaml'}:{line}: row ")


def test_mistakes_in_a_dict_name_the_row() -> None:
    with pytest.raises(UserError, match=r"^row 1, Nothing from -1 with arguments \[\]: unknown module"):
        DetectionModel(network([-1, 1, "Conv", [8]], [-1, 1, "Nothing", []], DETECT))
    with pytest.raises(UserError, match="a head reads a list of rows"):
        DetectionModel(
            {**network([-1, 1, "Conv", [8, 3, 2]], [0, 1, "Detect", ["nc", "anchors"]]), "anchors": [[1, 2]]}
        )


# Registry ------------------------------------------------------------------------------------------------------------


def test_a_block_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "BLOCKS", dict(registry.BLOCKS))

    class Twice(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * x

    register("Twice", Twice, registry.same)
    layers, _ = parse_model(network([-1, 1, "Twice", []], DETECT), 3)
    assert torch.equal(layers[0](torch.ones(1)), torch.full((1,), 2.0))
    with pytest.raises(UserError, match=r"'Conv' is registered already, as models\.common\.Conv"):
        register("Conv", Twice)


def test_rules_without_a_network() -> None:
    context = RowContext([8], 2, lambda c: c * 2)
    plan = find_block("Conv").rule([16, 3], context)
    assert (plan.args, plan.channels, plan.copies) == ([8, 32, 3], 32, 2)
    plan = find_block("C3").rule([16, False], context)
    assert (plan.args, plan.channels, plan.copies) == ([8, 32, 2, False], 32, 1)
