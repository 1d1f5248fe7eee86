"""The printed table and totals, as the issue of the project states them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from models.configs import known_cfgs
from models.inspection.command import inspect_network
from models.inspection.summary import layer_table, network_name, summary_line
from models.yolo import DetectionModel, main
from utils.files import ROOT


def test_command_prints_table_and_totals(golden: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-X", "importtime", str(ROOT / "models" / "yolo.py"), "--cfg", "yolov5_MobileNetv2.yaml"]
    run = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert run.returncode == 0, run.stderr
    loaded = [line.split("|")[-1].strip() for line in run.stderr.splitlines()]
    assert "models.parser" in loaded
    assert "models.yolo" not in loaded  # the script is that module, and does not import itself
    assert all(line.startswith("import time:") for line in run.stderr.splitlines()), run.stderr
    lines = run.stdout.splitlines()
    assert lines[0].split() == ["from", "n", "params", "module", "arguments"]
    assert lines[-1] == "yolov5_MobileNetv2 summary: 347 layers, 5662397 parameters, 11.5 GFLOPs"
    assert [int(line[:3]) for line in lines[1:-1]] == list(range(29))
    figures = json.loads((golden / "models.json").read_text())["yolov5_MobileNetv2.yaml"]["layer_params"]
    assert [int(line[24:34]) for line in lines[1:-1]] == figures
    assert lines[1] == "  0                -1  1       928  models.common.Conv                      [3, 32, 3, 2]"
    assert lines[8] == "  7                -1  3    162816  models.common.MobileNetV2_Block         [64, 64, 1, 6]"
    assert "models.yolo.Detect" in lines[29]


def test_operations_scale_with_the_area() -> None:
    model = DetectionModel("yolov5n_MobileNetv2.yaml")
    line = summary_line(model, "net", (320, 640))
    full = summary_line(model, "net")
    assert float(line.split()[-2]) == pytest.approx(float(full.split()[-2]) / 2, abs=0.1)


def test_operations_of_one_convolution_by_hand() -> None:
    from torch import nn

    from utils.model_info import count_gflops

    conv = nn.Conv2d(3, 16, 3, padding=1, bias=False)
    assert count_gflops(conv, 640) == pytest.approx(2 * 640 * 640 * 16 * 3 * 9 / 1e9)


def test_counting_leaves_the_model_alone() -> None:
    model = DetectionModel("yolov5n_MobileNetv2.yaml")
    keys, mode = list(model.state_dict()), model.training
    summary_line(model, "net")
    assert list(model.state_dict()) == keys
    assert model.training is mode
    assert not any("total_ops" in name for name, _ in model.named_buffers())


def test_table_has_a_line_a_row() -> None:
    model = DetectionModel("yolov5n.yaml")
    assert len(layer_table(model.model).splitlines()) == 1 + 25


@pytest.mark.parametrize(("cfg", "name"), [("a/yolov5s.yaml", "yolov5s"), (Path("x.yaml"), "x"), ({}, "network")])
def test_names(cfg: object, name: str) -> None:
    assert network_name(cfg) == name


def test_profiles(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--cfg", "yolov5n_MobileNetv2.yaml", "--imgsz", "64", "--device", "cpu", "--profile", "--line-profile"]
    assert main(flags) == 0
    out = capsys.readouterr().out
    assert "forward (ms)" in out
    assert "(1, 3, 64, 64)" in out
    assert "total" in out


def test_all_networks_are_built_and_failures_counted(capsys: pytest.CaptureFixture[str]) -> None:
    from utils.errors import UserError

    built = []

    class Stub:
        def info(self) -> None:
            pass

    def build(name: str) -> Stub:
        built.append(name)
        if name == "yolov5s.yaml":
            raise UserError("broken")
        return Stub()

    assert inspect_network(build, ["--test"]) == 1
    assert built == known_cfgs()
    assert "yolov5s.yaml: broken" in capsys.readouterr().err
