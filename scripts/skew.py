"""Exports tiny models with random weights from the tools people train with, and asks each tool's own inference about images.

    python scripts/skew.py OUT                      # the vectors of tests/vectors/skew: smallest models, four drawn images
    python scripts/skew.py OUT --lineproof BINARY --datasets DIR   # `make skew`: 100 images, simulated and real ones

Writes OUT/<case>/model.onnx, OUT/<case>/case.json and the images as PNG, which decoders read alike. Of each image case.json says the tool's
scores, boxes and verdict; tests/it/skew.rs sends the same images to the running service and compares. No weights are downloaded.
"""

import argparse
import importlib.metadata
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.update(YOLO_OFFLINE="true", HF_HUB_OFFLINE="1", CUDA_VISIBLE_DEVICES="")

import cv2
import numpy as np
import torch
from PIL import Image
from torch import nn

SEED = 20261128
IMAGES = 100
LABELS = ["good", "scratch", "deep dent"]
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def drawn(folder, count, size):
    """Dark noise with a few bright spots and lines, RGB."""
    rng = np.random.default_rng(SEED)
    for number in range(count):
        image = rng.integers(20, 60, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
        image = np.ascontiguousarray(image)
        for _ in range(number % 4 + 1):
            x, y, r = (int(v) for v in (rng.integers(8, size[0] - 8), rng.integers(8, size[1] - 8), rng.integers(3, 9)))
            cv2.circle(image, (x, y), r, tuple(int(c) for c in rng.integers(120, 255, 3)), -1)
        Image.fromarray(image).save(folder / f"drawn-{number}.png", optimize=True)


def collected(folder, lineproof, datasets):
    """Half simulated parts, half real ones, as PNG."""
    with tempfile.TemporaryDirectory() as parts:
        command = [lineproof, "camera", "simulate", "--write", parts, "--count", str(IMAGES // 2), "--seed", "7", "--defect-rate", "0.5"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        simulated = sorted(p for p in Path(parts).rglob("*") if p.suffix in (".png", ".bmp", ".jpg"))
        for number, path in enumerate(simulated[: IMAGES // 2]):
            Image.open(path).save(folder / f"simulated-{number:03}.png")
    real = []
    for name in ("bsdata/data", "xsdd/datas", "magnetic-tile"):
        files = sorted(p for p in (datasets / name).rglob("*") if p.suffix.lower() in (".jpg", ".png", ".bmp")) if datasets else []
        # Masks are no photographs.
        files = [p for p in files if not (name == "magnetic-tile" and p.suffix == ".png") and "label" not in p.parts]
        random.Random(SEED).shuffle(files)
        real.append(files)
    if not all(real):
        print("skipped: no data (the real half of the images is not there; simulated ones only)")
        return
    for number in range(IMAGES // 2):
        Image.open(real[number % 3][number // 3]).convert("RGB").save(folder / f"real-{number:03}.png")


def squares(source, folder, size=None):
    """The middle square of every image, of `size` px if given."""
    folder.mkdir()
    for path in sorted(source.glob("*.png")):
        image = Image.open(path).convert("RGB")
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side))
        if size:
            image = image.resize((size, size), Image.BILINEAR)
        image.save(folder / path.name, optimize=True)


def stirred(model, seed, gain=1.0):
    """Random weights and statistics, so that no two layers do nearly nothing."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
        elif isinstance(module, (nn.Conv2d, nn.Linear)) and module.weight.requires_grad:
            fan_in = module.weight[0].numel()
            module.weight.data.normal_(0, gain * (2 / fan_in) ** 0.5, generator=generator)
    return model.eval()


def split(values):
    """The threshold with most room around it, so that it parts the images into two kinds: middle of the widest gap of the inner half."""
    values = sorted(values)
    inner = values[len(values) // 4 : max(len(values) * 3 // 4, len(values) // 4 + 2)]
    low, high = max(zip(inner, inner[1:]), key=lambda pair: pair[1] - pair[0])
    return float(np.float32((low + high) / 2))


class Case:
    """One model, and what its tool says of each image."""

    def __init__(self, out, name, tool, images):
        self.folder = out / name
        self.folder.mkdir(parents=True)
        self.model = self.folder / "model.onnx"
        self.tool, self.said, self.images = tool, [], sorted(images.glob("*.png"))

    def say(self, path, scores, boxes=()):
        self.said.append({"file": os.path.relpath(path, self.folder), "scores": scores, "boxes": list(boxes)})

    def write(self, add, answers, good=(), reject=None, above=False):
        def worst(one):
            return max(score for label, score in one["scores"].items() if label not in good)

        # The service compares in 32-bit floats.
        reject = split([worst(one) for one in self.said]) if reject is None else reject
        for one in self.said:
            is_bad = worst(one) > reject if above else worst(one) >= reject
            one["verdict"] = "NOT_OK" if is_bad else "OK"
        add += [part for label in good for part in ("--ok", label)]
        add += ["--review", repr(reject), "--reject", repr(reject)]
        kinds = {verdict: sum(one["verdict"] == verdict for one in self.said) for verdict in ("OK", "NOT_OK")}
        print(f"{self.folder.name}: {self.model.stat().st_size} bytes, {kinds}", flush=True)
        versions = {name: importlib.metadata.version(name) for name in ("torch", *self.tool)}
        case = {"tools": versions, "seed": SEED, "add": add, "answers": answers, "images": self.said}
        (self.folder / "case.json").write_text(json.dumps(case, indent=1) + "\n")


def label(name):
    return name.replace(" ", "-")


def export(model, path, size):
    """By torch's older exporter, which writes one file."""
    torch.onnx.export(model, (torch.zeros(1, 3, size, size),), str(path), opset_version=17, input_names=["input"], dynamo=False)


@torch.inference_mode()
def spread_heads(head, model, images, size):
    """Scales the last layers so that scores spread between 0 and 1 and boxes have some size: random ones give all the same."""
    loaded = [cv2.cvtColor(cv2.resize(cv2.imread(str(path)), (size, size)), cv2.COLOR_BGR2RGB) for path in images[:: max(len(images) // 25, 1)]]
    batch = torch.from_numpy(np.stack(loaded).transpose(0, 3, 1, 2).astype(np.float32) / 255)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    # As training leaves them, so that no image makes a deep network overflow.
    model.train()
    model(batch)
    model.eval()
    last = [(layers[-1], 1.0, -4.0 if size > 100 else -2.5) for layers in head.cv3] + [(layers[-1], 0.8, 1.5) for layers in head.cv2]
    seen = {}
    hooks = [layer.register_forward_hook(lambda layer, inputs, _: seen.update({layer: inputs[0]})) for layer, _, _ in last]
    model(batch)
    for hook in hooks:
        hook.remove()
    for layer, spread, middle in last:
        # What differs from image to image as a whole would make all boxes of one image score alike.
        shifts = seen[layer].mean((2, 3))
        directions = torch.linalg.svd(shifts - shifts.mean(0), full_matrices=False)[2][: shifts.shape[1] // 2]
        weight = layer.weight.data[:, :, 0, 0]
        layer.weight.data.copy_((weight - weight @ directions.T @ directions)[:, :, None, None])
        output = layer(seen[layer])
        mean, std = output.mean((0, 2, 3)), output.std((0, 2, 3))
        layer.weight.data.mul_((spread / std).view(-1, 1, 1, 1))
        layer.bias.data.copy_((layer.bias.data - mean) * spread / std + middle)


def ultralytics_detect(out, images, tiny, nms):
    from ultralytics import YOLO

    rows = [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "Conv", [16, 3, 2]], [-1, 1, "Conv", [16, 3, 2]], [-1, 1, "Conv", [16, 3, 2]]]
    yaml = {"nc": 2, "backbone": rows, "head": [[[2, 3], 1, "Detect", ["nc"]]], "scales": {"n": [1, 1, 1024]}, "reg_max": 1 if tiny else 16}
    case = Case(out, "ultralytics-detect-nms" if nms else "ultralytics-detect", ["ultralytics"], images)
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder) / "yolov8n-tiny.yaml"
        here.write_text(json.dumps(yaml))
        yolo = YOLO(str(here) if tiny else "yolov8n.yaml", task="detect", verbose=False)
        yolo.model.names = {0: "scratch", 1: "deep dent"} if tiny else {n: f"class {n}" for n in range(80)}
        if not tiny:
            here.write_text(json.dumps({**yolo.model.yaml, "nc": 2, "scale": "n"}))
            yolo = YOLO(str(here), task="detect", verbose=False)
            yolo.model.names = {0: "scratch", 1: "deep dent"}
        stirred(yolo.model, SEED)
        size = 64 if tiny else 320
        spread_heads(yolo.model.model[-1], yolo.model, case.images, size)
        exported = yolo.export(format="onnx", imgsz=size, simplify=False, dynamic=False, device="cpu", nms=nms or None, verbose=False)
        shutil.move(exported, case.model)
        exported = YOLO(str(case.model), task="detect", verbose=False)
        for path in case.images:
            found = exported.predict(str(path), imgsz=size, device="cpu", verbose=False)[0].boxes
            # `predict` gives 300 boxes of all labels at most, a recipe 300 of each: an image with that many says nothing.
            if len(found) >= 300:
                continue
            scores = {"scratch": 0.0, "deep-dent": 0.0}
            boxes = []
            for corners, score, number in zip(found.xyxy.tolist(), found.conf.tolist(), found.cls.tolist()):
                name = ("scratch", "deep-dent")[int(number)]
                # Ultralytics keeps boxes that lie in the letterbox's padding only, with no area on the frame; to a recipe they are none.
                if corners[2] - corners[0] < 1 or corners[3] - corners[1] < 1:
                    continue
                scores[name] = max(scores[name], score)
                boxes.append({"label": name, "score": score, "corners": corners})
            case.say(path, scores, boxes)
    # Below 0.25 a box is none.
    highest = [max(one["scores"].values()) for one in case.said]
    case.write(["--all-defects"], {}, reject=split([score for score in highest if score > 0.25]))


def ultralytics_classify(out, images, tiny):
    from ultralytics import YOLO

    # Ultralytics takes an export below 0.1 MB for a broken one.
    rows = [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "Conv", [16, 3, 2]]]
    case = Case(out, "ultralytics-classify", ["ultralytics"], images)
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder) / "yolov8n-tiny-cls.yaml"
        here.write_text(json.dumps({"nc": 3, "backbone": rows, "head": [[-1, 1, "Classify", ["nc"]]], "scales": {"n": [1, 1, 1024]}}))
        yolo = YOLO(str(here) if tiny else "yolov8n-cls.yaml", task="classify", verbose=False)
        if not tiny:
            here.write_text(json.dumps({**yolo.model.yaml, "nc": 3, "scale": "n"}))
            yolo = YOLO(str(here), task="classify", verbose=False)
        yolo.model.names = dict(enumerate(LABELS))
        stirred(yolo.model, SEED)
        size = 32 if tiny else 224
        exported = yolo.export(format="onnx", imgsz=size, simplify=False, device="cpu", verbose=False)
        shutil.move(exported, case.model)
        for path in case.images:
            probs = yolo.predict(str(path), imgsz=size, device="cpu", verbose=False)[0].probs.data.tolist()
            case.say(path, dict(zip(map(label, LABELS), probs)))
    case.write([], {"input.fit": '"stretch"'}, good=["good"])


def timm_classify(out, images, tiny):
    import timm
    from timm.data import create_transform

    size = 64 if tiny else 224
    if tiny:
        block = timm.models.resnet.BasicBlock
        model = timm.models.resnet.ResNet(block, (1, 1, 1, 1), num_classes=3, channels=(4, 4, 4, 8), stem_width=4)
    else:
        model = timm.create_model("resnet18", pretrained=False, num_classes=3)
    stirred(model, SEED, 0.8)
    transform = create_transform((3, size, size), interpolation="bicubic", mean=MEAN, std=STD, crop_pct=1.0)
    classifier(out, "timm-classify", ["timm"], images, model, transform, size, "pillow-bicubic")


def torchvision_classify(out, images, tiny):
    from torchvision.models import mobilenet_v3_small
    from torchvision.transforms._presets import ImageClassification

    model = stirred(mobilenet_v3_small(weights=None, num_classes=3), SEED)
    transform = ImageClassification(crop_size=224, resize_size=224)
    classifier(out, "torchvision-classify", ["torchvision"], images, model, transform, 224, "pillow-bilinear")


@torch.inference_mode()
def classifier(out, name, tool, images, model, transform, size, resize):
    case = Case(out, name, tool, images)
    export(model, case.model, size)
    for path in case.images:
        probs = model(transform(Image.open(path).convert("RGB")).unsqueeze(0)).softmax(1)[0].tolist()
        case.say(path, dict(zip(map(label, LABELS), probs)))
    (case.folder / "labels.txt").write_text("\n".join(LABELS) + "\n")
    answers = {"input.colour": '"rgb"', "input.resize": f'"{resize}"', "input.fit": '"stretch"', "input.mean": str(MEAN), "input.std": str(STD)}
    case.write(["--labels", "labels.txt"], {**answers, "output.activation": '"softmax"'}, good=["good"])


@torch.inference_mode()
def smp_segment(out, images, tiny):
    import segmentation_models_pytorch as smp

    size = 64 if tiny else 256
    case = Case(out, "smp-segment", ["segmentation-models-pytorch"], images)
    if tiny:
        model = smp.Unet("tu-mobilenetv3_small_050", encoder_weights=None, encoder_depth=3, decoder_channels=(8, 4, 4), classes=2)
    else:
        model = smp.Unet("resnet18", encoder_weights=None, classes=2)
    stirred(model, SEED, 0.8)
    head = model.segmentation_head[0]
    head.weight.data.mul_(0.5)
    export(model, case.model, size)
    prepare = smp.encoders.get_preprocessing_fn("tu-resnet18")
    for path in case.images:
        image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        image = prepare(cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR)).astype(np.float32)
        maps = model.predict(torch.from_numpy(image.transpose(2, 0, 1)).unsqueeze(0)).sigmoid()[0]
        case.say(path, dict(zip(["scratch", "deep-dent"], maps.flatten(1).topk(32).values.mean(1).tolist())))
    (case.folder / "labels.txt").write_text("scratch\ndeep dent\n")
    answers = {"input.colour": '"rgb"', "input.resize": '"opencv-linear"', "input.fit": '"stretch"', "input.mean": str(MEAN), "input.std": str(STD)}
    answers.update({"output.activation": '"sigmoid"', "output.map_score": '"top-k-mean"\ntop_k = 32', "output.pixel_threshold": "0.5"})
    case.write(["--labels", "labels.txt", "--all-defects"], answers)


def anomalib_model(size, tiny):
    """anomalib's module with its pre- and post-processor around a network, in place of one that was fitted."""
    from anomalib import LearningType
    from anomalib.data import InferenceBatch
    from anomalib.models import Patchcore
    from anomalib.models.components import AnomalibModule
    from anomalib.post_processing import PostProcessor
    from anomalib.pre_processing import PreProcessor
    from torchvision.transforms.v2 import Compose, Normalize, Resize

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.SiLU(), nn.Conv2d(4, 4, 3, 2, 1))

        def forward(self, batch):
            anomaly_map = self.layers(batch).square().mean(1, keepdim=True).sqrt()
            anomaly_map = nn.functional.interpolate(anomaly_map, scale_factor=4.0, mode="bilinear", align_corners=False)
            return InferenceBatch(pred_score=torch.amax(anomaly_map, dim=(-2, -1)), anomaly_map=anomaly_map)

    class Small(AnomalibModule):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.model = Net()

        learning_type = LearningType.ONE_CLASS
        trainer_arguments = {}

    processors = {
        "pre_processor": PreProcessor(transform=Compose([Resize((size, size), antialias=True), Normalize(MEAN, STD)])),
        "post_processor": PostProcessor(),
    }
    if tiny:
        return stirred(Small(evaluator=False, visualizer=False, **processors), SEED)
    module = Patchcore(backbone="resnet18", layers=["layer2", "layer3"], pre_trained=False, evaluator=False, visualizer=False, **processors)
    stirred(module, SEED, 0.8)
    generator = torch.Generator().manual_seed(SEED)
    module.model.memory_bank = torch.randn(200, 384, generator=generator).abs()
    return module


def anomalib_anomaly(out, images, tiny, name, size):
    from anomalib.engine import Engine

    case = Case(out, name, ["anomalib"], images)
    module = anomalib_model(size, tiny)
    post = module.post_processor
    with tempfile.TemporaryDirectory() as folder:

        def predict():
            engine = Engine(default_root_dir=folder, accelerator="cpu", devices=1, logger=False, enable_progress_bar=False)
            batches = engine.predict(model=module, data_path=str(case.images[0].parent), return_predictions=True)
            return {Path(path).name: (float(score), bool(is_bad))
                    for batch in batches for path, score, is_bad in zip(batch.image_path, batch.pred_score.flatten(), batch.pred_label.flatten())}

        # In place of a validation: limits and threshold of the raw scores.
        for buffer in (post.image_min, post.pixel_min):
            buffer.fill_(0.0)
        for buffer in (post.image_max, post.pixel_max):
            buffer.fill_(1000.0)
        for buffer in (post._image_threshold, post._pixel_threshold):
            buffer.fill_(500.0)
        raw = [score * 1000 for score, _ in predict().values()]
        low, high = min(raw), max(raw)
        for kind in ("image", "pixel"):
            getattr(post, f"{kind}_min").fill_(low - (high - low) / 4)
            getattr(post, f"{kind}_max").fill_(high + (high - low) / 4)
            getattr(post, f"_{kind}_threshold").fill_(split(raw))
        said = predict()
        exported = module.to_onnx(folder, input_size=(size, size), external_data=False, opset_version=18, dynamic_axes={"input": {0: "batch"}} if tiny else None)
        shutil.move(exported, case.model)
    for path in case.images:
        case.say(path, {"anomaly": said[path.name][0]})
    case.write([], {}, reject=0.5, above=True)
    # The tool's own verdict, not one worked out here.
    text = json.loads((case.folder / "case.json").read_text())
    for one in text["images"]:
        one["verdict"] = "NOT_OK" if said[Path(one["file"]).name][1] else "OK"
    (case.folder / "case.json").write_text(json.dumps(text, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--lineproof")
    parser.add_argument("--datasets", type=Path)
    parser.add_argument("--only", help="names of cases that hold this text")
    args = parser.parse_args()
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    tiny = args.lineproof is None
    out, lineproof = args.out.resolve(), args.lineproof and Path(args.lineproof).resolve()
    datasets = args.datasets and args.datasets.resolve()
    out.mkdir(parents=True, exist_ok=True)
    # Ultralytics exports into the folder in which it runs.
    scratch = tempfile.TemporaryDirectory()
    os.chdir(scratch.name)
    frames, square, small = (out / name for name in ("images", "images-square", "images-model"))
    if not frames.exists():
        frames.mkdir()
        if tiny:
            drawn(frames, 4, (96, 72))
        else:
            collected(frames, lineproof, datasets if datasets and datasets.is_dir() else None)
        squares(frames, square)
        squares(frames, small, 64 if tiny else 256)
    cases = {
        "ultralytics-detect": lambda: ultralytics_detect(out, frames, tiny, False),
        "ultralytics-classify": lambda: ultralytics_classify(out, square, tiny),
        "timm-classify": lambda: timm_classify(out, square, tiny),
        "smp-segment": lambda: smp_segment(out, frames, tiny),
        "anomalib": lambda: anomalib_anomaly(out, small, tiny, "anomalib", 64 if tiny else 256),
    }
    if not tiny:
        cases["ultralytics-detect-nms"] = lambda: ultralytics_detect(out, frames, tiny, True)
        cases["torchvision-classify"] = lambda: torchvision_classify(out, square, tiny)
    for name, make in cases.items():
        if args.only is None or args.only in name:
            shutil.rmtree(out / name, ignore_errors=True)
            make()


if __name__ == "__main__":
    sys.exit(main())
