"""Trains, calibrates and tests steel-surface-type on X-SDD.

python models/steel-surface-type/train.py --data XSDD_FOLDER --out FOLDER

Writes model.onnx, recipe.toml, the calibration file and metrics.json.
"""

import argparse
import csv
import sys
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from common.metrics import bootstrap, macro_f1, wilson
from common.nets import TypeNet
from common.score import open_frame, to_tensor
from common.training import SEED, export, fit, one_core_ms, seed_everything, write_release

SIDE_PX = 128
EPOCHS = 70
BATCH = 32
# Folder names of the data set, and what the recipe calls them.
LABELS = {
    "finishing roll printing": "finishing-roll-printing",
    "iron sheet ash": "iron-sheet-ash",
    "oxide scale of plate system": "oxide-scale-of-plate-system",
    "oxide scale of temperature system": "oxide-scale-of-temperature-system",
    "red iron": "red-iron",
    "slag inclusion": "slag-inclusion",
    "surface scratch": "surface-scratch",
}
INPUT = {
    "colour": "gray", "width_px": SIDE_PX, "height_px": SIDE_PX, "resize": "pillow-bilinear", "fit": "stretch",
    "mean": [0.5], "std": [0.25],
}  # fmt: skip
# Below this calibrated probability a person decides. See the model card for how it was chosen.
REJECT = 0.80

CALIBRATION = """\
format = 1
name = "steel-surface-type"
version = "1.0.0"
model = "MODEL_DIGEST"
method = "temperature"
temperature = {temperature}
fitted_on = "X-SDD, validation part of models/steel-surface-type/split.csv, {images} images, seed {seed}"
note = "least negative log-likelihood; expected calibration error on the test part {ece_before} before, {ece_after} after"
"""

RECIPE = """\
format = 1
name = "steel-surface-type"
version = "1.0.0"
title = "Hot-rolled steel strip: which of seven surface defects"

[model]
file = "model.onnx"
digest = "MODEL_DIGEST"

[calibration]
file = "steel-surface-type-1.0.0.toml"
digest = "CALIBRATION_DIGEST"

[frame]
formats = ["png", "jpeg", "bmp", "tiff", "Mono8", "RGB8", "BGR8"]
width_px = {{ min = 96, max = 256 }}
height_px = {{ min = 96, max = 256 }}
encoded_bytes_max = 1048576

[quality]
mean_min = 0.02
mean_max = 0.98

[input]
tensor = "input"
colour = "gray"
width_px = {side}
height_px = {side}
resize = "pillow-bilinear"
fit = "stretch"
mean = [0.5]
std = [0.25]

[output]
kind = "classification"
tensor = "logits"
activation = "softmax"
labels = [
{labels}]

# Every label is a defect and there is no good class, so no frame may come out OK: the top score of seven is at least
# 1/7 = 0.1429, above `review`. A top score under `reject` goes to a person.
[policy]
comparator = ">="
review = 0.14
reject = {reject}
top_score_min = {reject}
"""


def load(data: Path) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Per split: tensors [N, 1, 128, 128] as the recipe makes them, and label numbers."""
    parts = {"train": ([], []), "val": ([], []), "test": ([], [])}
    with open(HERE / "split.csv", newline="", encoding="utf-8") as rows:
        for row in csv.DictReader(rows):
            images, labels = parts[row["split"]]
            images.append(to_tensor(open_frame(data / row["path"]), INPUT))
            labels.append(list(LABELS).index(row["label"]))
    return {name: (torch.from_numpy(np.stack(x)), torch.tensor(y)) for name, (x, y) in parts.items()}


def augmented(x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Mirrored, shifted, other exposure, and the noise of another JPEG decoder; one draw per picture."""
    pictures = []
    for picture in F.pad(x, (12, 12, 12, 12), mode="reflect"):
        top, left = rng.integers(0, 25, 2)
        picture = picture[:, top : top + SIDE_PX, left : left + SIDE_PX]
        flips = [axis for axis in (1, 2) if rng.random() < 0.5]
        picture = picture.flip(flips) * rng.uniform(0.85, 1.15) + rng.uniform(-0.3, 0.3)
        noise = rng.standard_normal(picture.shape, dtype=np.float32) * rng.uniform(0.0, 0.04)
        pictures.append(picture + torch.from_numpy(noise.astype(np.float32)))
    return torch.stack(pictures)


def batches(x: torch.Tensor, y: torch.Tensor, rng: np.random.Generator):
    while True:
        order = rng.permutation(len(x))
        for begin in range(0, len(order) - BATCH + 1, BATCH):
            pick = order[begin : begin + BATCH]
            yield augmented(x[pick], rng), y[pick]


def logits_of(model: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([model(part) for part in x.split(64)])


def fit_temperature(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """The temperature of least negative log-likelihood, by a grid over its logarithm."""
    grid = np.exp(np.linspace(np.log(0.2), np.log(5.0), 1001))
    return round(float(min(grid, key=lambda t: F.cross_entropy(logits / t, labels).item())), 4)


def calibration_error(probability: np.ndarray, truth: np.ndarray, bins: int = 10) -> float:
    top, right = probability.max(1), probability.argmax(1) == truth
    place = np.minimum((top * bins).astype(int), bins - 1)
    gaps = [abs(top[place == b].mean() - right[place == b].mean()) * (place == b).mean() for b in set(place)]
    return round(float(sum(gaps)), 4)


def figures(logits: torch.Tensor, labels: torch.Tensor, temperature: float) -> dict:
    probability, truth = torch.softmax(logits / temperature, 1).numpy(), labels.numpy()
    top, guess, count = probability.max(1), probability.argmax(1), len(LABELS)
    confusion = np.zeros((count, count), int)
    np.add.at(confusion, (truth, guess), 1)
    trade = {
        f"{bar:.2f}": {
            "decided": wilson(int((top >= bar).sum()), len(top)),
            "right_of_decided": wilson(int((guess == truth)[top >= bar].sum()), int((top >= bar).sum())),
        }
        for bar in (0.5, 0.6, 0.7, 0.8, 0.9)
    }
    return {
        "accuracy": wilson(int((guess == truth).sum()), len(truth)),
        "macro_f1": round(macro_f1(truth, guess, count), 4),
        "macro_f1_interval_95": bootstrap(lambda t, g: macro_f1(t, g, count), truth, guess),
        "calibration_error": calibration_error(probability, truth),
        "calibration_error_before": calibration_error(torch.softmax(logits, 1).numpy(), truth),
        "top_score_min": trade,
        "confusion_rows_truth": confusion.tolist(),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds datas/")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()

    rng = seed_everything(arguments.threads)
    parts = load(arguments.data)
    x, y = parts["train"]
    stream = batches(x, y, rng)
    steps = EPOCHS * (len(x) // BATCH)
    # Rare types weigh more, by the root of their rarity: full weights would let 45 pictures drown 278.
    weight = (1 / torch.bincount(y)).sqrt()
    weight = weight / weight[y].mean()
    smooth = lambda logits, labels: F.cross_entropy(logits, labels, weight, label_smoothing=0.05)
    model = fit(TypeNet(len(LABELS)), lambda: next(stream), smooth, steps, peak_rate=3e-3, weight_decay=0.05)

    val, test = (logits_of(model, parts[name][0]) for name in ("val", "test"))
    temperature = fit_temperature(val, parts["val"][1])
    data = export(model, SIDE_PX, SIDE_PX)
    metrics = {
        "name": "steel-surface-type", "version": "1.0.0", "temperature": temperature, "reject": REJECT,
        "labels": list(LABELS.values()), "images": {name: len(part[1]) for name, part in parts.items()},
        "parameters": sum(p.numel() for p in model.parameters()), "bytes": len(data),
        "one_core_ms": round(one_core_ms(data, SIDE_PX, SIDE_PX), 2),
        "val": figures(val, parts["val"][1], temperature),
        "test": figures(test, parts["test"][1], temperature),
    }  # fmt: skip
    calibration = CALIBRATION.format(
        temperature=temperature, images=len(val), seed=SEED,
        ece_before=metrics["test"]["calibration_error_before"], ece_after=metrics["test"]["calibration_error"],
    )  # fmt: skip
    labels = "".join(f'  "{label}",\n' for label in LABELS.values())
    recipe = RECIPE.format(side=SIDE_PX, labels=labels, reject=f"{REJECT:.2f}")
    write_release(arguments.out, "steel-surface-type", "1.0.0", data, calibration, recipe, metrics)


if __name__ == "__main__":
    main()
