"""The proof of a file: right answers pass, planted errors do not, and the limits are where they are said to be."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.export.network import ExportNetwork
from engine.export.suppression import select_by_loop
from engine.export.verify import Run, expected, limits_of, photographs, verify
from models.export_metadata import ExportMetadata
from tests.engine.export.samples import LAYOUTS, answer, assert_close, fused, metadata_for, threshold_for
from utils.errors import UserError

Change = Callable[[dict[str, Tensor]], object]


@pytest.fixture(scope="module")
def detector() -> Any:
    return fused()


def metadata_with_detections(model: Any, layout: str = "nms", **values: Any) -> ExportMetadata:
    chosen: dict[str, Any] = {}
    if layout == "nms":
        chosen = {"conf_thres": threshold_for(model, photographs((64, 96)), 40), "max_det": 100}
    return metadata_for(model, layout, **chosen | values)


def runner(model: Any, metadata: ExportMetadata, change: Change = lambda outputs: None) -> Run:
    """A file that answers as `model` does, but for what `change` does to its outputs."""
    network = ExportNetwork(model, metadata, select_by_loop)

    def run(images: Tensor) -> dict[str, Tensor]:
        answered = network(images)
        values = [answered] if isinstance(answered, Tensor) else answered
        outputs = {name: value.clone() for name, value in zip(metadata.outputs, values, strict=True)}
        change(outputs)
        return outputs

    return run


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_reference_is_what_torchvision_makes_of_the_model(model: Any, layout: str) -> None:
    metadata = metadata_with_detections(model, layout)
    images = photographs((64, 96))
    assert_close(list(expected(model, images, metadata).values()), answer(model, images, metadata))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dynamic", [False, True])
def test_right_answers_pass(model: Any, layout: str, dynamic: bool) -> None:
    metadata = metadata_with_detections(model, layout, dynamic=dynamic)
    difference = verify(runner(model, metadata), metadata, model)
    assert difference.boxes < 1e-3
    assert difference.values < 1e-5
    assert (difference.detections > 10) == (layout == "nms")


def test_sizes_and_batches_that_are_tried(detector: Any) -> None:
    for values, shapes in (
        ({"batch": 1}, [(1, 3, 64, 96)] * 2),
        ({"batch": 3}, [(3, 3, 64, 96)]),
        ({"dynamic": True}, [(1, 3, 64, 96), (3, 3, 64, 96), (2, 3, 64, 104)]),
    ):
        metadata, seen = metadata_for(detector, **values), []
        run = runner(detector, metadata)
        verify(lambda images, run=run, seen=seen: seen.append(tuple(images.shape)) or run(images), metadata, detector)
        assert seen == shapes


@pytest.mark.parametrize("layout", LAYOUTS)
def test_other_weights_are_found(model: Any, layout: str) -> None:
    other = copy.deepcopy(model)
    other.head.m[0].bias += 0.003
    metadata = metadata_with_detections(model, layout)
    told = r"^it differs from PyTorch by boxes .* px, values .* \(limits boxes 1.0e-02 px|have no counterpart"
    with pytest.raises(UserError, match=told):
        verify(runner(other, metadata), metadata, model)


def test_other_prototypes_are_found() -> None:
    model = fused("Segment")
    for layout in LAYOUTS:
        metadata = metadata_with_detections(model, layout)
        with pytest.raises(UserError, match="^it differs from PyTorch by boxes .* px, values "):
            verify(runner(model, metadata, lambda outputs: [*outputs.values()][-1].mul_(1.001)), metadata, model)


@pytest.mark.parametrize("layout", ["decoded", "separate", "nms"])
def test_other_anchors_are_found(detector: Any, layout: str) -> None:
    metadata = metadata_with_detections(detector, layout)
    wrong = replace(metadata, anchors=[[[w * 1.01, h] for w, h in level] for level in metadata.anchors])
    with pytest.raises(UserError, match="it differs from PyTorch|no counterpart"):
        verify(runner(detector, wrong), metadata, detector)


@pytest.mark.parametrize(("amount", "passes"), [(0.009, True), (0.012, False), (float("nan"), False)])
def test_the_limit_of_boxes(detector: Any, amount: float, passes: bool) -> None:
    for layout in ("decoded", "separate"):
        metadata = metadata_for(detector, layout)
        run = runner(detector, metadata, lambda outputs: next(iter(outputs.values()))[0, 7, 2].add_(amount))
        if passes:
            assert verify(run, metadata, detector).boxes == pytest.approx(amount, abs=1e-3)
        else:
            with pytest.raises(UserError, match="it differs from PyTorch by boxes 1.2e-02 px|not finite"):
                verify(run, metadata, detector)


@pytest.mark.parametrize(("amount", "passes"), [(9e-5, True), (1.2e-4, False), (float("nan"), False)])
def test_the_limit_of_confidences(detector: Any, amount: float, passes: bool) -> None:
    for layout, output, place in (("decoded", "output0", (0, 7, 4)), ("separate", "scores", (0, 7, 1))):
        metadata = metadata_for(detector, layout)
        run = runner(detector, metadata, lambda outputs, o=output, p=place: outputs[o][p].add_(amount))
        if passes:
            assert verify(run, metadata, detector).values == pytest.approx(amount, abs=1e-6)
        else:
            with pytest.raises(UserError, match="it differs from PyTorch by boxes .* px, values 1.2e-04|not finite"):
                verify(run, metadata, detector)


def lose_one(outputs: dict[str, Tensor]) -> None:
    outputs["detections"][0] = torch.cat((outputs["detections"][0, 1:], torch.zeros(1, 6)))
    outputs["count"][0] -= 1


def invent_one(outputs: dict[str, Tensor]) -> None:
    n = int(outputs["count"][0])
    outputs["detections"][0, n] = torch.tensor([1, 1, 30, 30, outputs["detections"][0, 0, 4], 0])
    outputs["count"][0] += 1


def change_a_class(outputs: dict[str, Tensor]) -> None:
    outputs["detections"][0, 0, 5] = (outputs["detections"][0, 0, 5] + 1) % 3


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lose_one, "1 of .* detections have no counterpart"),
        (invent_one, "1 of .* detections have no counterpart"),
        (change_a_class, "1 of .* detections have no counterpart"),
        (lambda outputs: outputs["detections"][0, 0, :4].add_(0.05), "1 of .* detections have no counterpart"),
        (lambda outputs: outputs["detections"][0, 0, 4:5].add_(2e-4), "differs from PyTorch by .* values [12].*e-04"),
        (lambda outputs: outputs["detections"][0, -1].add_(1), "the rows behind the last detection are not zero"),
        (lambda outputs: outputs.update(detections=outputs["detections"][:, :-1]), r"detections is \(1, 99, 6\) for"),
        (lambda outputs: outputs["detections"].zero_() + outputs["count"].zero_(), "detections have no counterpart"),
    ],
)
def test_wrong_detections_are_found(detector: Any, change: Change, told: str) -> None:
    metadata = metadata_with_detections(detector)
    with pytest.raises(UserError, match=told):
        verify(runner(detector, metadata, change), metadata, detector)


def test_a_suppression_with_another_threshold_is_found(detector: Any) -> None:
    threshold = threshold_for(detector, photographs((64, 96)), 300)
    metadata = metadata_for(detector, "nms", max_det=300, conf_thres=threshold, iou_thres=0.2)
    verify(runner(detector, metadata), metadata, detector)
    for wrong in (
        replace(metadata, iou_thres=0.9),
        replace(metadata, conf_thres=2 * threshold),
        replace(metadata, agnostic=True),
    ):
        with pytest.raises(UserError, match="no counterpart"):
            verify(runner(detector, wrong), metadata, detector)


def test_half_precision_has_wider_limits(detector: Any) -> None:
    metadata = metadata_for(detector, "decoded", half=True)
    assert (limits_of(metadata).boxes, limits_of(metadata).values) == (4.0, 0.05)
    verify(runner(detector, metadata, lambda outputs: outputs["output0"].add_(0.04)), metadata, detector)
    with pytest.raises(UserError, match="it differs from PyTorch"):
        verify(runner(detector, metadata, lambda outputs: outputs["output0"].add_(0.06)), metadata, detector)


def test_nothing_detected_is_told(detector: Any, capsys: pytest.CaptureFixture[str]) -> None:
    metadata = metadata_for(detector, "nms", conf_thres=0.9999)
    verify(runner(detector, metadata), metadata, detector)
    assert "nothing is detected on the two photographs above confidence 0.9999" in capsys.readouterr().err
