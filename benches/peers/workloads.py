"""The three workloads: names, models, frames and the percentile helper. No third-party imports."""

import pathlib

WORKLOADS = ("jpeg_cls", "mono_seg", "mono_tiny")
MODEL_OF = {"jpeg_cls": "resnet18.onnx", "mono_seg": "unet640.onnx", "mono_tiny": "tiny.onnx"}
WIDTH_PX, HEIGHT_PX = 1280, 1024
# Eight bytes that stand where a frame's number goes.
MARK = b"\xfa\x1cmark\x01\x7f"


def frames(workload, images):
    """Every frame with MARK in it: in a comment of a JPEG, as the last eight pixels of a raw frame.

    Each request carries a number of its own there, so that no two frames of a run have the same bytes: a service that
    keeps images or knows frames again by their digest has to work for each.
    """
    images = pathlib.Path(images)
    if workload == "jpeg_cls":
        files = [file.read_bytes() for file in sorted(images.glob("*.jpg"))]
        return [data[:2] + b"\xff\xfe\x00\x0a" + MARK + data[2:] for data in files]
    return [file.read_bytes()[: -len(MARK)] + MARK for file in sorted(images.glob("*.mono8"))]


def percentile(ascending, q):
    """Nearest rank of an ascending list; None of an empty one."""
    if not ascending:
        return None
    return ascending[min(len(ascending) - 1, max(0, -(-len(ascending) * q // 100) - 1))]
