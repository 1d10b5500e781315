"""Makes tests/vectors/resize.json: what Pillow and OpenCV make of small noise images.

    python tests/vectors/make_resize.py > tests/vectors/resize.json
    (Pillow 13.0.0, numpy 2.4.6, opencv-python-headless 4.12.0.88)

The sources are noise from the formula in `noise`, so only the results are kept: `result` in hexadecimal, 16-bit values
little-endian.
"""

import json

import cv2
import numpy as np
from PIL import Image

PILLOW = {
    "pillow-nearest": Image.Resampling.NEAREST,
    "pillow-bilinear": Image.Resampling.BILINEAR,
    "pillow-bicubic": Image.Resampling.BICUBIC,
    "pillow-lanczos": Image.Resampling.LANCZOS,
}
# Source and target sizes: down, up, mixed, one side kept, exactly halved, tiny.
SIZES = [
    ((37, 23), (16, 16)), ((9, 7), (20, 16)), ((31, 8), (8, 15)), ((24, 19), (24, 8)), ((19, 24), (8, 24)),
    ((32, 24), (16, 12)), ((1, 1), (4, 3)), ((2, 3), (5, 2)), ((97, 61), (11, 9)),
    # Pillow 13 begins along the columns in these three.
    ((20, 31), (25, 10)), ((19, 53), (4, 19)), ((35, 59), (19, 2)),
]


def noise(count, limit):
    """As the tests make it: the upper bits of n times Knuth's constant, every eighth value one of the extremes."""
    n = np.arange(count, dtype=np.uint64)
    values = ((n * np.uint64(2654435761) % np.uint64(2**32)) * np.uint64(limit) >> np.uint64(32)).astype(np.uint32)
    extremes = n % np.uint64(8) == np.uint64(5)
    values[extremes] = np.where((n[extremes] // np.uint64(8)) % np.uint64(2) == 0, 0, limit - 1)
    return values


def source(width, height, kind):
    if kind == "rgb8":
        return noise(width * height * 3, 256).astype(np.uint8).reshape(height, width, 3)
    if kind == "gray8":
        return noise(width * height, 256).astype(np.uint8).reshape(height, width)
    return noise(width * height, 65536).astype(np.uint16).reshape(height, width)


def main():
    vectors = []
    for size, target in SIZES:
        for kind in ("gray8", "rgb8", "gray16"):
            pixels = source(*size, kind)
            for method, resample in PILLOW.items():
                # Pillow cuts overshoot of 16-bit images byte by byte, which is a defect of it and not followed.
                if kind == "gray16" and method in ("pillow-bicubic", "pillow-lanczos"):
                    continue
                image = Image.fromarray(pixels)
                assert image.mode == {"gray8": "L", "rgb8": "RGB", "gray16": "I;16"}[kind]
                vectors.append((method, kind, size, target, np.asarray(image.resize(target, resample))))
            result = cv2.resize(pixels, target, interpolation=cv2.INTER_LINEAR)
            vectors.append(("opencv-linear", kind, size, target, result))
    lines = [
        json.dumps({
            "method": method, "kind": kind, "source": size, "target": target,
            "result": result.astype("<u2" if kind == "gray16" else "u1").tobytes().hex(),
        })
        for method, kind, size, target, result in vectors
    ]
    print("[\n" + ",\n".join(lines) + "\n]")


main()
