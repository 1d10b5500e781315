"""Trains, calibrates and tests ball-screw-pitting on BSData.

python models/ball-screw-pitting/train.py --data BSDATA_FOLDER --out FOLDER

Writes model.onnx, recipe.toml, the calibration file and metrics.json.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from common.metrics import average_precision, bootstrap, overlap, ranking_quality, verdict_shares, wilson
from common.nets import MapNet
from common.score import Frame, map_scores, to_tensor
from common.training import (
    SEED, export, fit, fit_platt, map_loss, maps_of, one_core_ms, seed_everything, write_release,
)  # fmt: skip
from data import HEIGHT_PX, MAP, SHARE_X, SHARE_Y, WIDTH_PX, Picture, grid, label_of, pictures

STEPS = 1100
BATCH = 16
TOP_K = 16  # map pixels, so about 8 x 8 pixels of the input: a small pit
PIXEL_THRESHOLD = 0.5
INPUT = {
    "colour": "gray", "width_px": WIDTH_PX, "height_px": HEIGHT_PX, "resize": "pillow-bilinear", "fit": "stretch",
    "mean": [0.5], "std": [0.25],
}  # fmt: skip
# On the validation part: at most this share of bad crops passed, at most this share of good crops rejected.
ESCAPE_ALLOWED = 0.04
OVERKILL_ALLOWED = 0.02

CALIBRATION = """\
format = 1
name = "ball-screw-pitting"
version = "1.0.0"
model = "MODEL_DIGEST"
method = "platt"
slope = {slope}
intercept = {intercept}
fitted_on = "BSData, pixels of {crops} crops of {images} frames held out by place, seed {seed}"
note = "undoes the weight that training gave to defect pixels; least negative log-likelihood per pixel"
"""

RECIPE = """\
format = 1
name = "ball-screw-pitting"
version = "1.0.0"
title = "Pitting on ball screws, one crop of a quarter by a half of a frame"

[model]
file = "model.onnx"
digest = "MODEL_DIGEST"

[calibration]
file = "ball-screw-pitting-1.0.0.toml"
digest = "CALIBRATION_DIGEST"

# A frame is one crop: a quarter of the width and half of the height of a picture that shows the whole screw.
[frame]
formats = ["png", "jpeg", "bmp", "tiff", "Mono8", "RGB8", "BGR8"]
width_px = {{ min = 200, max = 800 }}
height_px = {{ min = 160, max = 640 }}
encoded_bytes_max = 4194304

[quality]
mean_min = 0.02
mean_max = 0.95

[input]
tensor = "input"
colour = "gray"
width_px = {width_px}
height_px = {height_px}
resize = "pillow-bilinear"
fit = "stretch"
mean = [0.5]
std = [0.25]

[output]
kind = "segmentation"
tensor = "logits"
activation = "sigmoid"
labels = ["pitting"]
map_score = "top-k-mean"
top_k = {top_k}
pixel_threshold = {pixel_threshold}

[policy]
comparator = ">="
review = {review:.3f}
reject = {reject:.3f}
"""


def cut(picture: Picture, box: tuple[float, float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """The input tensor [1, 208, 256] of a crop and its target [1, 104, 128]: the share of pitting in each map pixel."""
    x, y, w, h = box
    area = (round(x), round(y), round(x + w), round(y + h))
    tensor = to_tensor(Frame(picture.gray.crop(area), 255), INPUT)
    target = np.asarray(picture.pitting.crop(area).resize(MAP, Image.Resampling.BOX), np.float32) / 255
    return tensor, target[None]


class Sampler:
    """Draws training crops: free of the grid, other zoom, mirrored, other exposure, a little noise."""

    def __init__(self, found: list[Picture], rng: np.random.Generator):
        self.rng = rng
        self.worn = [picture for picture in found if picture.worn]
        self.others = [picture for picture in found if not picture.worn]
        self.spots = {id(picture): np.argwhere(np.asarray(picture.pitting) > 0) for picture in found}

    def batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        pairs = [self.one() for _ in range(BATCH)]
        return torch.from_numpy(np.stack([x for x, _ in pairs])), torch.from_numpy(np.stack([y for _, y in pairs]))

    def one(self) -> tuple[np.ndarray, np.ndarray]:
        rng = self.rng
        # The clean and soiled screws are few, but harder and more varied than the worn one.
        part = self.others if rng.random() < 0.35 else self.worn
        picture = part[rng.integers(len(part))]
        zoom = rng.uniform(0.8, 1.25)
        w, h = picture.gray.width / SHARE_X * zoom, picture.gray.height / SHARE_Y * zoom * rng.uniform(0.92, 1.08)
        h = min(h, picture.gray.height)
        x, y = rng.uniform(0, picture.gray.width - w), rng.uniform(0, picture.gray.height - h)
        if rng.random() < 0.6:
            spots = self.spots[id(picture)]
            row, column = spots[rng.integers(len(spots))]
            x = np.clip(column - rng.uniform(0.05, 0.95) * w, 0, picture.gray.width - w)
            y = np.clip(row - rng.uniform(0.05, 0.95) * h, 0, picture.gray.height - h)
        tensor, target = cut(picture, (x, y, w, h))
        if rng.random() < 0.5:
            tensor, target = tensor[..., ::-1], target[..., ::-1]
        tensor = tensor * rng.uniform(0.8, 1.2) + rng.uniform(-0.4, 0.4)
        noise = rng.standard_normal(tensor.shape, dtype=np.float32) * rng.uniform(0.0, 0.06)
        return (tensor + noise).astype(np.float32), np.ascontiguousarray(target)


class GridCrops:
    """All grid crops of a part of the data, with what the model says about them."""

    def __init__(self, model: torch.nn.Module, found: list[Picture]):
        rows = [(picture, crop) for picture in found for crop in grid(picture)]
        self.picture = np.array([picture.name for picture, _ in rows])
        self.worn = np.array([picture.worn for picture, _ in rows])
        self.label = np.array([label_of(picture, crop) for picture, crop in rows])
        pairs = [cut(picture, crop) for picture, crop in rows]
        self.target = np.stack([y for _, y in pairs]) >= 0.5
        self.logits = maps_of(model, torch.from_numpy(np.stack([x for x, _ in pairs])))

    def calibrate(self, slope: float, intercept: float) -> None:
        z = torch.from_numpy(self.logits) * slope + intercept
        self.probability = torch.sigmoid(z).numpy()
        rule = {"map_score": "top-k-mean", "top_k": TOP_K}
        self.score = np.array([map_scores(one, rule)[0] for one in self.probability])

    def figures(self, review: float, reject: float, rows: np.ndarray) -> dict:
        judged = rows & (self.label != "excluded")
        bad, score = self.label[judged] == "bad", self.score[judged]
        truth, guess = self.target[rows], self.probability[rows] >= PIXEL_THRESHOLD
        names = self.picture[rows]
        sheets = sorted(set(names))
        # Per picture, so that the intervals resample pictures: crops of one picture are not independent.
        both = np.array([(truth & guess)[names == name].sum() for name in sheets])
        either = np.array([(truth | guess)[names == name].sum() for name in sheets])
        # Every picture here contains pitting: it escapes when every one of its crops comes out OK.
        passed = sum(bool((self.score[rows][names == name] < review).all()) for name in sheets)
        return {
            "pictures": len(sheets),
            "crops": {kind: int((self.label[rows] == kind).sum()) for kind in ("bad", "good", "excluded")},
            "crop": verdict_shares(bad, score, review, reject) | {"roc_area": ranking_quality(bad, score)},
            "picture_escape": wilson(passed, len(sheets)),
            "pixel": overlap(truth, guess)
            | {
                "iou_interval_95": bootstrap(lambda b, e: b.sum() / max(e.sum(), 1), both, either),
                "average_precision": round(average_precision(truth.reshape(-1), self.probability[rows].reshape(-1)), 4),
            },
        }

    def by_kind(self, review: float, reject: float) -> dict:
        rows = {"all": np.ones(len(self.worn), bool), "worn_screw": self.worn, "other_screws": ~self.worn}
        return {name: self.figures(review, reject, pick) for name, pick in rows.items()}


def choose(crops: GridCrops) -> tuple[float, float]:
    """Review as high as the allowed escape permits; reject as low as the allowed overkill permits."""
    bad, good = (np.sort(crops.score[crops.label == kind]).astype(float) for kind in ("bad", "good"))
    review = bad[int(ESCAPE_ALLOWED * len(bad))]
    reject = good[-1 - int(OVERKILL_ALLOWED * len(good))]
    # Rounded towards caution: a bad crop is reviewed sooner, a good one rejected later. Were good and bad so far apart
    # that the two cross, the lower one would be the bar for review.
    bars = float(np.floor(review * 1000 - 1) / 1000), float(np.ceil(reject * 1000 + 1) / 1000)
    review, reject = min(bars), max(bars)
    return round(max(review, 0.001), 3), round(min(reject, 0.999), 3)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds image_data.json")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--weights", type=Path, help="take these weights (weights.pt) instead of training")
    arguments = parser.parse_args()

    rng = seed_everything(arguments.threads)
    found = pictures(arguments.data)
    part = {name: [picture for picture in found if picture.split == name] for name in ("train", "val", "test")}
    arguments.out.mkdir(parents=True, exist_ok=True)
    model = MapNet(1).eval()
    if arguments.weights:
        model.load_state_dict(torch.load(arguments.weights))
    else:
        model = fit(model, Sampler(part["train"], rng).batch, map_loss(3.0), STEPS, peak_rate=4e-3)
        torch.save(model.state_dict(), arguments.out / "weights.pt")

    val, test = GridCrops(model, part["val"]), GridCrops(model, part["test"])
    slope, intercept = fit_platt(val.logits, val.target)
    for crops in (val, test):
        crops.calibrate(slope, intercept)
    review, reject = choose(val)
    data = export(model, HEIGHT_PX, WIDTH_PX)
    metrics = {
        "name": "ball-screw-pitting", "version": "1.0.0", "review": review, "reject": reject, "top_k": TOP_K,
        "slope": slope, "intercept": intercept, "pictures": {name: len(some) for name, some in part.items()},
        "parameters": sum(p.numel() for p in model.parameters()), "bytes": len(data),
        "one_core_ms": round(one_core_ms(data, HEIGHT_PX, WIDTH_PX), 2),
        "val": val.by_kind(review, reject), "test": test.by_kind(review, reject),
    }  # fmt: skip
    calibration = CALIBRATION.format(
        slope=slope, intercept=intercept, crops=len(val.label), images=len(part["val"]), seed=SEED
    )
    recipe = RECIPE.format(
        width_px=WIDTH_PX, height_px=HEIGHT_PX, top_k=TOP_K, pixel_threshold=PIXEL_THRESHOLD, review=review, reject=reject
    )
    write_release(arguments.out, "ball-screw-pitting", "1.0.0", data, calibration, recipe, metrics)
    np.savez_compressed(
        arguments.out / "crops.npz", val_score=val.score, val_label=val.label, test_score=test.score, test_label=test.label
    )


if __name__ == "__main__":
    main()
