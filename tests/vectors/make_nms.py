"""Makes tests/vectors/nms.json: which boxes torchvision keeps of small sets of boxes.

    python tests/vectors/make_nms.py > tests/vectors/nms.json
    (torchvision 0.29.2, torch 2.15.0, opencv-python-headless 4.12.0.88)

Every label is suppressed by itself with `torchvision.ops.nms`, on the CPU, as `batched_nms` does it where boxes are many.
`cv2.dnn.NMSBoxes` keeps the same boxes in all of them but those with a limit of 0 or 1, which it does not take; this is
asserted. Numbers are the bits of 32-bit floats: left, top, right, bottom, score.
"""

import json
import struct

import cv2
import numpy as np
import torch
from torchvision.ops import nms

rng = np.random.default_rng(20261127)


def scattered(count, side, size):
    corner = rng.uniform(0, side, (count, 2))
    return np.concatenate([corner, corner + rng.uniform(1, size, (count, 2))], axis=1)


def clustered(clusters, each):
    boxes = np.repeat(scattered(clusters, 600, 80), each, axis=0)
    return boxes + rng.normal(0, 4, boxes.shape)


def on_a_grid(count):
    """Whole numbers, so that many pairs have one and the same overlap, some of them exactly the limit."""
    corner = rng.integers(0, 12, (count, 2)) * 5.0
    return np.concatenate([corner, corner + rng.integers(1, 5, (count, 2)) * 5.0], axis=1)


def cases():
    for iou_max in (0.3, 0.45, 0.5, 0.7):
        yield f"scattered {iou_max}", scattered(60, 300, 120), rng.random(60), 3, iou_max
        yield f"clustered {iou_max}", clustered(8, 8), rng.random(64), 2, iou_max
        yield f"grid {iou_max}", on_a_grid(60), rng.random(60), 2, iou_max
        yield f"ties {iou_max}", on_a_grid(60), rng.integers(1, 5, 60) / 4, 2, iou_max
        yield f"one label, all tied {iou_max}", clustered(6, 6), np.full(36, 0.5), 1, iou_max
    for iou_max in (0.0, 1.0, 1 / 3):
        yield f"grid, ties {iou_max:.2f}", on_a_grid(50), rng.integers(1, 4, 50) / 4, 1, iou_max
    yield "one box", scattered(1, 10, 10), np.array([0.5]), 1, 0.5
    yield "the same box twice", np.tile(scattered(1, 10, 10), (2, 1)), np.array([0.5, 0.5]), 1, 0.5


def by_opencv(boxes, scores, iou_max):
    xywh = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1).astype(np.float64)
    return list(cv2.dnn.NMSBoxes(xywh.tolist(), scores.tolist(), 0.0, float(iou_max)))


def main():
    vectors = []
    for name, boxes, scores, labels, iou_max in cases():
        boxes, scores, iou_max = boxes.astype(np.float32), scores.astype(np.float32), np.float32(iou_max)
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        label = rng.integers(0, labels, len(boxes))
        kept, others = [], []
        for one in range(labels):
            at = np.flatnonzero(label == one)
            if at.size == 0:
                continue
            of_label = nms(torch.from_numpy(boxes[at]), torch.from_numpy(scores[at]), float(iou_max))
            kept += at[of_label.numpy()].tolist()
            others += at[by_opencv(boxes[at], scores[at], iou_max)].tolist()
        assert kept == others or iou_max in (0.0, 1.0), name
        bits = np.concatenate([boxes, scores[:, None]], axis=1).astype(np.float32).view(np.uint32)
        vectors.append({
            "name": name, "boxes": bits.tolist(), "labels": label.tolist(),
            "iou_max": struct.unpack("<I", struct.pack("<f", iou_max))[0], "kept": kept,
        })
    print("[\n" + ",\n".join(json.dumps(vector) for vector in vectors) + "\n]")


main()
