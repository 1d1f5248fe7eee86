"""Every flag of every command against words that it cannot mean. The flags are found in the parsers: all of them."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

import detect
import export
import train
import val
from models.inspection import command as inspection
from segment import predict as segment_predict
from segment import train as segment_train
from segment import val as segment_val
from utils.cli import CommandParser
from utils.commands.values import Fraction, Whole, text
from utils.errors import UserError
from utils.files import ROOT

COMMANDS: dict[str, Any] = {
    "train": train,
    "val": val,
    "detect": detect,
    "export": export,
    "segment/train": segment_train,
    "segment/val": segment_val,
    "segment/predict": segment_predict,
}
FREE = {"--device", "--freeze", "--cache"}  # whose words are judged by code of their own

WORDS: dict[str, list[str]] = {
    "whole": ["9" * 30, "-" + "9" * 30, "1e9", "3.5", "nan", "inf", "", "x", "0x10", "1 2", "9" * 5000],
    "fraction": ["nan", "inf", "-inf", "-0.1", "1.0001", "1e999", "", "x", "0,5"],
    "text": ["", "  ", "a\0b"],
    "choice": ["nothing", "", "\n"],
}


@pytest.mark.parametrize(
    ("command", "flag"),
    [
        ("train", "--epochs"),
        ("val", "--save-json"),
        ("detect", "--source"),
        ("export", "--include"),
        ("segment/train", "--mask-ratio"),
        ("segment/val", "--retina-masks"),
        ("segment/predict", "--retina-masks"),
    ],
)
def test_help_and_a_wrong_flag_answer_at_once(command: str, flag: str) -> None:
    """Nothing heavy is imported before a command has something to do."""
    code = (
        f"import sys, {command.replace('/', '.')} as command\n"
        "for word in ('--help', '--no-such'):\n    try:\n        command.parse_opt([word])\n"
        "    except SystemExit as end:\n        print('code', end.code)\n"
        "print('heavy', sorted({'torch', 'numpy', 'cv2', 'matplotlib', 'pandas', 'yaml'} & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert flag in told.stdout
    assert [line for line in told.stdout.splitlines() if line.startswith(("code", "heavy"))] == [
        "code 0",
        "code 2",
        "heavy []",
    ]
    assert "unknown argument '--no-such'" in told.stderr


def kind_of(action: argparse.Action) -> str | None:
    if isinstance(action.type, Whole):
        return "whole"
    if isinstance(action.type, Fraction):
        return "fraction"
    if action.type is text:
        return "text"
    return "choice" if action.choices else None


def flags() -> Iterator[Any]:
    parsers = {name: module._parser() for name, module in COMMANDS.items()} | {"models/yolo": inspection.parser()}
    for command, parser in parsers.items():
        for action in parser._actions:
            if action.option_strings and action.nargs != 0 and not isinstance(action, argparse._HelpAction):
                yield pytest.param(parser, action, id=f"{command} {action.option_strings[0]}")


@pytest.mark.parametrize(("parser", "action"), list(flags()))
def test_words_that_no_flag_can_mean(
    parser: CommandParser, action: argparse.Action, capsys: pytest.CaptureFixture[str]
) -> None:
    flag = action.option_strings[0]
    kind = kind_of(action)
    if kind is None:
        assert flag in FREE or action.type is not None, f"{flag} takes anything; declare what it takes"
        return
    for word in WORDS[kind]:
        if word in (action.choices or ()):
            continue
        with pytest.raises(SystemExit) as stop:
            parser.parse_args([f"{flag}={word}"])
        err = capsys.readouterr().err
        assert stop.value.code == 2
        assert err.startswith(f"error: {flag}: ")
        assert err.count("\n") == 1
        assert len(err) < 1200


@pytest.mark.parametrize(("parser", "action"), list(flags()))
def test_defaults_are_values_that_the_flag_takes(parser: CommandParser, action: argparse.Action) -> None:
    if callable(action.type) and action.default not in (None, False):
        values = action.default if isinstance(action.default, list) else [action.default]
        assert [action.type(str(value)) for value in values] == values


@pytest.mark.parametrize(
    ("command", "words", "told"),
    [
        ("train", "--seed 1e23", "--seed: must be a whole number"),
        ("train", "--seed 99999999999999999999999", "--seed: must be 4611686018427387904 or less"),
        ("train", "--seed -1", "--seed: must be 0 or more"),
        ("train", "--img 1000000000", "takes 10658 PiB"),
        ("train", "--img 20000", "takes 4.5 GiB"),
        ("train", "--batch 1000000000000000", "--batch-size: must be 65536 or less, or -1"),
        ("train", "--batch -2", "--batch-size: must be 1 or more, or -1, not -2"),
        ("train", "--workers -1", "--workers: must be 0 or more"),
        ("train", "--workers 100000", "--workers: must be 1024 or less"),
        ("train", "--label-smoothing 1", "--label-smoothing: must be at least 0 and below 1"),
        ("train", "--save-period -2", "--save-period: must be -1 or more"),
        ("train", "--evolve 0", "--evolve: must be 1 or more"),
        ("train", "--freeze -3", "--freeze: must be 0 or more"),
        ("train", "--freeze bakbone", "did you mean 'backbone'"),
        ("train", "--cache tape", "--cache: invalid choice"),
        ("train", "--epochs", "--epochs: expected one argument"),
        ("train", "--img 64 x", "--imgsz: must be a whole number, not 'x'"),
        ("train", "--no-such", "unknown argument '--no-such'"),
        ("train", "--bucket gs://x", "--bucket is not supported"),
        ("detect", "--img 50000", "takes 27.9 GiB"),
        ("detect", "--img 1000000000000000000000000000000", "--imgsz: must be 16384 or less"),
        ("detect", "--line-thickness 100000", "--line-thickness: must be 1000 or less"),
        ("detect", "--line-thickness -1", "--line-thickness: must be 0 or more"),
        ("detect", "--classes -1", "--classes: must be 0 or more"),
        ("detect", "--vid-stride 0", "--vid-stride: must be 1 or more"),
        ("val", "--conf-thres nan", "--conf-thres: must lie between 0 and 1, not nan"),
        ("val", "--task tets", "--task: invalid choice: 'tets'"),
        ("val", "--sav-json", "did you mean '--save-json'"),
        ("val", "--batch x", "--batch-size: must be a whole number, not 'x'"),
        ("detect", "--sorce", "did you mean '--source'?"),
        ("export", "--topk-all 1000000000", "--topk-all: must be 30000 or less, not 1000000000: the rows of one image"),
        ("export", "--batch 1000000000000000", "--batch-size: must be 65536 or less"),
        ("export", "--img 3200000", "takes 111 TiB"),
        ("export", "--opset 0", "--opset: must be 1 or more"),
        ("export", "--verify --no-verify", "not allowed with argument"),
        ("segment/train", "--mask-ratio 65", "--mask-ratio: must be 64 or less"),
    ],
)
def test_one_line_that_helps(command: str, words: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        COMMANDS[command].parse_opt(words.split(" "))
    err = capsys.readouterr().err
    assert stop.value.code == 2
    assert told in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_words_cannot_forge_a_line(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        COMMANDS[command].parse_opt(["--imgsz", "\nerror: all is well\x1b[2J"])
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "keywords", "told"),
    [
        ("train", {"amp_dtype": "fp8"}, "amp_dtype: must be one of 'fp16', 'bf16', not 'fp8'"),
        ("train", {"optimizer": "Lion"}, "optimizer: must be one of 'SGD', 'Adam'"),
        ("train", {"epochs": "many"}, "epochs: must be a whole number, not 'many'"),
        ("train", {"epochs": 1.5}, "epochs: must be a whole number, not '1.5'"),
        ("train", {"batch": 4}, "unknown option 'batch'"),
        ("train", {"given": set()}, "unknown option 'given'"),
        ("train", {"seed": 2**63}, "seed: must be"),
        ("train", {"exist_ok": "no"}, "exist_ok: must be True or False, not 'no'"),
        ("train", {"data": ["a.yaml"]}, "data: must be text or a number"),
        ("val", {"task": "tets"}, "task: must be one of 'train', 'val', 'test', 'speed', 'study', not 'tets'"),
        ("val", {"iou_thres": float("nan")}, "iou_thres: must lie between 0 and 1, not nan"),
        ("val", {"weights": [3.5, None]}, r"weights: must be text or a number, not None \(NoneType\)"),
        ("detect", {"source": {"a.jpg"}}, r"source: must be text or a number, not \{'a.jpg'\} \(set\)"),
        ("detect", {"classes": "person"}, "classes: must be a whole number, not 'person'"),
        ("detect", {"imgsz": (640, 640.0)}, "imgsz: must be a whole number, not '640.0'"),
        ("detect", {"line_thickness": True}, r"line_thickness: must be text or a number, not True \(bool\)"),
        ("export", {"include": []}, "include: is an empty list"),
        ("export", {"verify": "yes"}, "verify: must be True or False"),
        ("segment/predict", {"retina_masks": 3}, "retina_masks: must be True or False, not 3"),
        ("segment/val", {"retina_mask": True}, "unknown option 'retina_mask' .*'retina_masks'"),
    ],
)
def test_keywords_of_run(command: str, keywords: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        COMMANDS[command].run(**keywords)
