from __future__ import annotations

import pytest

from utils.errors import UserError
from utils.files import ROOT
from utils.hyp import RANGES, load_hyp
from utils.yamls import load_yaml

PUBLISHED = {  # where the published files differ from scratch-low
    "scratch-low": {},
    "scratch-med": {"lrf": 0.1, "cls": 0.3, "obj": 0.7, "scale": 0.9, "mixup": 0.1},
    "scratch-high": {"lrf": 0.1, "cls": 0.3, "obj": 0.7, "scale": 0.9, "mixup": 0.1, "copy_paste": 0.1},
    "no-augmentation": {
        "lrf": 0.1, "cls": 0.3, "obj": 0.7, "hsv_h": 0, "hsv_s": 0, "hsv_v": 0, "translate": 0, "scale": 0,
        "fliplr": 0, "mosaic": 0,
    },
}  # fmt: skip
LOW = {
    "lr0": 0.01, "lrf": 0.01, "momentum": 0.937, "weight_decay": 0.0005, "warmup_epochs": 3.0, "warmup_momentum": 0.8,
    "warmup_bias_lr": 0.1, "box": 0.05, "cls": 0.5, "cls_pw": 1.0, "obj": 1.0, "obj_pw": 1.0, "iou_t": 0.2,
    "anchor_t": 4.0, "fl_gamma": 0.0, "hsv_h": 0.015, "hsv_s": 0.7, "hsv_v": 0.4, "degrees": 0.0, "translate": 0.1,
    "scale": 0.5, "shear": 0.0, "perspective": 0.0, "flipud": 0.0, "fliplr": 0.5, "mosaic": 1.0, "mixup": 0.0,
    "copy_paste": 0.0,
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_files_hold_the_published_values(name):
    assert load_yaml(ROOT / f"data/hyps/hyp.{name}.yaml") == {**LOW, **PUBLISHED[name]}


def test_every_shipped_file_loads_by_its_bare_name():
    files = sorted((ROOT / "data/hyps").glob("*.yaml"))
    assert {f.name for f in files} >= {"hyp.shapes.yaml", "hyp.scratch-low.yaml"}
    for file in files:
        assert load_hyp(file.name).keys() >= LOW.keys()


def test_missing_keys_take_the_defaults_of_scratch_low():
    assert load_hyp(None) == {**LOW, "label_smoothing": 0.0, "nbs": 64}
    assert load_hyp({"lr0": 0.02}) == {**LOW, "label_smoothing": 0.0, "nbs": 64, "lr0": 0.02}


def test_an_optional_key_is_kept_only_when_given():
    assert "anchors" not in load_hyp(None)
    assert load_hyp({"anchors": 3})["anchors"] == 3


def test_an_unknown_key_names_line_and_neighbour(tmp_path):
    file = tmp_path / "h.yaml"
    file.write_text("lr0: 0.01\nmosiac: 1.0\n")
    with pytest.raises(UserError, match=r"h\.yaml:2: unknown hyper-parameter 'mosiac' \(did you mean 'mosaic'\?\)"):
        load_hyp(file)


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("mosaic", 1.5, r"mosaic is 1\.5, but must be in 0\.\.1"),
        ("lr0", 0, "lr0 is 0, but must be above 0"),
        ("lr0", -0.1, "must be above 0"),
        ("degrees", 200, r"in 0\.\.180"),
        ("anchor_t", 0.5, "1 or more"),
        ("box", "much", "box must be a number, not 'much'"),
        ("box", float("nan"), "must be a number"),
        ("fliplr", True, "must be a number, not True"),
        ("fliplr", None, "must be a number, not None"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused(key, value, text):
    with pytest.raises(UserError, match=text):
        load_hyp({key: value})


def test_exponent_without_a_dot_is_a_number(tmp_path):
    file = tmp_path / "h.yaml"
    file.write_text("lr0: 1e-3\n")  # YAML 1.1 takes this for text
    assert load_hyp(file)["lr0"] == 0.001


def test_a_missing_file_names_the_nearest(tmp_path):
    with pytest.raises(UserError, match=r"did you mean 'hyp\.scratch-low\.yaml'"):
        load_hyp("hyp.scratch-lo.yaml")


def test_defaults_lie_in_their_ranges():
    for name, allowed in RANGES.items():
        assert allowed.default is None or allowed.holds(allowed.default), name
