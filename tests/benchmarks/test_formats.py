"""The benchmark of the export formats: which rows there are, what is told of them, and figures as val.py's."""

from __future__ import annotations

import json
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import formats
from benchmarks.formats import below, figures, formats_table, interpreters, measure_all
from benchmarks.measuring import Row, parse
from tests.benchmarks.test_summary import some_pictures
from utils.errors import UserError

ROWS: dict[str, Row] = {
    "pytorch": {"megabytes": 2.0, "load_s": 0.5, "ms": 20.0, "maps": {"box": [0.75, 0.5]}},
    "onnx": {"megabytes": 1.25, "load_s": 0.25, "ms": 10.0, "maps": {"box": [0.7510, 0.4980]}},
    "coreml": {"megabytes": 1.5, "reason": "runs on macOS only"},
    "tflite int8 raw heads": {"reason": "needs litert-torch"},
}


def options(*words: str) -> Namespace:
    return parse(formats, ["--weights", "best.pt", *words])


class Machine:
    """Stands in for processes: notes what they are asked for; for formats that `fail` `export.py` writes no file."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *fail: str) -> None:
        self.written: list[list[str]] = []
        self.measured: list[dict[str, Any]] = []
        self.fail = fail
        monkeypatch.setattr(formats, "run_process", self.run_process)
        monkeypatch.setattr(formats, "measure_apart", self.measure_apart)

    def run_process(self, words: list[object]) -> None:
        self.written.append([str(word) for word in words])
        weights, name = (
            Path(self.written[-1][self.written[-1].index(flag) + 1]) for flag in ("--weights", "--include")
        )
        if str(name) in self.fail:
            raise UserError(f"{weights}: cannot be")
        weights.with_name(formats.FORMATS[str(name)].file.format(weights.stem).rstrip("/")).write_bytes(b"1")

    def measure_apart(self, function: object, options: Namespace, python: str, **more: Any) -> Row:
        self.measured.append({"python": python, **more})
        return {"ms": 1.0}


def test_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenCV runs the float32 ONNX file; the mobile formats are quantised up to the head only; one file, one export."""
    machine = Machine(monkeypatch)
    (tmp_path / "best.pt").write_bytes(b"1")
    rows = measure_all(options("--include", "onnx", "tflite", "--half", "--int8"), tmp_path / "best.pt", tmp_path)
    assert list(rows) == [
        "pytorch", "onnx", "onnx in OpenCV", "tflite", "onnx fp16", "tflite fp16", "onnx int8", "tflite int8 raw heads",
    ]  # fmt: skip
    assert [words[words.index("--include") + 1 :] for words in machine.written] == [
        ["onnx"], ["tflite"], ["onnx", "--half"], ["tflite", "--half"],
        ["onnx", "--int8", "--no-verify"], ["tflite", "--int8", "--no-verify", "--raw-heads"],
    ]  # fmt: skip
    told = [(Path(each["file"]).name, each["dnn"], each["fp16"]) for each in machine.measured]
    assert told[:4] == [("best.pt", False, False), ("best.onnx", False, False), ("best.onnx", True, False),
                        ("best.tflite", False, False)]  # fmt: skip
    assert told[4] == ("best.onnx", False, True)
    assert all(row == {"megabytes": 0.0, "ms": 1.0} for row in rows.values())


def test_file_that_cannot_be_written_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, "onnx")
    (tmp_path / "best.pt").write_bytes(b"1")
    rows = measure_all(options("--include", "onnx"), tmp_path / "best.pt", tmp_path)
    assert rows["onnx"] == rows["onnx in OpenCV"] == {"reason": str(Path("fp32", "best.pt: cannot be"))}
    assert len(machine.written) == 1


def test_other_interpreter_for_one_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of that format are written and measured with the interpreter named for it, all others with ours."""
    machine = Machine(monkeypatch)
    for name in ("best.pt", "python"):
        (tmp_path / name).write_bytes(b"1")
    other = str(tmp_path / "python")
    words = ("--include", "onnx", "tflite", "--python", f"tflite={other}")
    measure_all(options(*words), tmp_path / "best.pt", tmp_path)
    assert [words[0] for words in machine.written] == [sys.executable, other]
    assert [each["python"] for each in machine.measured] == [sys.executable] * 3 + [other]


def test_table() -> None:
    """Differences by hand; what gave no file is no row, but is listed with its reason, as is what gave no figures."""
    assert formats_table(ROWS).splitlines() == [
        "| format  |   MB | load s |   ms |            mAP50 |         mAP50-95 |",
        "| ------- | ---: | -----: | ---: | ---------------: | ---------------: |",
        "| pytorch | 2.00 |   0.50 | 20.0 |           0.7500 |           0.5000 |",
        "| onnx    | 1.25 |   0.25 | 10.0 | 0.7510 (+0.0010) | 0.4980 (-0.0020) |",
        "| coreml  | 1.50 |      – |    – |                – |                – |",
        "",
        "Not measured here:",
        "",
        "- coreml: runs on macOS only",
        "- tflite int8 raw heads: needs litert-torch",
    ]


def test_table_of_segmenters() -> None:
    both = {"megabytes": 2.0, "load_s": 0.5, "ms": 20.0}
    found: dict[str, Row] = {
        "pytorch": {**both, "maps": {"box": [0.75, 0.5], "mask": [0.5, 0.25]}},
        "onnx": {**both, "maps": {"box": [0.75, 0.5], "mask": [0.25, 0.25]}},
    }
    head, _, _, line = (" ".join(line.split()) for line in formats_table(found).splitlines())
    assert head == "| format | MB | load s | ms | box mAP50 | box mAP50-95 | mask mAP50 | mask mAP50-95 |"
    assert line.endswith("| 0.7500 (+0.0000) | 0.5000 (+0.0000) | 0.2500 (-0.2500) | 0.2500 (+0.0000) |")


def test_hard_fail_names_what_is_below() -> None:
    assert below(ROWS, 0.49, []) == []
    assert below(ROWS, 0.499, []) == ["onnx: box mAP50-95 is 0.4980"]
    assert below(ROWS, 0.49, ["coreml"]) == ["coreml: runs on macOS only"]
    assert below(ROWS, 0.49, ["tflite"]) == ["tflite int8 raw heads: needs litert-torch"]


def test_hard_fail_takes_no_number_for_none() -> None:
    assert below({"onnx": {"maps": {"box": [0.5, float("nan")]}}}, 0.0, []) == ["onnx: box mAP50-95 is nan"]


def test_size_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Machine(monkeypatch)
    (tmp_path / "in").mkdir()
    (tmp_path / "a").write_bytes(bytes(1_000_000))
    (tmp_path / "in" / "b").write_bytes(bytes(250_000))
    assert [figures(path, options())["megabytes"] for path in (tmp_path, tmp_path / "a")] == [1.25, 1.0]


@pytest.mark.parametrize(
    ("word", "says"), [("onx=a", "did you mean 'onnx'"), ("onnx=nowhere", "no interpreter at 'nowhere'")]
)
def test_interpreters_that_are_none(word: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        interpreters([word])


@pytest.mark.slow
def test_figures_are_those_of_val(shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Published weights on sixteen photographs: what val.py says of the file, and of the checkpoint nearly the same."""
    import val

    pictures = sorted((shared_data / "data" / "coco128").rglob("*.jpg"))[:16]
    yaml = some_pictures(shared_data, tmp_path, pictures)
    words = ["--weights", str(shared_data / "weights" / "yolov5n.pt"), "--data", str(yaml), "--imgsz", "320"]
    words += ["--include", "torchscript", "--repeats", "1", "--workers", "0", "--threads", "1"]
    words += ["--keep", str(tmp_path / "kept"), "--output", str(tmp_path / "out" / "formats.json")]

    assert formats.main(parse(formats, [*words, "--hard-fail", "0.99"])) == 1  # no mAP is as high
    rows = json.loads((tmp_path / "out" / "formats.json").read_text(encoding="utf-8"))["rows"]
    file_kept = tmp_path / "kept" / "fp32" / "yolov5n.torchscript"
    metrics, _, _ = val.run(weights=str(file_kept), data=str(yaml), imgsz=320, workers=0, no_plots=True, device="cpu",
                            project=str(tmp_path / "runs"), trust=True)  # fmt: skip
    assert rows["torchscript"]["maps"]["box"] == pytest.approx(metrics[2:4], abs=1e-6)
    assert metrics[2] > 0.4
    assert rows["pytorch"]["maps"]["box"] == pytest.approx(rows["torchscript"]["maps"]["box"], abs=2e-3)
    assert rows["torchscript"]["megabytes"] == pytest.approx(file_kept.stat().st_size / 1e6, abs=0.01)


def test_mistake_is_one_line() -> None:
    """Run as users do: weights that are nowhere."""
    words = [sys.executable, "-m", "benchmarks", "formats", "--weights", "none.pt"]
    root = Path(__file__).resolve().parents[2]
    answer = subprocess.run(words, cwd=root, capture_output=True, text=True)
    assert answer.returncode == 1
    assert answer.stderr.startswith("error: weights 'none.pt' not found")
    assert len(answer.stderr.splitlines()) == 1
