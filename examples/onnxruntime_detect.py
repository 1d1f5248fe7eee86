"""Find objects in pictures with an exported .onnx file: numpy, OpenCV and ONNX Runtime, nothing else of this project.

Usage:
    python onnxruntime_detect.py best.onnx photo.jpg more/*.jpg --conf 0.25 --iou 0.45 --out found

Prints ``picture class confidence x1 y1 x2 y2``, for a segmenter also ``mask N`` (pixels), and draws into folder --out.
Takes detectors and segmenters, with NMS in the file (export.py --nms) or without, also --separate-heads and --half.
"""

import argparse
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import onnxruntime as ort


def load(path):
    """The session of an .onnx file and what export.py wrote about it: names, layout, imgsz, …"""
    ort.set_default_logger_severity(3)  # errors: of an 8-bit file it would tell each constant that it drops
    try:
        session = ort.InferenceSession(path, providers=ort.get_available_providers())
        metadata = json.loads(session.get_modelmeta().custom_metadata_map.get("yolov5", "{}"))
        layout = metadata.get("layout")
    except Exception as error:  # ONNX Runtime has a class of its own for each of many reasons
        sys.exit(f"{path}: {str(error).splitlines()[0]}")
    if layout not in ("decoded", "separate", "nms"):
        sys.exit(f"{path}: {'export it without --raw-heads' if layout else 'not a file of this project'}")
    return session, metadata


def letterbox(image, size):
    """`image` (h, w, 3) BGR fitted into `size` (H, W) as (1, 3, H, W) RGB 0..1; its scale and border (x, y) there."""
    (height, width), (h, w) = size, image.shape[:2]
    ratio = min(height / h, width / w)
    w1, h1 = round(w * ratio), round(h * ratio)
    left, top = round((width - w1) / 2 - 0.1), round((height - h1) / 2 - 0.1)
    canvas = np.full((height, width, 3), 114, np.uint8)
    canvas[top : top + h1, left : left + w1] = cv2.resize(image, (w1, h1))
    pad = np.array([width - w * ratio, height - h * ratio]) / 2
    return np.float32(canvas[None, ..., ::-1].transpose(0, 3, 1, 2)) / 255, ratio, pad


def decode(outputs, metadata, conf, iou):
    """Detections: boxes (n, 4) xyxy in the input's pixels, confidences, classes, mask coefficients; the best first."""
    if metadata["layout"] == "nms":  # done in the file
        rows = outputs["detections"][0][outputs["detections"][0, :, 4] > conf]
        return rows[:, :4], rows[:, 4], rows[:, 5].astype(int), rows[:, 6:]
    if metadata["layout"] == "separate":
        xywh, each = outputs["boxes"][0], outputs["scores"][0]
        coefficients = outputs.get("coefficients", xywh[None, :, :0])[0]
    else:
        rows, nc = outputs["output0"][0], len(metadata["names"])
        xywh, each, coefficients = rows[:, :4], rows[:, 4:5] * rows[:, 5 : 5 + nc], rows[:, 4:5] * rows[:, 5 + nc :]
    boxes = np.hstack((xywh[:, :2] - xywh[:, 2:] / 2, xywh[:, 2:]))  # left, top, width, height, as OpenCV wants them
    scores, classes = each.max(1), each.argmax(1)
    kept = np.array(cv2.dnn.NMSBoxesBatched(boxes, scores, classes, conf, iou), int)
    corners = np.hstack((boxes[kept, :2], boxes[kept, :2] + boxes[kept, 2:]))
    return corners, scores[kept], classes[kept], coefficients[kept]


def mask_in_box(logits, box, ratio, pad, size):
    """(h, w) bool, the mask of the picture's pixels in `box`: `logits` (mh, mw) cover an input of `size` (H, W)."""
    corner, far = np.ceil(box.reshape(2, 2) - 0.5).astype(int)  # a pixel belongs to a box if its centre does
    cells = np.array(logits.shape[::-1]) / size[::-1]  # of the prototypes, per pixel of the input
    matrix = np.column_stack((np.diag(ratio * cells), ((corner + 0.5) * ratio + pad) * cells - 0.5))  # box to cells
    how, span = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, np.maximum(far - corner, 1).tolist()
    return cv2.warpAffine(logits, matrix, span, flags=how, borderMode=cv2.BORDER_REPLICATE) > 0


def detect(session, metadata, image, conf=0.25, iou=0.45):
    """[(class, confidence, box (4,) xyxy, its mask or None)] in pixels of `image`, the most confident first."""
    wanted, size = session.get_inputs()[0], metadata["imgsz"]
    batch = 1 if metadata["dynamic"] else metadata["batch"]  # a file of a fixed batch wants that many
    blob, ratio, pad = letterbox(image, size)
    blob = blob.repeat(batch, 0).astype("float16" if "float16" in wanted.type else "float32")
    names = [output.name for output in session.get_outputs()]
    outputs = dict(zip(names, map(np.float32, session.run(names, {wanted.name: blob})), strict=True))
    prototypes, found = outputs.get("prototypes", outputs.get("output1")), []
    for box, score, cls, row in zip(*decode(outputs, metadata, conf, iou), strict=True):
        box = ((box.reshape(2, 2) - pad) / ratio).clip(0, image.shape[1::-1]).ravel()
        mask = None if prototypes is None else mask_in_box(np.tensordot(row, prototypes[0], 1), box, ratio, pad, size)
        found.append((int(cls), float(score), box, mask))
    return found


def draw(image, text, box, mask, colour):
    """Paint one detection on `image`, in place."""
    x1, y1, x2, y2 = np.ceil(box - 0.5).astype(int).tolist()
    if mask is not None and (region := image[y1:y2, x1:x2]).size:
        region[mask] = region[mask] // 2 + np.uint8(colour) // 2
    cv2.rectangle(image, (x1, y1), (x2, y2), colour, 2)
    cv2.putText(image, text, (x1, max(y1 - 4, 12)), cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour, 2)


def main(model, pictures, conf, iou, out):
    session, metadata = load(model)
    out.mkdir(parents=True, exist_ok=True)
    for path in pictures:
        image = cv2.imread(path) if Path(path).is_file() else None  # OpenCV complains at length
        if image is None:
            sys.exit(f"{path}: not a picture that OpenCV reads")
        for cls, confidence, box, mask in detect(session, metadata, image, conf, iou):
            name, colour = metadata["names"][str(cls)], tuple(97 * (cls + 1) * k % 200 + 55 for k in (1, 2, 3))
            draw(image, f"{name} {confidence:.2f}", box, mask, colour)
            area = "" if mask is None else f" mask {mask.sum()}"
            print(f"{path} {name} {confidence:.4f} {' '.join(f'{v:.2f}' for v in box)}{area}")
        cv2.imwrite(str(out / Path(path).name), image)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Find objects in pictures with an exported .onnx file")
    parser.add_argument("model")
    parser.add_argument("pictures", nargs="+")
    for flag, kind, value in (("--conf", float, 0.25), ("--iou", float, 0.45), ("--out", Path, Path("found"))):
        parser.add_argument(flag, type=kind, default=value)
    main(**vars(parser.parse_args()))
