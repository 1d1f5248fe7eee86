"""The export command: converts a checkpoint to files for other runtimes, and checks each file."""

from __future__ import annotations

import argparse
import copy
import importlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from engine.export.accuracy import report_loss
from engine.export.calibration import CalibrationImages
from engine.export.formats import Format, find_formats, format_table
from engine.export.network import metadata_of
from engine.export.request import ExportRequest
from engine.export.verify import verify
from models.backends.multi import runtime_for
from models.export_metadata import ExportMetadata
from models.loading import load_model
from models.weights import find_weights, newest_best
from models.yolo import DetectionModel
from utils.cli import image_size
from utils.data.images.memory import check_memory
from utils.devices import select_one_device
from utils.errors import UserError
from utils.files import refuse_folder
from utils.logging import LOGGER
from utils.ops.letterbox import make_divisible

_LAYOUT_FLAGS = {"separate_heads": "separate", "raw_heads": "raw", "nms": "nms"}


def run_export(options: argparse.Namespace) -> list[Path]:
    """Run the export command. All options are checked before any file is written. Returns the files."""
    if options.list:
        LOGGER.info(format_table())
        return []
    formats = find_formats(options.include)
    layout = _layout(options)
    _check_precision(options)
    device = select_one_device(options.device)
    weights = _weights(options.weights)
    model = load_model(weights, device, trust=options.trust)
    assert isinstance(model, DetectionModel)  # one file is no ensemble
    size = _size(options.imgsz, model, weights)
    check_memory(options.batch_size, size)
    metadata = metadata_of(model, imgsz=size, **_chosen(options, layout))
    network = copy.deepcopy(model).half() if options.half else model
    calibration = _calibration(options, metadata)
    request = ExportRequest(network, metadata, device, options.opset, options.simplify, options.dynamo, calibration)
    writers: list[Any] = [importlib.import_module(f"engine.export.formats.{f.name}") for f in formats]
    for form, writer in zip(formats, writers, strict=True):
        check_place(form, weights)
        writer.check(request)
    reference = model if options.verify else None
    files = [_write(f, writer, request, weights, reference) for f, writer in zip(formats, writers, strict=True)]
    if options.int8 and options.verify:
        running = [file for f, file in zip(formats, files, strict=True) if f.runs_here()]
        report_loss(weights, running, options.data, metadata, device, trust=options.trust)
    return files


def _write(form: Format, writer: Any, request: ExportRequest, weights: Path, reference: DetectionModel | None) -> Path:
    """Write the file of one format and its metadata beside the checkpoint. It is checked before it gets its name."""
    target = target_of(form, weights)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=target.parent) as folder:
        draft = Path(folder) / target.name
        writer.write(request, draft)
        metadata_file = Path(f"{draft}.json")  # read by runtimes whose kind of file holds no metadata
        metadata_file.write_text(request.metadata.to_json() + "\n", encoding="utf-8")
        try:
            report = writer.inspect(request, draft)
            if reference is not None:
                report.append(
                    _verified(request, draft, reference) if form.runs_here() else "not run, which needs macOS"
                )
        except UserError as error:
            failed = target.with_name(f"{target.stem}-failed{target.suffix}")
            _put(draft, failed)
            raise UserError(f"{target.name}: {error}; kept as {failed}") from error
        _put(draft, target)
        _put(metadata_file, Path(f"{target}.json"))
    LOGGER.info(f"{form.name}: {target}, {', '.join([_megabytes(target), *report])}")
    return target


def _verified(request: ExportRequest, draft: Path, reference: DetectionModel) -> str:
    """The result of `verify` as text. The file is read as its users will read it."""
    kind = runtime_for(draft)
    assert kind is not None  # every format that is written has a runtime
    runtime = kind(draft, request.device)
    if runtime.metadata != request.metadata:
        raise UserError("its metadata did not come back as they were written")
    difference = verify(runtime, request.metadata, reference)
    return "runs" if request.metadata.int8 else f"largest differences from PyTorch: {difference}"


def target_of(form: Format, weights: Path) -> Path:
    """The file or the folder, beside `weights`, that a format writes."""
    return weights.with_name(form.file.format(weights.stem).rstrip("/"))


def check_place(form: Format, weights: Path) -> None:
    """Raise `UserError` where the file or its metadata would replace something that no export has written."""
    target = target_of(form, weights)
    metadata_file = refuse_folder(f"{target}.json")
    if not form.file.endswith("/"):
        refuse_folder(target)
    elif target.is_dir() and any(target.iterdir()) and not metadata_file.is_file():
        raise UserError(f"'{target}' is a folder that no export of this project has written; move it away")
    elif target.is_file():
        raise UserError(f"'{target}' is a file, but {form.name} writes a folder of that name; move it away")


def _put(draft: Path, target: Path) -> None:
    """Move a finished file or folder to its name. A folder replaces the folder of an earlier export."""
    if draft.is_dir() and target.is_dir():
        shutil.rmtree(target)
    os.replace(draft, target)


def _megabytes(path: Path) -> str:
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return f"{sum(p.stat().st_size for p in files) / 1e6:.1f} MB"


def _layout(options: argparse.Namespace) -> str:
    wanted = [flag for flag in _LAYOUT_FLAGS if getattr(options, flag)]
    if len(wanted) > 1:
        flags = " and ".join(f"--{flag.replace('_', '-')}" for flag in wanted)
        raise UserError(f"{flags} are different layouts of the outputs; give one of them")
    return _LAYOUT_FLAGS[wanted[0]] if wanted else "decoded"


def _check_precision(options: argparse.Namespace) -> None:
    if options.int8 and not options.data:
        raise UserError("--int8 needs images for calibration; give --data with your data set's YAML")
    if options.int8 and options.half:
        raise UserError("--int8 and --half are different precisions; give one of them")


def _calibration(options: argparse.Namespace, metadata: ExportMetadata) -> CalibrationImages | None:
    """The calibration images with ``--int8``, and a warning of activations that 8 bits represent badly."""
    if not options.int8:
        return None
    height, width = metadata.imgsz
    images = CalibrationImages.of(options.data, (height, width))
    if "SiLU" in metadata.activation:
        LOGGER.warning(
            "this network has SiLU, whose values have no upper bound: in 8 bits ReLU6 is faster and more accurate; "
            "choose it before training (activation: in the YAML, as in yolov5_MobileNetv2-lite.yaml)"
        )
    return images


def _weights(given: str | Path | list[str] | None) -> Path:
    if not given:
        newest = newest_best()
        LOGGER.info(f"--weights not given, so the newest training's: {newest}")
        return newest
    files = [given] if isinstance(given, (str, Path)) else list(given)
    if len(files) > 1:
        raise UserError(f"--weights names {len(files)} files, but an ensemble cannot be exported; give one of them")
    found = find_weights(files[0])
    if found.suffix not in (".pt", ".pth"):
        raise UserError(f"{found}: expected a checkpoint (.pt), found {found.suffix or 'no suffix'}")
    return found


def _size(given: int | list[int], model: DetectionModel, weights: Path) -> list[int]:
    """[height, width] of ``--imgsz``. Raises `UserError` unless they are multiples of the stride."""
    if (channels := model.yaml.get("ch", 3)) != 3:
        raise UserError(f"{weights}: reads images of {channels} channels; only RGB networks can be exported")
    size, stride = list(image_size(given)), int(model.stride.max())
    if any(side % stride for side in size):
        fit = " ".join(str(make_divisible(side, stride)) for side in size)
        raise UserError(f"--imgsz {size[0]} {size[1]} is no multiple of the stride {stride}; give --imgsz {fit}")
    return size


def _chosen(options: argparse.Namespace, layout: str) -> dict[str, Any]:
    """The fields of `ExportMetadata` that depend on the flags."""
    values = {"batch": options.batch_size, "dynamic": options.dynamic, "half": options.half, "int8": options.int8}
    if layout != "nms":
        return {**values, "layout": layout}
    return {
        **values,
        "layout": layout,
        "max_det": options.topk_all,
        "conf_thres": options.conf_thres,
        "iou_thres": options.iou_thres,
        "agnostic": options.agnostic_nms,
    }
