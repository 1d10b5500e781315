"""Reads BSData, holds out a validation part by place, and cuts frames into the crops the model looks at.

    python models/ball-screw-pitting/data.py --data BSDATA_FOLDER     (writes crops.csv, the crops of the test part)

A whole frame shows the full width of the screw, whatever its size in pixels, so a crop of a quarter of the width and
half of the height shows the same piece of metal in every frame. The crops overlap, so that a pit cut by the border of
one crop lies well inside another.
"""

import argparse
import csv
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

HERE = Path(__file__).parent
SHARE_X, SHARE_Y = 4, 2  # a crop is a quarter of the width and half of the height
COLUMNS, ROWS = 5, 3
WIDTH_PX, HEIGHT_PX = 256, 208  # the model's input; a crop is stretched to it
MAP = (WIDTH_PX // 2, HEIGHT_PX // 2)
# All at the size of the input, so that they mean the same in small and large frames.
BAD_PX = 80  # a crop with so many labelled pixels, clear of its border, is bad: a pit of about 9 x 9 pixels
MARGIN_PX = 12  # this near to the border, inside or outside, a pit is cut or may be, and says neither good nor bad

# Held out for choosing thresholds: two places on the worn screw with their whole time sequences, and two runs of
# neighbouring frames of the other screws. None of them is trained on.
HELD_OUT_PLACES = ("437500_315", "517500_315")
HELD_OUT_RUNS = (
    *(f"KGT1-S-{number}" for number in (116, 121, 124, 130, 131, 141)),
    *(f"KGT2-V-{number}" for number in (295, 300, 302)),
)


@dataclass
class Picture:
    name: str
    gray: Image.Image
    pitting: Image.Image  # L, 255 inside a polygon
    split: str  # train, val or test
    worn: bool  # the screw followed over time; else one of the clean or soiled screws


def pictures(data: Path) -> list[Picture]:
    """The labelled pictures, in file name order. The unlabelled ones are not known to be good and are never used."""
    found = []
    for entry in json.loads((data / "image_data.json").read_text("utf-8"))["images"]:
        if entry["train_test_split"] not in ("train", "test"):
            continue
        name = entry["filename"]
        held_out = any(place in name for place in HELD_OUT_PLACES) or name.startswith(HELD_OUT_RUNS)
        split = "val" if entry["train_test_split"] == "train" and held_out else entry["train_test_split"]
        with Image.open(data / "data" / name) as image:
            gray = image.convert("L")
        found.append(Picture(name, gray, pitting_of(data / "label" / entry["annotations"], gray.size), split, name[0] != "K"))
    return sorted(found, key=lambda picture: picture.name)


def pitting_of(labels: Path, size: tuple[int, int]) -> Image.Image:
    mask = Image.new("L", size)
    draw = ImageDraw.Draw(mask)
    for shape in json.loads(labels.read_text("utf-8"))["shapes"]:
        draw.polygon([tuple(point) for point in shape["points"]], fill=255)
    return mask


def grid(picture: Picture) -> list[tuple[int, int, int, int]]:
    """The crops of a picture as (x, y, w, h), row by row."""
    width, height = picture.gray.size
    w, h = width // SHARE_X, height // SHARE_Y
    return [
        ((width - w) * column // (COLUMNS - 1), (height - h) * row // (ROWS - 1), w, h)
        for row in range(ROWS)
        for column in range(COLUMNS)
    ]


def label_of(picture: Picture, crop: tuple[int, int, int, int]) -> str:
    x, y, w, h = crop
    pitting = np.asarray(picture.pitting) > 0
    # From pixels of the picture to pixels of the input.
    scale_x, scale_y = WIDTH_PX / w, HEIGHT_PX / h
    margin_x, margin_y = round(MARGIN_PX / scale_x), round(MARGIN_PX / scale_y)
    inside = pitting[y + margin_y : y + h - margin_y, x + margin_x : x + w - margin_x]
    if inside.sum() * scale_x * scale_y >= BAD_PX:
        return "bad"
    around = pitting[max(0, y - margin_y) : y + h + margin_y, max(0, x - margin_x) : x + w + margin_x]
    return "excluded" if around.any() else "good"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds image_data.json")
    data = parser.parse_args().data
    with open(HERE / "crops.csv", "w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["image", "x", "y", "w", "h", "label"])
        for picture in pictures(data):
            if picture.split == "test":
                writer.writerows((picture.name, *crop, label_of(picture, crop)) for crop in grid(picture))


if __name__ == "__main__":
    main()
