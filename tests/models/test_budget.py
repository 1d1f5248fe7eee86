"""Descriptions of networks that ask for too much, or are hostile: one line that names the row, and no memory."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from models import registry
from models.activations import make_activation
from models.budget import MOST_BLOCKS
from models.parser import output_shapes, parse_model, row_of
from models.registry import register
from models.yolo import DetectionModel, main, model_of
from utils.cli import run_command
from utils.errors import UserError
from utils.yamls import read_literal

STEM = [-1, 1, "Conv", [8, 3, 2]]
DETECT = [[-1], 1, "Detect", ["nc", "anchors"]]


def network(*rows: Any, **keys: Any) -> dict[str, Any]:
    """A description whose head is the last row."""
    *backbone, head = rows
    return {"nc": 3, "anchors": 2, "backbone": backbone, "head": [head], **keys}


DIGITS = 10**3000
BIG = {
    # numbers for the whole network
    "depth_multiple must be a positive number up to 100, not 1e+300": network(STEM, DETECT, depth_multiple=1e300),
    "depth_multiple must be a positive number up to 100, not inf": network(STEM, DETECT, depth_multiple=float("inf")),
    "depth_multiple must be a positive number up to 100, not nan": network(STEM, DETECT, depth_multiple=float("nan")),
    "width_multiple must be a positive number up to 100, not 1e+300": network(STEM, DETECT, width_multiple=1e300),
    "width_multiple must be a positive number up to 100, not inf": network(STEM, DETECT, width_multiple=float("inf")),
    "width_multiple must be a positive number up to 100, not 10000": network(STEM, DETECT, width_multiple=DIGITS),
    "nc must be a positive whole number up to 100000, not 1000000000": network(STEM, DETECT, nc=10**9),
    "nc must be a positive whole number up to 100000, not True": network(STEM, DETECT, nc=True),
    "ch must be a positive whole number up to 10000, not 1000000000": network(STEM, DETECT, ch=10**9),
    "anchors must be a number of anchors up to 100, ": network(STEM, DETECT, anchors=10**9),
    "anchors must be a number of anchors up to 100": network(STEM, DETECT, anchors=[[10, float("inf")]]),
    "anchors must be a number of anchors up": network(STEM, DETECT, anchors=[[10, float("nan")]]),
    "anchors must be a number of anchors": network(STEM, DETECT, anchors=[[10, 1e30]]),
    "anchors must be a number of": network(STEM, DETECT, anchors=[[1.0] * 300]),
    "inplace must be True or False": network(STEM, DETECT, inplace=["x"] * 10_000),
    # rows
    "10001 rows, but at most 2000 blocks are built": network(*[STEM] * 10_000, DETECT),
    "row 0: 'number' must be a whole number from 1 to 2000, not 1000000000": network([-1, 10**9, "Conv", [8]], DETECT),
    "row 0: 'number' must be a whole number from 1 to 2000, not 100000": network([-1, 100_000, "C3", [8]], DETECT),
    "row 2, C3 from -1 with arguments [8]: 2002 blocks up to here, but networks of up to 2000": network(
        STEM, [-1, 10, "C3", [8]], [-1, 1991, "C3", [8]], DETECT
    ),
    "row 1, C3 from -1 with arguments [8]: 50001 blocks up to here": network(
        STEM, [-1, 500, "C3", [8]], DETECT, depth_multiple=100
    ),
    "row 0, Conv from -1 with arguments [1000000000, 3, 2]: the weights up to here take 100 GiB": network(
        [-1, 1, "Conv", [10**9, 3, 2]], DETECT
    ),
    "row 1, Conv from -1 with arguments [8, 100001]: the weights up to here take 2.3 TiB": network(
        STEM, [-1, 1, "Conv", [8, 100_001]], DETECT
    ),
    "the weights up to here take 95923 PiB": network([-1, 1, "Conv", [10**18, 3, 2]], DETECT),
    "row 1, C3TR from -1 with arguments [40000]: the weights": network(STEM, [-1, 1, "C3TR", [40_000]], DETECT),
    "row 1, Contract from -1 with arguments [2.5]: ": network(STEM, [-1, 1, "Contract", [2.5]], STEM, DETECT),
    "row 1, Contract from -1 with arguments [0]: ": network(STEM, [-1, 1, "Contract", [0]], STEM, DETECT),
    "row 1, SPPF from -1 with arguments [8, 'x']: ": network(STEM, [-1, 1, "SPPF", [8, "x"]], DETECT),
    "row 1, Bottleneck from -1 with arguments [8, True, 1, inf]: ": network(
        STEM, [-1, 1, "Bottleneck", [8, True, 1, float("inf")]], DETECT
    ),
    "row 1, nn.Upsample from -1 with arguments [None, 300, 'nearest']: its output (1, 8, 19200, 19200)": network(
        STEM, [-1, 1, "nn.Upsample", ["None", 300, "nearest"]], DETECT
    ),
    "row 1, nn.Upsample from -1 with arguments [[4000, 4000], None, 'nearest']: its output": network(
        STEM, [-1, 1, "nn.Upsample", [[4000, 4000], None, "nearest"]], DETECT
    ),
    "row 1, nn.Upsample from -1 with arguments [[1000000000, 1000000000], None, 'nearest']: cannot take": network(
        STEM, [-1, 1, "nn.Upsample", [[10**9, 10**9], None, "nearest"]], DETECT
    ),
    "row 1, Conv from -1 with arguments [8, 3, 1, 30000]: its output (1, 8, 60062, 60062)": network(
        STEM, [-1, 1, "Conv", [8, 3, 1, 30_000]], DETECT
    ),
    "row 1, DWConvTranspose2d from -1 with arguments [8, 3, 500]: its output": network(
        STEM, [-1, 1, "DWConvTranspose2d", [8, 3, 500]], DETECT
    ),
    "row 0, Conv from -1 with arguments [30000, 1, 1]: its output (1, 30000, 128, 128) for one image of 128 × 128 "
    "takes 1.8 GiB, at most 128 MiB is allowed": network([-1, 1, "Conv", [30_000, 1, 1]], DETECT),
    "it reads maps that are larger than the image, at strides [0.5]": network(
        STEM, [-1, 1, "nn.Upsample", ["None", 4, "nearest"]], DETECT
    ),
    # heads
    "row 1, Detect from [-1] with arguments [3, 2]: a head must be the last row": network(STEM, DETECT, DETECT),
    "row 1, Detect from [-1] with arguments [3, 2]: a head must be the": network(STEM, DETECT, STEM, DETECT),
    "row 1, Detect from [-1] with arguments [1000000000, 2]: the weights": network(
        STEM, [[-1], 1, "Detect", [10**9, "anchors"]]
    ),
    "row 1, Detect from [-1] with arguments [3, 1000000000]: a level has 1 to 100 anchors": network(
        STEM, [[-1], 1, "Detect", ["nc", 10**9]]
    ),
    "row 1, Segment from [-1] with arguments [3, 2, 1000000000, 8]: the weights": network(
        STEM, [[-1], 1, "Segment", ["nc", "anchors", 10**9, 8]]
    ),
    "row 1, Conv from -1 with arguments [8]: the last row must be a detection": network(STEM, [-1, 1, "Conv", [8]]),
    # what is written badly
    "row 1: expected [from, number, module, args], found [[[[[[[": network(STEM, [[[[[[[[[[1]]]]]]]]]], DETECT),
    "row 1: 'from' must be a row number or a list of them, not []": network(STEM, [[], 1, "Concat", [1]], DETECT),
    "row 1: 'from' must be a row number or a list of them, not [N": network(STEM, [[None], 1, "Concat", []], DETECT),
    "row 1: expected a module name and a list of arguments, found 7, [8]": network(STEM, [-1, 1, 7, [8]], DETECT),
    "row 1, Conv from -1 with arguments ['(((": network(STEM, [-1, 1, "Conv", ["(" * 100]], DETECT),
    "row 1, Conv from 1000000000 with arguments [8]: 'from' 1000000000 names no earlier row": network(
        STEM, [10**9, 1, "Conv", [8]], DETECT
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _little_memory() -> Any:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kilobytes


@pytest.mark.parametrize("told", BIG)
def test_a_network_that_asks_for_too_much(told: str) -> None:
    with pytest.raises(UserError) as caught:
        model_of(BIG[told])
    message = str(caught.value)
    assert told in message
    assert message.isprintable()
    assert len(message) < 600


@pytest.mark.parametrize("text", ["1+" * 5000 + "1", "(" * 5000, "[" * 190, "-" * 190 + "1", "9" * 5000, "é" * 1000])
def test_texts_that_look_like_literals_stay_texts(text: str) -> None:
    with pytest.raises(ValueError, match=r"too many for one value|is no expression|malformed node"):
        if read_literal(text) == -1 or read_literal(text) == 1:  # a hundred signs before a number are one
            raise ValueError("is no expression")
    layers, _ = parse_model(network([-1, 1, "nn.Upsample", [None, 2, "nearest"]], STEM, DETECT), 3)
    assert row_of(layers[0]).args == [None, 2, "nearest"]
    with pytest.raises(UserError, match="row 0, Conv from -1"):
        parse_model(network([-1, 1, "Conv", [8, text]], DETECT), 3)


@pytest.mark.parametrize(
    "text", ["nn." * 5000, "ReLU(" * 200, "(" * 5000, "Hardtanh(1, -1)", "LeakyReLU(" + "1+" * 5000 + "1)", "\0", ""]
)
def test_activations_that_are_none(text: str) -> None:
    with pytest.raises(UserError) as caught:
        make_activation(text)
    assert len(str(caught.value)) < 600


def test_a_yaml_that_asks_for_too_much_ends_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.yaml"
    for text, told in (
        ("width_multiple: .inf", "net.yaml:1: width_multiple must be a positive number up to 100, not inf"),
        ("depth_multiple: 1.0e+300", "net.yaml:1: depth_multiple must be a positive number up to 100, not 1e+300"),
        (
            "width_multiple: 99",
            "net.yaml:5: row 0, Conv from -1 with arguments [9999999, 3, 2]: the weights up to here",
        ),
        ("activation: " + "ReLU(" * 40, "net.yaml:1: activation"),
    ):
        rows = "nc: 2\nanchors: 3\nbackbone:\n  - [-1, 1, Conv, [9999999, 3, 2]]\nhead:\n"
        path.write_text(f"{text}\n{rows}  - [[0], 1, Detect, [nc, anchors]]\n")
        with pytest.raises(SystemExit) as stop:
            run_command(lambda: main(["--cfg", str(path)]))
        err = capsys.readouterr().err
        assert stop.value.code == 1
        assert told in err
        assert err.count("\n") == 1


# Good ones -----------------------------------------------------------------------------------------------------------


def test_the_largest_networks_that_make_sense_are_built() -> None:
    """As wide as yolov5x6 and a half more, with the classes of the largest data sets; nothing is drawn or run."""
    with torch.device("meta"):
        rows = [STEM, [-1, 24, "C3", [1536]], [-1, 1, "SPPF", [1536, 5]], [[-1], 1, "Detect", ["nc", "anchors"]]]
        layers, _ = parse_model({**network(*rows, nc=21_841), "anchors": 3}, 3)
    assert sum(p.numel() for p in layers.parameters()) > 150_000_000
    assert MOST_BLOCKS > 48


class NeedsAnImage(nn.Module):
    """A block of a user's own that cannot do with an empty batch."""

    def __init__(self, c1: int, c2: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c1, c2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scaled by the first image's largest value."""
        return self.conv(x) / x[0].max().clamp(min=1).item()


def test_blocks_that_need_an_image_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "BLOCKS", dict(registry.BLOCKS))
    register("NeedsAnImage", NeedsAnImage)
    model = DetectionModel(network(STEM, [-1, 1, "NeedsAnImage", [16]], DETECT))
    assert [tuple(s) for s in output_shapes(model.model, 3)] == [(1, 8, 64, 64), (1, 16, 64, 64)]
