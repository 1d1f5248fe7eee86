"""The options of the commands as frozen objects: the same names and values as the flags."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

import detect
import segment.predict
import segment.train
import segment.val
import train
import val
from engine.prediction.options import DetectOptions
from engine.training.options import SegmentTrainOptions, TrainOptions
from engine.validation.options import ValOptions
from utils.cli import options_of
from utils.commands.options import CommandOptions

COMMANDS: list[tuple[Callable[..., argparse.Namespace], type[CommandOptions], set[str], set[str]]] = [
    # parse_opt, the object, flags that the task takes for itself, fields of the other task
    (train.parse_opt, TrainOptions, {"given"}, set()),
    (segment.train.parse_opt, SegmentTrainOptions, {"given"}, set()),
    (val.parse_opt, ValOptions, set(), set()),
    (segment.val.parse_opt, ValOptions, {"retina_masks"}, set()),
    (detect.parse_opt, DetectOptions, set(), {"save_mask"}),
    (segment.predict.parse_opt, DetectOptions, {"retina_masks"}, set()),
]


@pytest.mark.parametrize(("parse_opt", "kind", "for_task", "for_other"), COMMANDS)
def test_fields_are_the_flags_in_their_order(
    parse_opt: Callable[..., argparse.Namespace], kind: type[CommandOptions], for_task: set[str], for_other: set[str]
) -> None:
    flags = {name: value for name, value in vars(parse_opt([])).items() if name not in for_task}
    fields = {k: v for k, v in options_of(kind, parse_opt([])).to_dict().items() if k not in for_other}
    assert list(fields) == list(flags)
    assert all(fields[name] == flags[name] for name in flags if name != "weights")


def test_options_cannot_be_changed_but_copied() -> None:
    options = options_of(TrainOptions, train.parse_opt(["--epochs", "7"]))
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.epochs = 8  # type: ignore[misc]
    assert (options.epochs, dataclasses.replace(options, epochs=8).epochs) == (7, 8)


def test_a_flag_without_a_value_is_an_error() -> None:
    with pytest.raises(AttributeError, match="backbone_weights"):
        options_of(TrainOptions, argparse.Namespace(weights=""))


@pytest.mark.parametrize("kind", [ValOptions, DetectOptions])
@pytest.mark.parametrize(
    ("given", "weights"),
    [(None, []), ("a.pt", ["a.pt"]), (Path("a.pt"), ["a.pt"]), (["a.pt", Path("b.pt")], ["a.pt", "b.pt"])],
)
def test_scripts_may_set_weights_as_they_like(kind: type, given: object, weights: list[str]) -> None:
    opt = val.parse_opt([]) if kind is ValOptions else detect.parse_opt([])
    opt.weights = given
    assert options_of(kind, opt).weights == weights
