"""The usual Python path from a JPEG to a tensor, for `cargo bench --bench decode`: OpenCV on one thread.

Reads the files of a folder, says "ready", then for every number on standard input runs so many frames and prints the milliseconds
that each took.
"""

import pathlib
import sys
import time

try:
    import cv2
    import numpy as np
except ImportError as error:
    sys.exit(f"bench-decode.py: {error}")

cv2.setNumThreads(1)
MEAN = np.array([0.485, 0.456, 0.406], np.float32).reshape(3, 1, 1)
STD = np.array([0.229, 0.224, 0.225], np.float32).reshape(3, 1, 1)
files = [np.frombuffer(path.read_bytes(), np.uint8) for path in sorted(pathlib.Path(sys.argv[1]).iterdir())]


def one(number: int) -> np.ndarray:
    bgr = cv2.resize(cv2.imdecode(files[number % len(files)], cv2.IMREAD_COLOR), (224, 224), interpolation=cv2.INTER_LINEAR)
    chw = bgr[:, :, ::-1].transpose(2, 0, 1).astype(np.float32)
    return ((chw / 255.0 - MEAN) / STD)[None]


for number in range(len(files)):
    one(number)
print("ready", flush=True)
for line in sys.stdin:
    frames = int(line)
    started = time.perf_counter()
    for number in range(frames):
        one(number)
    print((time.perf_counter() - started) * 1e3 / frames, flush=True)
