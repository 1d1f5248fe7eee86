"""Every layout, taken from what a head says by the contract's own words, lifts back to what the head itself decodes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from models.backends.layouts import as_model_output
from models.export_metadata import LAYOUTS, ExportMetadata
from models.yolo import Detect, Segment
from utils.ops.nms import non_max_suppression

ANCHORS = [[10, 13, 16, 30], [30, 61, 62, 45]]
STRIDES = [8, 16]
NC = 3


def head_of(segment: bool) -> Detect:
    torch.manual_seed(0)
    head = Segment(NC, ANCHORS, 4, 8, (6, 6)) if segment else Detect(NC, ANCHORS, (6, 6))
    head.set_stride(torch.tensor(STRIDES, dtype=torch.float32))
    return head.eval()


def metadata_of(layout: str, nm: int, **values: Any) -> ExportMetadata:
    anchors = [[[float(a) for a in level[i : i + 2]] for i in (0, 2)] for level in ANCHORS]
    return ExportMetadata(
        "segment" if nm else "detect", {i: str(i) for i in range(NC)}, STRIDES, anchors, [32, 48], 2, False, False,
        False, layout, "SiLU", nm, **values,
    )  # fmt: skip


def outputs_of(layout: str, decoded: Tensor, maps: list[Tensor], prototypes: list[Tensor]) -> dict[str, Tensor]:
    """What a file of `layout` gives, by arithmetic on the head's own answers."""
    last = dict(zip(["prototypes"], prototypes, strict=False))
    boxes, objectness, classes, coefficients = decoded.split((4, 1, NC, decoded.shape[2] - 5 - NC), 2)
    if layout == "decoded":
        return {"output0": decoded, **dict(zip(["output1"], prototypes, strict=False))}
    if layout == "raw":
        return {f"raw{i}": y for i, y in enumerate(maps)} | last
    if layout == "separate":
        masked = {"coefficients": coefficients * objectness} if prototypes else {}
        return {"boxes": boxes, "scores": classes * objectness, **masked, **last}
    found = non_max_suppression(decoded, 0.25, 0.45, nm=coefficients.shape[2], max_det=12)
    rows = torch.stack([torch.nn.functional.pad(f, (0, 0, 0, 12 - len(f))) for f in found])
    return {"detections": rows, "count": torch.tensor([len(f) for f in found]), **last}


@pytest.mark.parametrize("segment", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_lifted_is_what_the_head_decodes(layout: str, segment: bool) -> None:
    head, nm = head_of(segment), 4 * segment
    levels = [torch.randn(2, 6, 4, 6) * 2, torch.randn(2, 6, 2, 3) * 2]
    with torch.inference_mode():
        maps = [conv(level) for conv, level in zip(head.m, levels, strict=True)]
        maps[0].view(2, 2, -1, 4, 6)[0, :, 4] = -20  # few objects in the first image
        for y in maps:
            y.view(2, 2, -1, *y.shape[2:])[..., 4, :, :] += 4
        rows = [y.view(2, 2, -1, *y.shape[2:]).permute(0, 1, 3, 4, 2) for y in maps]
        decoded = head.decode(rows).clone()
        prototypes = [head.proto(levels[0])] if isinstance(head, Segment) else []
        thresholds = {"max_det": 12, "conf_thres": 0.25, "iou_thres": 0.45, "agnostic": False}
        metadata = metadata_of(layout, nm, **(thresholds if layout == "nms" else {}))
        output = as_model_output(outputs_of(layout, decoded, maps, prototypes), metadata)
        assert output[-1] is None
        assert len(output) == 2 + segment
        if segment:
            assert torch.equal(output[1], prototypes[0])
        if layout in ("decoded", "raw"):
            torch.testing.assert_close(output[0], decoded, rtol=1e-6, atol=1e-5)
        if layout == "separate":
            torch.testing.assert_close(output[0][..., :4], decoded[..., :4])
            torch.testing.assert_close(output[0][..., 4:5] * output[0][..., 5:8], decoded[..., 4:5] * decoded[..., 5:8])
            torch.testing.assert_close(output[0][..., 4:5] * output[0][..., 8:], decoded[..., 4:5] * decoded[..., 8:])
        # whatever the layout, the user's own suppression finds the same, at the file's thresholds and above
        for conf in (0.25, 0.5):
            for multi_label in (False, True)[: 1 + (layout != "nms")]:
                ours = non_max_suppression(decoded, conf, 0.45, nm=nm, max_det=12, multi_label=multi_label)
                theirs = non_max_suppression(output[0], conf, 0.45, nm=nm, max_det=12, multi_label=multi_label)
                assert any(len(a) for a in ours)
                for a, b in zip(ours, theirs, strict=True):
                    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-4)
