"""The reference pipeline in Python: image to verdict, as docs/spec/recipe.md says it, on Pillow and ONNX Runtime.

    python models/common/score.py models/NAME/1.0.0/recipe.toml IMAGE...
    python models/common/score.py models/NAME/1.0.0/recipe.toml --crops crops.csv --root IMAGE_FOLDER
    python models/common/score.py models/NAME/1.0.0/recipe.toml --raw Mono8:640x480 FRAME...

Prints one JSON line per frame: {"file", "crop", "scores", "verdict", "reasons"}. The service must give the same scores
and the same verdicts. It is also what the training scripts prepare their tensors with, so a model is trained on what it
will meet. Left out, because no shipped recipe uses them: letterbox, opencv-linear, Bayer frames, anomaly models.
"""

import argparse
import csv
import json
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import blake3
import numpy as np
import onnxruntime
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[2]
SEVERITY = ["OK", "NOT_DECIDABLE", "NOT_OK"]
RESIZE = {
    "pillow-nearest": Image.Resampling.NEAREST,
    "pillow-bilinear": Image.Resampling.BILINEAR,
    "pillow-bicubic": Image.Resampling.BICUBIC,
    "pillow-lanczos": Image.Resampling.LANCZOS,
}
# PFNC name: (numpy type of one value, values per pixel, full scale)
RAW = {
    "Mono8": ("u1", 1, 255),
    "Mono10": ("<u2", 1, 1023),
    "Mono12": ("<u2", 1, 4095),
    "Mono16": ("<u2", 1, 65535),
    "RGB8": ("u1", 3, 255),
    "BGR8": ("u1", 3, 255),
}


@dataclass
class Frame:
    image: Image.Image  # mode L, RGB or I;16
    full_scale: int


# ---- from bytes to a frame ----


def open_frame(path: Path) -> Frame:
    image = Image.open(path)
    if image.mode.startswith("I;16"):
        return Frame(image, 65535)
    if image.mode not in ("L", "RGB"):
        image = image.convert("RGB")
    return Frame(image, 255)


def open_raw(path: Path, form: str) -> Frame:
    """`form` is PFNC:WIDTHxHEIGHT; the file holds exactly the pixels, without padding."""
    name, size = form.split(":")
    width_px, height_px = (int(side) for side in size.split("x"))
    kind, channels, full_scale = RAW[name]
    pixels = np.fromfile(path, kind).reshape(height_px, width_px, channels)
    if name == "BGR8":
        pixels = pixels[..., ::-1]
    return Frame(Image.fromarray(np.ascontiguousarray(pixels.squeeze(-1) if channels == 1 else pixels)), full_scale)


def to_gray(image: Image.Image) -> Image.Image:
    return image.convert("L") if image.mode == "RGB" else image


# ---- quality, on the luma of the whole frame ----


def quality(frame: Frame) -> dict[str, float]:
    luma = np.asarray(to_gray(frame.image), np.float64) / frame.full_scale
    middle = luma[1:-1, 1:-1]
    laplacian = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:] - 4 * middle
    return {
        "mean": float(luma.mean()),
        "saturated_share": float((luma >= 0.995).mean()),
        "focus": float(laplacian.var()) if laplacian.size else 0.0,
    }


def failed_bounds(frame: Frame, bounds: dict[str, float]) -> list[str]:
    seen = quality(frame) if bounds else {}
    failed = []
    for bound, limit in bounds.items():
        name, side = bound.rsplit("_", 1)
        if (seen[name] < limit) if side == "min" else (seen[name] > limit):
            failed.append(bound)
    return failed


# ---- from a frame to a tensor ----


def prepare(image: Image.Image, entry: dict) -> Image.Image:
    """Colour and size as the recipe's [input] wants them, still as integers."""
    if entry["fit"] != "stretch" or (entry["resize"] not in RESIZE and entry["resize"] != "none"):
        raise NotImplementedError(f"{entry['fit']} with {entry['resize']} is left to the service")
    image = to_gray(image) if entry["colour"] == "gray" else image.convert("RGB")
    size = (entry["width_px"], entry["height_px"])
    if entry["resize"] == "none":
        if image.size != size:
            raise ValueError(f"the frame is {image.size}, the recipe wants exactly {size}")
        return image
    return image if image.size == size else image.resize(size, RESIZE[entry["resize"]])


def to_tensor(frame: Frame, entry: dict) -> np.ndarray:
    """[C, height_px, width_px], float32."""
    pixels = np.asarray(prepare(frame.image, entry), np.float32) / np.float32(frame.full_scale)
    planes = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    if entry["colour"] == "bgr":
        planes = planes[::-1]
    mean, std = (np.asarray(entry[key], np.float32).reshape(-1, 1, 1) for key in ("mean", "std"))
    return np.ascontiguousarray((planes - mean) / std)


# ---- from logits to scores ----


def calibrated(logits: np.ndarray, calibration: dict | None) -> np.ndarray:
    method = calibration["method"] if calibration else "identity"
    if method == "temperature":
        return logits / np.float32(calibration["temperature"])
    if method == "platt":
        return logits * np.float32(calibration["slope"]) + np.float32(calibration["intercept"])
    return logits


def activated(logits: np.ndarray, activation: str) -> np.ndarray:
    """`logits` has its labels on axis 0."""
    if activation == "sigmoid":
        # Written with tanh, so that a large negative logit does not overflow the exponential.
        return np.float32(0.5) * (np.tanh(np.float32(0.5) * logits) + np.float32(1))
    if activation == "softmax":
        power = np.exp(logits - logits.max(0, keepdims=True))
        return power / power.sum(0, keepdims=True)
    return logits


def map_scores(probability: np.ndarray, output: dict) -> np.ndarray:
    """[L, h, w] to [L]."""
    flat = probability.reshape(len(probability), -1)
    if output["map_score"] == "max":
        return flat.max(1)
    if output["map_score"] == "area-share":
        return (flat >= output["pixel_threshold"]).mean(1)
    k = min(output["top_k"], flat.shape[1])
    return np.partition(flat, flat.shape[1] - k, axis=1)[:, -k:].mean(1)


def scores_of(logits: np.ndarray, output: dict, calibration: dict | None) -> np.ndarray:
    """One frame's output tensor to one score per label."""
    scores = activated(calibrated(logits, calibration), output["activation"])
    return map_scores(scores, output) if output["kind"] == "segmentation" else scores


# ---- from scores to a verdict ----


def decide(scores: dict[str, float], recipe: dict, failed: list[str]) -> tuple[str, list[str]]:
    policy = recipe["policy"]
    overrides = policy.get("class", {})
    # In float32 on both sides, as the service compares.
    compare = np.greater if policy["comparator"] == ">" else np.greater_equal
    reached = lambda score, bar: bool(compare(np.float32(score), np.float32(bar)))
    worst, reasons = 0, list(failed)
    for label, score in scores.items():
        if not np.isfinite(score):
            raise ValueError(f"the score of {label} is {score}: an inference fault, no verdict")
        rule = policy | overrides.get(label, {})
        if rule.get("role", "defect") == "ok":
            continue
        if reached(score, rule["reject"]):
            worst = 2
            reasons.append(f"{label} >= reject")
        elif reached(score, rule["review"]):
            worst = max(worst, 1)
            reasons.append(f"{label} >= review")
    verdict = SEVERITY[worst]
    unsure = recipe["output"]["kind"] == "classification" and max(scores.values()) < policy.get("top_score_min", 0.0)
    if unsure:
        reasons.append("top score under top_score_min")
    return ("NOT_DECIDABLE" if unsure or failed else verdict), reasons


class Pipeline:
    """A recipe with its model and calibration loaded, digests checked."""

    def __init__(self, recipe_file: Path, calibration_folder: Path = REPOSITORY / "calibration", threads: int = 1):
        self.recipe = tomllib.loads(recipe_file.read_text("utf-8"))
        model = checked(recipe_file.parent / self.recipe["model"]["file"], self.recipe["model"]["digest"])
        self.calibration = None
        if named := self.recipe.get("calibration"):
            self.calibration = tomllib.loads(checked(calibration_folder / named["file"], named["digest"]).decode())
            if self.calibration["model"] != self.recipe["model"]["digest"]:
                raise ValueError("the calibration was fitted on another model")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def logits(self, tensors: np.ndarray) -> np.ndarray:
        wanted = [self.recipe["output"]["tensor"]]
        return self.session.run(wanted, {self.recipe["input"]["tensor"]: tensors})[0]

    def run(self, frame: Frame) -> dict:
        recipe = self.recipe
        self.check_size(frame)
        logits = self.logits(to_tensor(frame, recipe["input"])[None])[0]
        values = scores_of(logits, recipe["output"], self.calibration)
        scores = {label: float(value) for label, value in zip(recipe["output"]["labels"], values, strict=True)}
        verdict, reasons = decide(scores, recipe, failed_bounds(frame, recipe.get("quality", {})))
        return {"scores": scores, "verdict": verdict, "reasons": reasons}

    def check_size(self, frame: Frame) -> None:
        for side, name in zip(frame.image.size, ("width_px", "height_px")):
            bounds = self.recipe["frame"][name]
            if not bounds["min"] <= side <= bounds["max"]:
                raise ValueError(f"{name} is {side}, the recipe takes {bounds['min']}..{bounds['max']}")


def checked(path: Path, digest: str) -> bytes:
    data = path.read_bytes()
    if digest_of(data) != digest:
        raise ValueError(f"{path} is {digest_of(data)}, the recipe names {digest}")
    return data


def digest_of(data: bytes) -> str:
    return "blake3:" + blake3.blake3(data).hexdigest()


# ---- the command ----


def frames_named(arguments: argparse.Namespace):
    """Yields (file, crop or None, frame)."""
    if arguments.crops:
        with open(arguments.crops, newline="", encoding="utf-8") as lines:
            for row in csv.DictReader(lines):
                x, y, w, h = (int(row[key]) for key in "xywh")
                frame = open_frame(arguments.root / row["image"])
                yield row["image"], [x, y, w, h], Frame(frame.image.crop((x, y, x + w, y + h)), frame.full_scale)
    for name in arguments.images:
        yield name, None, open_raw(Path(name), arguments.raw) if arguments.raw else open_frame(Path(name))


def main() -> int:
    parser = argparse.ArgumentParser(description="Scores images with a recipe, as the service must.")
    parser.add_argument("recipe", type=Path)
    parser.add_argument("images", nargs="*")
    parser.add_argument("--crops", type=Path, help="CSV file with the columns image, x, y, w, h")
    parser.add_argument("--root", type=Path, default=Path("."), help="folder the CSV file's images are in")
    parser.add_argument("--raw", metavar="PFNC:WxH", help="read the images as raw pixels, for example Mono8:640x480")
    parser.add_argument("--calibrations", type=Path, default=REPOSITORY / "calibration")
    arguments = parser.parse_args()
    pipeline = Pipeline(arguments.recipe, arguments.calibrations)
    for file, crop, frame in frames_named(arguments):
        print(json.dumps({"file": file, "crop": crop, **pipeline.run(frame)}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
