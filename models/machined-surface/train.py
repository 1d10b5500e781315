"""Trains, calibrates and tests machined-surface on simulated parts.

lineproof camera simulate --write DATA/train --count 6000 --seed 101 --defect-rate 0.6
lineproof camera simulate --write DATA/val   --count 2400 --seed 102 --defect-rate 0.5
lineproof camera simulate --write DATA/test  --count 3000 --seed 103 --defect-rate 0.5
python models/machined-surface/train.py --data DATA --out FOLDER

Writes model.onnx, recipe.toml, the calibration file and metrics.json.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from common.metrics import average_precision, bootstrap, overlap, ranking_quality, verdict_shares
from common.nets import MapNet
from common.score import map_scores
from common.training import SEED, export, fit, maps_of, one_core_ms, seed_everything, write_release

VERSION = "1.1.0"
SIDE_PX = 512
CELL_PX = 4  # a map cell is 4 x 4 pixels of the input
# Trained on crops, as (side, how many per batch, share of batches): the network looks at neighbourhoods, and small crops
# show more defects in the same time; the larger ones keep it used to whole holes, edges and stains.
CROPS = ((128, 32, 0.6), (256, 8, 0.4))
LABELS = ("scratch", "dent", "pit", "stain")  # the mask's values 1 to 4
BIT_OF_LABEL = np.array([0, 1, 2, 4, 8], np.uint8)
WIDTHS = (16, 32, 64, 96, 128)
STEPS = 18000
# So often the network so far is asked about some training parts, and where it errs becomes part of the crops.
LOOKS = 6
LOOKED_AT = 1500
# Before calibration, and focal loss makes all of them large: the bar between good and bad comes out near 0.75.
FALSE_ALARM_FROM, MISSED_TO = 0.65, 0.75
# Where crops come from, as shares: around a defect, around a cosmetic mark, where a look found an error, anywhere.
CROPS_FROM = (0.4, 0.1, 0.2, 0.3)
TOP_K = 4  # map cells: the smallest pit that counts covers two to four
PIXEL_THRESHOLD = 0.5
MEAN, STD = 0.5, 0.25
# The figures also stand per severity of a part's worst mark: from (included), to (excluded). From 1 a part is bad.
SEVERITIES = {
    "no mark": (0, 1e-9), "below 0.6": (1e-9, 0.6), "0.6 to 1": (0.6, 1),
    "1 to 1.2": (1, 1.2), "1.2 to 1.6": (1.2, 1.6), "1.6 to 2.4": (1.6, 2.4), "from 2.4": (2.4, np.inf),
}  # fmt: skip
# On the validation parts: at most this share of bad parts passed, and of good parts rejected.
ESCAPE_ALLOWED = 0.015
OVERKILL_ALLOWED = 0.01

CALIBRATION = """\
format = 1
name = "machined-surface"
version = "{version}"
model = "MODEL_DIGEST"
method = "platt"
slope = {slope}
intercept = {intercept}
fitted_on = "{parts} simulated parts, simulator seed 102, training seed {seed}"
note = "least negative log-likelihood of the four scores of a part, so that a score is close to the chance of that defect"
"""

RECIPE = """\
format = 1
name = "machined-surface"
version = "{version}"
title = "Simulated machined, cast and moulded surfaces: scratch, dent, pit, stain"

[model]
file = "model.onnx"
digest = "MODEL_DIGEST"

[calibration]
file = "machined-surface-{version}.toml"
digest = "CALIBRATION_DIGEST"

# Trained at 512 x 512. Larger frames are made smaller; much smaller ones have lost what the network looks for.
[frame]
formats = ["png", "jpeg", "bmp", "tiff", "Mono8", "Mono10", "Mono12", "Mono16", "RGB8", "BGR8"]
width_px = {{ min = 256, max = 4096 }}
height_px = {{ min = 256, max = 4096 }}
encoded_bytes_max = 33554432

[quality]
mean_min = {mean_min}
mean_max = {mean_max}
saturated_share_max = {saturated_share_max}
focus_min = {focus_min}

[input]
tensor = "input"
colour = "gray"
width_px = {side}
height_px = {side}
resize = "pillow-bilinear"
fit = "stretch"
mean = [{mean}]
std = [{std}]

[output]
kind = "segmentation"
tensor = "logits"
activation = "sigmoid"
labels = [{labels}]
map_score = "top-k-mean"
top_k = {top_k}
pixel_threshold = {pixel_threshold}

[policy]
comparator = ">="
review = {review:.3f}
reject = {reject:.3f}
"""
# Wide around what simulated frames show (mean 0.11 to 0.69, saturated up to 0.04, focus from 0.0005): only a covered
# lens or a dead lamp fails them.
QUALITY = {"mean_min": 0.02, "mean_max": 0.95, "saturated_share_max": 0.9, "focus_min": 0.000005}


class Parts:
    """One folder of simulated parts."""

    def __init__(self, folder: Path):
        lines = [json.loads(line) for line in (folder / "labels.jsonl").read_text("utf-8").splitlines()]
        self.frames = np.stack([np.asarray(Image.open(folder / line["frame"]).convert("L")) for line in lines])
        self.masks = np.stack([np.asarray(Image.open(folder / line["mask"])) for line in lines])
        self.is_bad = np.array([line["is_bad"] for line in lines])
        self.surface = np.array([line["surface"] for line in lines])
        marks = [(number, mark) for number, line in enumerate(lines) for mark in line["defects"]]
        most = [max((mark["severity"] for mark in line["defects"]), default=0.0) for line in lines]
        # Of the part's worst mark, in times of the acceptance limit; 0 without a mark.
        self.severity = np.array(most)
        # As (part, box) each.
        self.defects = [(number, mark["bbox"]) for number, mark in marks if mark["is_over_limit"]]
        self.cosmetic = [(number, mark["bbox"]) for number, mark in marks if not mark["is_over_limit"]]


def tensor_of(frames: np.ndarray) -> np.ndarray:
    """[N, 512, 512] to [N, 1, 512, 512]: what the recipe makes of a frame of this size."""
    return ((frames.astype(np.float32) / 255 - MEAN) / STD)[:, None]


def cells_of(mask: np.ndarray) -> np.ndarray:
    """[H, W] labels to [4, H/4, W/4]: a cell counts when the defect touches it, so that a hairline stays whole."""
    bits = BIT_OF_LABEL[mask]
    rows = np.bitwise_or.reduce([bits[first::CELL_PX] for first in range(CELL_PX)])
    cells = np.bitwise_or.reduce([rows[:, first::CELL_PX] for first in range(CELL_PX)])
    return (cells & BIT_OF_LABEL[1:, None, None]) > 0


class Sampler:
    """Draws training crops from where `CROPS_FROM` says; turned, mirrored, other exposure, a little noise."""

    def __init__(self, parts: Parts, rng: np.random.Generator):
        self.parts, self.rng = parts, rng
        self.errors: list[tuple[int, list[int]]] = []

    def batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        side_px, count, _ = CROPS[self.rng.choice(len(CROPS), p=[share for _, _, share in CROPS])]
        pairs = [self.one(side_px) for _ in range(count)]
        return torch.from_numpy(np.stack([x for x, _ in pairs])), torch.from_numpy(np.stack([y for _, y in pairs]))

    def one(self, side_px: int) -> tuple[np.ndarray, np.ndarray]:
        rng, room = self.rng, SIDE_PX - side_px
        boxes = (self.parts.defects, self.parts.cosmetic, self.errors, ())[rng.choice(4, p=CROPS_FROM)]
        if boxes:
            number, (left, top, right, bottom) = boxes[rng.integers(len(boxes))]
            x = np.clip(rng.integers(left, right) - rng.integers(8, side_px - 8), 0, room)
            y = np.clip(rng.integers(top, bottom) - rng.integers(8, side_px - 8), 0, room)
        else:
            number = rng.integers(len(self.parts.frames))
            x, y = rng.integers(0, room + 1, 2)
        window = (number, slice(y, y + side_px), slice(x, x + side_px))
        turns, mirrored = rng.integers(4), rng.random() < 0.5
        frame, mask = (np.rot90(some[window], turns) for some in (self.parts.frames, self.parts.masks))
        if mirrored:
            frame, mask = frame[:, ::-1], mask[:, ::-1]
        tensor = tensor_of(frame[None])[0] * rng.uniform(0.85, 1.15) + rng.uniform(-0.25, 0.25)
        noise = rng.standard_normal(tensor.shape, dtype=np.float32) * rng.uniform(0.0, 0.03)
        return (tensor + noise).astype(np.float32), cells_of(mask).astype(np.float32)

    def look(self, model: torch.nn.Module) -> None:
        """Asks the network about some parts and adds the worst cell of each where it is clearly wrong."""
        before = len(self.errors)
        for number in self.rng.choice(len(self.parts.frames), min(LOOKED_AT, len(self.parts.frames)), replace=False):
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                x = torch.from_numpy(tensor_of(self.parts.frames[number][None]))
                guess = torch.sigmoid(model(x.to(memory_format=torch.channels_last))[0].float()).numpy()
            truth = cells_of(self.parts.masks[number])
            # A defect is found when one cell of it is; the cells around it are nobody's error.
            false_alarm = np.where(near(truth.any(0)), 0, guess.max(0) - FALSE_ALARM_FROM)
            found = np.where(truth, guess, 0).max((1, 2), keepdims=True)
            missed = np.where(truth, MISSED_TO - found, 0).max(0)
            wrong = np.maximum(false_alarm, missed)
            y, x = np.unravel_index(wrong.argmax(), wrong.shape)
            if wrong[y, x] > 0:
                left, top = int(x) * CELL_PX, int(y) * CELL_PX
                self.errors.append((number, [left, top, left + CELL_PX, top + CELL_PX]))
        print(f"clearly wrong about {len(self.errors) - before} of {LOOKED_AT} training parts", flush=True)


def near(cells: np.ndarray, reach: int = 3) -> np.ndarray:
    """The cells and those within `reach` of them, along rows and columns."""
    grown = F.max_pool2d(torch.from_numpy(cells[None].astype(np.float32)), 2 * reach + 1, 1, reach)
    return grown[0].numpy() > 0


def loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Focal loss (Lin et al. 2017) per label over its defect cells, and for each crop whether it has the label at all.

    Divided by the number of defect cells, because one cell in a thousand is one: a plain mean would hardly move.
    """
    p = torch.sigmoid(logits)
    weight = torch.where(target > 0, 0.75 * (1 - p) ** 1.5, 0.25 * p**1.5)
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    cells = (weight * entropy).sum((0, 2, 3)) / (target.sum((0, 2, 3)) + 30)
    top = logits.flatten(2).topk(TOP_K, 2).values.mean(2)
    return 2 * cells.mean() + 0.3 * F.binary_cross_entropy_with_logits(top, target.flatten(2).amax(2))


def fit_platt_to_scores(top: np.ndarray, has: np.ndarray) -> tuple[float, float]:
    """`top` [N, 4, TOP_K] are the largest logits of each map; `has` [N, 4] whether the part has that defect."""
    z, y = torch.from_numpy(top).double(), torch.from_numpy(has).double()
    free = torch.tensor([0.0, 0.0], dtype=torch.double, requires_grad=True)
    search = torch.optim.LBFGS([free], max_iter=200, line_search_fn="strong_wolfe")

    def cost():
        search.zero_grad()
        score = torch.sigmoid(free[0].exp() * z + free[1]).mean(2).clamp(1e-7, 1 - 1e-7)
        value = F.binary_cross_entropy(score, y)
        value.backward()
        return value

    search.step(cost)
    return round(float(free[0].detach().exp()), 4), round(float(free[1].detach()), 4)


class Judged:
    """Parts with what the model says about them."""

    def __init__(self, model: torch.nn.Module, parts: Parts):
        self.parts = parts
        self.truth = np.stack([cells_of(mask) for mask in parts.masks])
        chunks = np.array_split(parts.frames, max(1, len(parts.frames) // 16))
        self.logits = np.concatenate([maps_of(model, torch.from_numpy(tensor_of(chunk))) for chunk in chunks])
        flat = self.logits.reshape(len(self.logits), len(LABELS), -1)
        self.top = np.partition(flat, flat.shape[2] - TOP_K, axis=2)[..., -TOP_K:]
        self.has = self.truth.any((2, 3))

    def calibrate(self, slope: float, intercept: float) -> None:
        self.probability = torch.sigmoid(torch.from_numpy(self.logits) * slope + intercept).numpy()
        rule = {"map_score": "top-k-mean", "top_k": TOP_K}
        self.scores = np.stack([map_scores(one, rule) for one in self.probability])
        self.score = self.scores.max(1)

    def figures(self, review: float, reject: float) -> dict:
        bad, surface = self.parts.is_bad, self.parts.surface
        kinds = {}
        for number, label in enumerate(LABELS):
            only = bad & self.has[:, number] & (self.has.sum(1) == 1)
            # Of parts whose only kind of defect this is: passed; and whether the map names the kind.
            named = self.scores[only].argmax(1) == number
            kinds[label] = {
                "escape": verdict_shares(bad[only], self.score[only], review, reject)["escape"],
                "named_right": round(float(named.mean()), 4),
                "cells": overlap(self.truth[:, number], self.probability[:, number] >= PIXEL_THRESHOLD),
                "average_precision": round(
                    average_precision(self.truth[:, number].reshape(-1), self.probability[:, number].reshape(-1)), 4
                ),
            }
        by_surface = {
            name: verdict_shares(bad[surface == name], self.score[surface == name], review, reject)
            | {"roc_area": ranking_quality(bad[surface == name], self.score[surface == name])}
            for name in sorted(set(surface))
        }
        by_severity = {}
        for name, (low, high) in SEVERITIES.items():
            some = (self.parts.severity >= low) & (self.parts.severity < high)
            by_severity[name] = verdict_shares(bad[some], self.score[some], review, reject)
        interval = bootstrap(lambda b, s: ranking_quality(b, s), bad, self.score, rounds=500)
        area = {"roc_area": ranking_quality(bad, self.score), "roc_area_interval_95": interval}
        parts = verdict_shares(bad, self.score, review, reject) | area
        return {"parts": parts, "surface": by_surface, "severity": by_severity, "label": kinds}


def choose(judged: Judged) -> tuple[float, float]:
    """Review as high as the allowed escape permits; reject as low as the allowed overkill permits."""
    bad, good = (np.sort(judged.score[judged.parts.is_bad == kind]).astype(float) for kind in (True, False))
    bars = bad[int(ESCAPE_ALLOWED * len(bad))] - 0.0005, good[-1 - int(OVERKILL_ALLOWED * len(good))] + 0.0005
    # Where good and bad are so far apart that the two cross, the lower one is the bar for review.
    return round(max(min(bars), 0.001), 3), round(min(max(bars), 0.999), 3)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds train/, val/ and test/")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--weights", type=Path, help="take these weights (weights.pt) instead of training")
    arguments = parser.parse_args()

    rng = seed_everything(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    model = MapNet(len(LABELS), WIDTHS, quarter=True).eval()
    if arguments.weights:
        model.load_state_dict(torch.load(arguments.weights))
    else:
        sampler = Sampler(Parts(arguments.data / "train"), rng)
        model = fit(
            model, sampler.batch, loss, STEPS, peak_rate=3e-3, short_floats=True, look=sampler.look, looks=LOOKS
        )  # fmt: skip
        torch.save(model.state_dict(), arguments.out / "weights.pt")

    val = Judged(model, Parts(arguments.data / "val"))
    slope, intercept = fit_platt_to_scores(val.top, val.has)
    val.calibrate(slope, intercept)
    review, reject = choose(val)
    metrics_of_val, parts = val.figures(review, reject), len(val.score)
    del val
    test = Judged(model, Parts(arguments.data / "test"))
    test.calibrate(slope, intercept)
    data = export(model, SIDE_PX, SIDE_PX)
    metrics = {
        "name": "machined-surface", "version": VERSION, "review": review, "reject": reject, "top_k": TOP_K,
        "slope": slope, "intercept": intercept, "val_parts": parts, "test_parts": len(test.score),
        "steps": STEPS, "parameters": sum(p.numel() for p in model.parameters()), "bytes": len(data),
        "one_core_ms": round(one_core_ms(data, SIDE_PX, SIDE_PX), 2),
        "val": metrics_of_val, "test": test.figures(review, reject),
    }  # fmt: skip
    calibration = CALIBRATION.format(version=VERSION, slope=slope, intercept=intercept, parts=parts, seed=SEED)
    recipe = RECIPE.format(
        version=VERSION, side=SIDE_PX, mean=MEAN, std=STD, labels=", ".join(f'"{label}"' for label in LABELS), top_k=TOP_K,
        pixel_threshold=PIXEL_THRESHOLD, review=review, reject=reject,
        **{bound: f"{value:f}".rstrip("0") for bound, value in QUALITY.items()},
    )  # fmt: skip
    write_release(arguments.out, "machined-surface", VERSION, data, calibration, recipe, metrics)
    np.savez_compressed(arguments.out / "scores.npz", scores=test.scores, is_bad=test.parts.is_bad, surface=test.parts.surface)


if __name__ == "__main__":
    main()
