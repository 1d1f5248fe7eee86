"""The benchmark of the export formats: which rows there are, what is told of them, and figures as val.py's."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.formats import (
    Bench,
    Figures,
    Row,
    below,
    formats_table,
    interpreters,
    main,
    megabytes,
    parse_opt,
    wanted,
    write_csv,
)
from utils.errors import UserError

RESULTS = {
    Row("pytorch"): Figures(2.0, 0.5, 20.0, {"box": [0.75, 0.5]}),
    Row("onnx"): Figures(1.25, 0.25, 10.0, {"box": [0.7510, 0.4980]}),
    Row("coreml"): Figures(1.5, reason="runs on macOS only"),
    Row("tflite", "int8"): Figures(reason="needs litert-torch"),
}


def bench(folder: Path, *words: str) -> Bench:
    return Bench(parse_opt(["--weights", "best.pt", *words]), Path("best.pt"), folder)


def test_rows() -> None:
    """OpenCV runs the float32 ONNX file; the mobile formats are quantised up to the head only."""
    assert [str(row) for row in wanted(["onnx", "tflite"], half=False, int8=True)] == [
        "pytorch", "onnx", "onnx in OpenCV", "tflite", "onnx int8", "tflite int8 raw heads",
    ]  # fmt: skip
    assert [str(row) for row in wanted(["ncnn"], half=True, int8=False)] == ["pytorch", "ncnn", "ncnn fp16"]


def test_table() -> None:
    """Differences by hand; what gave no file is no row, but is listed with its reason, as is what gave no figures."""
    assert formats_table(RESULTS).splitlines() == [
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
    found = {
        Row("pytorch"): Figures(2.0, 0.5, 20.0, {"box": [0.75, 0.5], "mask": [0.5, 0.25]}),
        Row("onnx"): Figures(1.25, 0.25, 10.0, {"box": [0.75, 0.5], "mask": [0.25, 0.25]}),
    }
    head, _, _, line = (" ".join(line.split()) for line in formats_table(found).splitlines())
    assert head == "| format | MB | load s | ms | box mAP50 | box mAP50-95 | mask mAP50 | mask mAP50-95 |"
    assert line.endswith("| 0.7500 (+0.0000) | 0.5000 (+0.0000) | 0.2500 (-0.2500) | 0.2500 (+0.0000) |")


def test_csv(tmp_path: Path) -> None:
    """Every row is there, with or without figures."""
    write_csv(tmp_path / "a.csv", RESULTS)
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["format"] for row in rows] == ["pytorch", "onnx", "coreml", "tflite"]
    assert (rows[1]["box_map"], rows[1]["box_map_difference"]) == ("0.498", "-0.002")
    assert (rows[2]["megabytes"], rows[2]["box_map"], rows[2]["reason"]) == ("1.5", "", "runs on macOS only")
    assert (rows[3]["precision"], rows[3]["layout"]) == ("int8", "raw")


def test_hard_fail_names_what_is_below() -> None:
    assert below(RESULTS, 0.49, []) == []
    assert below(RESULTS, 0.499, []) == ["onnx: box mAP50-95 is 0.4980"]
    assert below(RESULTS, 0.49, ["coreml"]) == ["coreml: runs on macOS only"]


def test_hard_fail_takes_no_number_for_none() -> None:
    assert below({Row("onnx"): Figures(maps={"box": [0.5, float("nan")]})}, 0.0, []) == ["onnx: box mAP50-95 is nan"]


def test_size_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "a").write_bytes(bytes(1_000_000))
    (tmp_path / "in" / "b").write_bytes(bytes(250_000))
    assert (megabytes(tmp_path), megabytes(tmp_path / "a")) == (1.25, 1.0)


@pytest.mark.parametrize(
    ("word", "says"), [("onx=a", "did you mean 'onnx'"), ("onnx=nowhere", "no interpreter at 'nowhere'")]
)
def test_interpreters_that_are_none(word: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        interpreters([word])


def test_reason_is_the_last_line_of_the_process(tmp_path: Path) -> None:
    script = tmp_path / "fails.py"
    script.write_text("import sys; sys.exit('warning: beside the point\\nerror: no such picture\\n')")
    with pytest.raises(UserError, match=r"^no such picture$"):
        bench(tmp_path).call(Row("onnx"), str(script))


def test_crash_is_told(tmp_path: Path) -> None:
    script = tmp_path / "crashes.py"
    script.write_text("import os; os.abort()")
    with pytest.raises(UserError, match="it crashed, exit code -6"):
        bench(tmp_path).call(Row("onnx"), str(script))


def test_other_interpreter_for_one_format(tmp_path: Path) -> None:
    """The script runs with the interpreter named for its format, and with ours for any other."""
    other = tmp_path / "python"
    other.write_text("#!/bin/sh\necho other\n")
    other.chmod(0o755)
    script = tmp_path / "tells.py"
    script.write_text("print('ours')")
    ours = bench(tmp_path, "--python", f"tflite={other}")
    assert ours.call(Row("tflite"), str(script)) == "other"
    assert ours.call(Row("onnx"), str(script)) == "ours"


def test_file_that_cannot_be_written_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def call(self: Bench, row: Row, script: str, *words: str) -> str:
        tried.append((row.format, *words[-1:]))
        raise UserError("cannot be")

    weights = tmp_path / "best.pt"
    weights.write_bytes(b"1")
    monkeypatch.setattr(Bench, "call", call)
    own = Bench(parse_opt(["--weights", str(weights)]), weights, tmp_path / "files")
    for row in wanted(["onnx", "executorch"], half=False, int8=True)[1:]:
        assert own.figures(row).reason == "cannot be"
    assert tried == [
        ("onnx", "onnx"),
        ("executorch", "executorch"),
        ("onnx", "--no-verify"),
        ("executorch", "--raw-heads"),
    ]


@pytest.mark.slow
def test_figures_are_those_of_val(shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Published weights on sixteen photographs: what val.py says of the file, and of the checkpoint nearly the same."""
    import val

    pictures = sorted((shared_data / "data" / "coco128").rglob("*.jpg"))[:16]
    (tmp_path / "some.txt").write_text("\n".join(map(str, pictures)))
    yaml = tmp_path / "some.yaml"
    names = (shared_data / "data" / "coco128.yaml").read_text(encoding="utf-8")
    yaml.write_text(f"path: .\ntrain: some.txt\nval: some.txt\n{names[names.index('names:') :]}", encoding="utf-8")
    words = ["--weights", str(shared_data / "weights" / "yolov5n.pt"), "--data", str(yaml), "--imgsz", "320"]
    words += ["--include", "torchscript", "--repeats", "1", "--workers", "0", "--threads", "1"]
    words += ["--keep", str(tmp_path / "kept"), "--output", str(tmp_path / "out" / "formats.csv")]
    monkeypatch.setattr(sys, "argv", ["formats.py", *words, "--hard-fail", "0.99"])

    assert main() == 1  # no mAP is as high
    with (tmp_path / "out" / "formats.csv").open(newline="", encoding="utf-8") as file:
        pytorch, script = csv.DictReader(file)
    file_kept = tmp_path / "kept" / "fp32" / "yolov5n.torchscript"
    metrics, _, _ = val.run(weights=str(file_kept), data=str(yaml), imgsz=320, workers=0, no_plots=True, device="cpu",
                            project=str(tmp_path / "runs"), trust=True)  # fmt: skip
    assert (float(script["box_map50"]), float(script["box_map"])) == pytest.approx(metrics[2:4], abs=1e-6)
    assert metrics[2] > 0.4
    assert float(pytorch["box_map"]) == pytest.approx(float(script["box_map"]), abs=2e-3)
    assert float(script["megabytes"]) == pytest.approx(file_kept.stat().st_size / 1e6, abs=0.01)
    assert "| torchscript |" in (tmp_path / "out" / "formats.md").read_text(encoding="utf-8")


def test_mistake_is_one_line(tmp_path: Path) -> None:
    """Run as users do: weights that are nowhere."""
    script = Path(__file__).resolve().parents[2] / "benchmarks" / "formats.py"
    answer = subprocess.run(
        [sys.executable, str(script), "--weights", "none.pt"], cwd=tmp_path, capture_output=True, text=True
    )
    assert answer.returncode == 1
    assert answer.stderr.startswith("error: weights 'none.pt' not found")
    assert len(answer.stderr.splitlines()) == 1
