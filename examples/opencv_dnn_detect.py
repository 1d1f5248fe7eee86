"""Find objects in pictures with an exported .onnx file: numpy and OpenCV's own DNN module, no other runtime.

Usage:
    python opencv_dnn_detect.py best.onnx photo.jpg more/*.jpg --conf 0.25 --iou 0.45 --out found

Prints ``picture class confidence x1 y1 x2 y2`` and draws into folder --out. OpenCV shows no metadata of an .onnx file,
so the best.onnx.json that export.py writes beside it must be there. Export without --dynamic, --nms, --half.
"""

import argparse
import json
import sys
from pathlib import Path

import cv2
import numpy as np


def load(path):
    """The network of an .onnx file and what export.py wrote about it: names, layout, imgsz, …"""
    beside = Path(f"{path}.json")
    for file in (Path(path), beside):
        if not file.is_file():
            sys.exit(f"{file}: no such file; export.py writes {Path(path).name} and {beside.name} together")
    try:
        metadata = json.loads(beside.read_text(encoding="utf-8"))
        plain = metadata["layout"] == "decoded" and not metadata["dynamic"] and not metadata["half"]
    except (ValueError, TypeError, KeyError):
        sys.exit(f"{beside}: not written by this project's export.py")
    if not plain:
        sys.exit(f"{path}: export it without --nms, --separate-heads, --raw-heads, --dynamic and --half")
    try:
        return cv2.dnn.readNetFromONNX(path), metadata
    except cv2.error as error:
        sys.exit(f"{path}: {error.err}")


def detect(net, metadata, image, conf=0.25, iou=0.45):
    """[(class, confidence, box (4,) xyxy)] in pixels of `image` (h, w, 3) BGR, the most confident first."""
    (height, width), (h, w) = metadata["imgsz"], image.shape[:2]
    ratio = min(height / h, width / w)
    w1, h1 = round(w * ratio), round(h * ratio)
    left, top = round((width - w1) / 2 - 0.1), round((height - h1) / 2 - 0.1)
    canvas = np.full((height, width, 3), 114, np.uint8)
    canvas[top : top + h1, left : left + w1] = cv2.resize(image, (w1, h1))
    blob = cv2.dnn.blobFromImage(canvas, 1 / 255, swapRB=True)  # (1, 3, height, width) RGB 0..1
    net.setInput(blob.repeat(metadata["batch"], 0))  # a file of a fixed batch wants that many
    rows = net.forward("output0")[0]  # (N, 5 + classes [+ mask coefficients])

    scores = rows[:, 4:5] * rows[:, 5 : 5 + len(metadata["names"])]
    classes, scores = scores.argmax(1), scores.max(1)
    boxes = np.hstack((rows[:, :2] - rows[:, 2:4] / 2, rows[:, 2:4]))  # left, top, width, height
    kept = cv2.dnn.NMSBoxesBatched(boxes, scores, classes, conf, iou)
    border = np.array([width - w * ratio, height - h * ratio]) / 2
    found = []
    for i in kept:
        corners = np.stack((boxes[i, :2], boxes[i, :2] + boxes[i, 2:]))
        found.append((int(classes[i]), float(scores[i]), ((corners - border) / ratio).clip(0, (w, h)).ravel()))
    return found


def main(model, pictures, conf, iou, out):
    net, metadata = load(model)
    out.mkdir(parents=True, exist_ok=True)
    for path in pictures:
        image = cv2.imread(path) if Path(path).is_file() else None  # OpenCV complains at length
        if image is None:
            sys.exit(f"{path}: not a picture that OpenCV reads")
        for cls, confidence, box in detect(net, metadata, image, conf, iou):
            name, colour = metadata["names"][str(cls)], tuple(97 * (cls + 1) * k % 200 + 55 for k in (1, 2, 3))
            x1, y1, x2, y2 = box.round().astype(int).tolist()
            cv2.rectangle(image, (x1, y1), (x2, y2), colour, 2)
            text = f"{name} {confidence:.2f}"
            cv2.putText(image, text, (x1, max(y1 - 4, 12)), cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour, 2)
            print(f"{path} {name} {confidence:.4f} {' '.join(f'{v:.2f}' for v in box)}")
        cv2.imwrite(str(out / Path(path).name), image)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Find objects in pictures with OpenCV's DNN module")
    parser.add_argument("model")
    parser.add_argument("pictures", nargs="+")
    for flag, kind, value in (("--conf", float, 0.25), ("--iou", float, 0.45), ("--out", Path, Path("found"))):
        parser.add_argument(flag, type=kind, default=value)
    main(**vars(parser.parse_args()))
