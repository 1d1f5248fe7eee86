from __future__ import annotations

import pytest

from utils.errors import UserError
from utils.files import ROOT
from utils.hyp import KEYS, Choice, load_hyp
from utils.losses.box import LOSSES, MEASURES
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
OURS = {"iou_loss": "ciou", "focal_iou": 0.0, "qfl": False, "label_smoothing": 0.0}  # not in the published files


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_files_hold_the_published_values(name):
    assert load_yaml(ROOT / f"data/hyps/hyp.{name}.yaml") == {**LOW, **PUBLISHED[name], **OURS}


def test_every_shipped_file_loads_by_its_bare_name():
    files = sorted((ROOT / "data/hyps").glob("*.yaml"))
    assert {f.name for f in files} >= {"hyp.shapes.yaml", "hyp.scratch-low.yaml"}
    for file in files:
        assert load_hyp(file.name).keys() >= LOW.keys()


def test_missing_keys_take_the_defaults_of_scratch_low():
    assert load_hyp(None) == {**LOW, **OURS, "nbs": 64}
    assert load_hyp({"lr0": 0.02}) == {**LOW, **OURS, "nbs": 64, "lr0": 0.02}


def test_an_optional_key_is_kept_only_when_given():
    assert "anchors" not in load_hyp(None)
    assert load_hyp({"anchors": 3})["anchors"] == 3


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("mosiac: 1.0", r"unknown hyper-parameter 'mosiac' \(did you mean 'mosaic'\?\)"),
        ("iou_loss: siuo", r"iou_loss is 'siuo', but must be one of .*\(did you mean 'siou'\?\)"),
    ],
)
def test_an_unknown_word_names_line_and_neighbour(tmp_path, line, told):
    file = tmp_path / "h.yaml"
    file.write_text(f"lr0: 0.01\n{line}\n")
    with pytest.raises(UserError, match=rf"h\.yaml:2: {told}"):
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
        ("qfl", 1, "hyper-parameter 'qfl': qfl must be true or false, not 1"),
        ("qfl", "true", "must be true or false, not 'true'"),
        ("iou_loss", 3, "iou_loss is '3', but must be one of ciou, giou, diou, eiou, siou, wiou$"),
        ("iou_loss", None, "iou_loss is 'None'"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused(key, value, text):
    with pytest.raises(UserError, match=text):
        load_hyp({key: value})


def test_names_and_booleans(tmp_path):
    file = tmp_path / "h.yaml"
    file.write_text("iou_loss: SIoU\nqfl: true\n")
    hyp = load_hyp(file)
    assert (hyp["iou_loss"], hyp["qfl"]) == ("siou", True)
    assert load_hyp(hyp) == hyp


def test_the_names_are_those_of_the_losses():
    kind = KEYS["iou_loss"]
    assert isinstance(kind, Choice)
    assert set(kind.names) == {*MEASURES, *LOSSES}


def test_exponent_without_a_dot_is_a_number(tmp_path):
    file = tmp_path / "h.yaml"
    file.write_text("lr0: 1e-3\n")  # YAML 1.1 takes this for text
    assert load_hyp(file)["lr0"] == 0.001


def test_a_missing_file_names_the_nearest(tmp_path):
    with pytest.raises(UserError, match=r"did you mean 'hyp\.scratch-low\.yaml'"):
        load_hyp("hyp.scratch-lo.yaml")


def test_defaults_make_sense():
    for name, kind in KEYS.items():
        assert kind.default is None or kind.read(kind.default) == kind.default, name
