"""Writes split.csv: 70/15/15 per label, with pictures that show the same pixels kept on the same side.

    python models/steel-surface-type/split.py --data XSDD_FOLDER
"""

import argparse
import csv
import hashlib
from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image

SEED = 20261123
HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds datas/")
    data = parser.parse_args().data
    rng = np.random.default_rng(SEED)
    rows = []
    for folder in sorted((data / "datas").iterdir()):
        groups = defaultdict(list)
        for file in sorted(folder.iterdir()):
            pixels = Image.open(file).convert("L")
            groups[hashlib.sha256(f"{pixels.size}".encode() + pixels.tobytes()).hexdigest()].append(file)
        # Seeded order over the groups, then filled up side by side; a group is never cut.
        order = [list(groups.values())[i] for i in rng.permutation(len(groups))]
        total = sum(len(group) for group in order)
        placed = 0
        for group in order:
            split = "train" if placed < 0.70 * total else "val" if placed < 0.85 * total else "test"
            rows += [(file.relative_to(data).as_posix(), folder.name, split) for file in group]
            placed += len(group)
    with open(HERE / "split.csv", "w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["path", "label", "split"])
        writer.writerows(sorted(rows))


if __name__ == "__main__":
    main()
