"""Non-maximum suppression inside an exported network, by the rules of `utils.ops.nms` in operations of the file.

Both `select` functions return what ONNX's NonMaxSuppression returns: from boxes (B, N, 4) xyxy and scores (B, C, N),
the (n, 3) int64 rows ``image, class, box`` that are above `conf_thres` and not suppressed within their class.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def select_by_loop(boxes: Tensor, scores: Tensor, max_det: int, iou_thres: float, conf_thres: float) -> Tensor:
    """Select by a loop, which TorchScript can hold, so that the file needs no package but torch."""
    found = [torch.zeros([0, 3], dtype=torch.long, device=boxes.device)]
    for image in range(boxes.shape[0]):
        box, cls = (scores[image].t() > conf_thres).nonzero().unbind(1)
        order = torch.sort(scores[image][cls, box], stable=True, dim=0, descending=True)[1]
        cls, box = cls[order], box[order]
        kept = 0
        while box.numel() > 0 and kept < max_det:
            found.append(torch.stack([torch.full_like(cls[:1], image), cls[:1], box[:1]], 1))
            kept += 1
            best, others = boxes[image, box[0]], boxes[image, box[1:]]
            inner = torch.minimum(best[2:], others[:, 2:]) - torch.maximum(best[:2], others[:, :2])
            inter = inner.clamp(min=0).prod(1)
            union = (best[2:] - best[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(1) - inter
            stays = (inter <= union * iou_thres) | (cls[1:] != cls[0])
            cls, box = cls[1:][stays], box[1:][stays]
    return torch.cat(found)


class SelectInOnnx(torch.autograd.Function):
    """Select by one ONNX node. Outside an ONNX graph nothing is selected, because tracing the loop would take long."""

    @staticmethod
    def forward(ctx: Any, boxes: Tensor, scores: Tensor, max_det: int, iou_thres: float, conf_thres: float) -> Tensor:
        return torch.zeros(1, 3, dtype=torch.long, device=boxes.device)

    @staticmethod
    def symbolic(g: Any, boxes: Any, scores: Any, max_det: int, iou_thres: float, conf_thres: float) -> Any:
        """The node for the exporter, which gets the thresholds as constant inputs."""
        limits = [torch.tensor([max_det]), torch.tensor([iou_thres]), torch.tensor([conf_thres])]
        node = g.op("NonMaxSuppression", boxes, scores, *(g.op("Constant", value_t=limit) for limit in limits))
        node.setType(boxes.type().with_dtype(torch.int64).with_sizes([None, 3]))
        return node


def best_rows(rows: Tensor, selected: Tensor, max_det: int) -> tuple[Tensor, Tensor]:
    """Take the `selected` (n, 3) of rows (B, N, 6 + nm), whose column 4 is the confidence, by falling confidence.

    Returns detections (B, max_det, 6 + nm), padded with rows of zeros, and their number (B,) int64. Equally confident
    rows keep their order. There is no loop, and no operation whose output size depends on the selection.
    """
    batch, n = rows.shape[0], rows.shape[1]
    conf = rows[..., 4].reshape(-1)
    flat = selected[:, 0] * n + selected[:, 2]
    kept = torch.zeros_like(conf).scatter(0, flat, conf[flat]).reshape(batch, n)
    kept = torch.nn.functional.pad(kept, (0, max_det))  # small images may have fewer rows than max_det
    if torch.onnx.is_in_onnx_export():  # ONNX's TopK keeps the order of equal values, PyTorch's does not
        conf, index = kept.topk(max_det, 1)
    else:
        conf, index = (y[:, :max_det] for y in kept.sort(dim=1, descending=True, stable=True))
    index = index.clamp(max=n - 1).unsqueeze(2).expand(-1, -1, rows.shape[2])
    found = conf > 0
    return rows.gather(1, index) * found.unsqueeze(2), found.sum(1)
