"""Network YAMLs: names, scales, YOLOv5's own form, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.configs import find_cfg, known_cfgs, load_cfg
from utils.errors import UserError
from utils.files import ROOT

MINIMAL = "nc: 2\nanchors: 3\nbackbone:\n  - [-1, 1, Conv, [8]]\nhead:\n  - [[0], 1, Detect, [nc, anchors]]\n"


@pytest.mark.parametrize(
    ("name", "multiples"),
    [
        ("yolov5n.yaml", (0.33, 0.25)),
        ("yolov5s.yaml", (0.33, 0.50)),
        ("yolov5m.yaml", (0.67, 0.75)),
        ("yolov5l.yaml", (1.0, 1.0)),
        ("yolov5x.yaml", (1.33, 1.25)),
        ("yolov5.yaml", (1.0, 1.0)),
        ("yolov5_MobileNetv2.yaml", (1.0, 1.0)),
        ("yolov5n_MobileNetv2.yaml", (0.33, 0.25)),
        ("yolov5x_MobileNetv2.yaml", (1.33, 1.25)),
        ("yolov5s", (0.33, 0.50)),
        ("models/yolov5s.yaml", (0.33, 0.50)),
        (ROOT / "models" / "yolov5m.yaml", (0.67, 0.75)),
    ],
)
def test_names_and_their_scales(name: str | Path, multiples: tuple[float, float], monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)  # wherever the command is typed
    cfg = load_cfg(name)
    assert (cfg["depth_multiple"], cfg["width_multiple"]) == multiples
    assert "scales" not in cfg
    assert cfg["nc"] == 80


def test_a_file_of_that_name_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "yolov5s.yaml").write_text(MINIMAL.replace("nc: 2", "nc: 7\ndepth_multiple: 0.5"))
    monkeypatch.chdir(tmp_path)
    assert find_cfg("yolov5s.yaml") == (Path("yolov5s.yaml"), None)
    cfg = load_cfg("yolov5s.yaml")
    assert (cfg["nc"], cfg["depth_multiple"], cfg["width_multiple"]) == (7, 0.5, 1.0)


def test_a_family_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine2-light.yaml").write_text(MINIMAL + "scales: {n: [0.5, 0.25], s: [1, 0.5]}\n")
    assert load_cfg(tmp_path / "mine2s-light.yaml")["width_multiple"] == 0.5
    with pytest.raises(UserError, match=r"scale 'x' of .*mine2-light\.yaml, whose scales are: n, s"):
        load_cfg(tmp_path / "mine2x-light.yaml")


def test_a_dict_is_taken_and_left_alone() -> None:
    given = load_cfg("yolov5n.yaml")
    taken = load_cfg(given)
    assert taken == given
    taken["backbone"].clear()
    assert given["backbone"]


def test_all_known_names_load() -> None:
    names = known_cfgs()
    assert {"yolov5.yaml", "yolov5s.yaml", "yolov5_MobileNetv2.yaml", "yolov5x_MobileNetv2.yaml"} <= set(names)
    for name in names:
        assert load_cfg(name)["head"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("yolov5_MobilNetv2.yaml", "did you mean 'yolov5_MobileNetv2.yaml'"),
        ("yolov5n_MobilNetv2.yaml", "did you mean 'yolov5n_MobileNetv2.yaml'"),
        ("nowhere/yolov5s.yaml", "not found"),
        ("zzz", "not found, neither as a path nor below models/$"),
    ],
)
def test_what_is_not_found(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        find_cfg(name)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("nc: 2", "ncc: 2", r":1: unknown key 'ncc' \(did you mean 'nc'\?\)"),
        ("nc: 2\n", "", "key 'nc' is missing"),
        ("nc: 2", "nc: 0", ":1: nc must be a positive whole number up to 100000, not 0"),
        ("nc: 2", "nc: 2.5", ":1: nc must be"),
        ("nc: 2", "nc: true", ":1: nc must be"),
        ("nc: 2", "nc: 2\nch: -3", ":2: ch must be"),
        ("nc: 2", "nc: 2\nwidth_multiple: wide", ":2: width_multiple must be a positive number up to 100, not 'wide'"),
        ("nc: 2", "nc: 2\ndepth_multiple: 0", ":2: depth_multiple"),
        ("anchors: 3", "anchors: 0", ":2: anchors must be"),
        ("anchors: 3", "anchors: [[1, 2, 3]]", ":2: anchors must be"),
        ("anchors: 3", "anchors: [[1, 2], [1, 2, 3, 4]]", ":2: anchors must be"),
        ("anchors: 3", "anchors: [[1, -2]]", ":2: anchors must be"),
        ("nc: 2", "nc: 2\nactivation: RELU6", ":2: unknown activation 'RELU6'"),
        ("nc: 2", "nc: 2\ninplace: maybe", ":2: inplace must be True or False"),
        ("nc: 2", "nc: 2\nscales: {n: 0.5}", ":2: scales must map letters"),
        ("nc: 2", "nc: 2\nscales: [1]", ":2: scales must map letters"),
        ("  - [-1, 1, Conv, [8]]", "  {}", ":3: backbone must be a list of rows"),
    ],
)
def test_mistakes_name_their_line(old: str, new: str, message: str, tmp_path: Path) -> None:
    assert old in MINIMAL
    (tmp_path / "net.yaml").write_text(MINIMAL.replace(old, new))
    with pytest.raises(UserError, match=message):
        load_cfg(tmp_path / "net.yaml")


def test_mistakes_in_a_dict() -> None:
    with pytest.raises(UserError, match="network description: unknown key 'nx'"):
        load_cfg({"nx": 3})
