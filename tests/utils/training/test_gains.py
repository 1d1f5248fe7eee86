"""Gains by hand."""

from __future__ import annotations

import pytest

from utils.training.gains import scale_gains

HYP = {"box": 0.05, "cls": 0.5, "obj": 1.0, "lr0": 0.01}


def test_reference_setting_changes_nothing() -> None:
    assert scale_gains(HYP, nl=3, nc=80, imgsz=(640, 640)) == pytest.approx(HYP)


def test_gains_follow_levels_classes_and_area() -> None:
    scaled = scale_gains(HYP, nl=4, nc=8, imgsz=(320, 640))
    assert scaled["box"] == pytest.approx(0.05 * 0.75)
    assert scaled["cls"] == pytest.approx(0.5 * 0.1 * 0.75)
    assert scaled["obj"] == pytest.approx(1.0 * 0.5 * 0.75)
    assert HYP["box"] == 0.05
