"""Our server: makes a data directory as `lineproof init` does, with the workload's model and a recipe for it, and serves it.

What is changed of the defaults: the address, sixteen cameras, the product and its recipe. Everything else is a plant's default:
every decision durable in the log before it is answered, quality measured, every tenth OK image archived, sealed. Thresholds are so high
that every frame is OK, as nearly all are on a line; all others would be archived.
"""

import os
import pathlib
import re
import shutil
import subprocess

from blake3 import blake3

from workloads import HEIGHT_PX, MODEL_OF, WIDTH_PX

CAMERAS = 16
RGB = """colour = "rgb"
width_px = 224
height_px = 224
mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]"""
GRAY = """colour = "gray"
width_px = 640
height_px = 640
mean = [0.0]
std = [1.0]"""
CLASSES = f"""kind = "classification"
tensor = "scores"
labels = [{", ".join(f'"class-{number}"' for number in range(10))}]"""
MAP = """kind = "segmentation"
tensor = "prob"
labels = ["defect"]
map_score = "max"
pixel_threshold = 0.5"""
PARTS = {"jpeg_cls": ("jpeg", RGB, CLASSES), "mono_seg": ("Mono8", GRAY, MAP), "mono_tiny": ("Mono8", RGB, CLASSES)}


def recipe(workload, digest):
    frame_format, into, out = PARTS[workload]
    return f"""format = 1
name = "insp"
version = "1.0.0"
title = "Workload {workload}"

[model]
file = "model.onnx"
digest = "blake3:{digest}"

[frame]
formats = ["{frame_format}"]
width_px = {{ min = {WIDTH_PX}, max = {WIDTH_PX} }}
height_px = {{ min = {HEIGHT_PX}, max = {HEIGHT_PX} }}
encoded_bytes_max = 4194304

[input]
tensor = "image"
resize = "opencv-linear"
fit = "stretch"
{into}

[output]
activation = "none"
{out}

[policy]
comparator = ">"
review = 1.0
reject = 1.0
"""


def changed(text, pattern, by):
    text, count = re.subn(pattern, by, text, flags=re.M)
    assert count == 1, f"lineproof.toml has {count} lines like {pattern}"
    return text


def main():
    workload, binary = os.environ["BENCH_WORKLOAD"], os.environ["LINEPROOF_BINARY"]
    data = pathlib.Path(os.environ["BENCH_DATA"])
    shutil.rmtree(data, ignore_errors=True)
    subprocess.run([binary, "init", data], check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(data / "models")
    place = data / "models" / "insp" / "1.0.0"
    place.mkdir(parents=True)
    shutil.copy(pathlib.Path(os.environ["BENCH_MODELS"]) / MODEL_OF[workload], place / "model.onnx")
    (place / "recipe.toml").write_text(recipe(workload, blake3((place / "model.onnx").read_bytes()).hexdigest()))

    config = data / "lineproof.toml"
    text = config.read_text()
    text = changed(text, r'^address = "127.0.0.1:7443"', f'address = "127.0.0.1:{os.environ["BENCH_PORT"]}"')
    text = changed(text, r"^workers = 0", f"workers = {os.environ['BENCH_WORKERS']}")
    text = changed(text, r"^threads_per_worker = 1", f"threads_per_worker = {os.environ['BENCH_THREADS']}")
    cameras = ", ".join(f'"cam-{number + 1}"' for number in range(CAMERAS))
    text = changed(text, r'^cameras = \["cam-1"\]', f"cameras = [{cameras}]")
    text = changed(text, r'^product = "demo-part"', 'product = "part"')
    text = changed(text, r'^recipe = ".*"', 'recipe = "insp@1.0.0"')
    text += '\n[open_inference]\nline = "line-1"\nstation = "station-1"\ncamera = "cam-1"\nproduct = "part"\n'
    config.write_text(text)
    os.execv(binary, [binary, "serve", "--data", str(data)])


if __name__ == "__main__":
    main()
