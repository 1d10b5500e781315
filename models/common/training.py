"""What every training script shares: seeding, one training loop, the ONNX export and the files that go with it."""

import io
import json
import random
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from common.score import digest_of

SEED = 20261123


def seed_everything(threads: int) -> np.random.Generator:
    """One seed for all. The result also depends on the thread count and the CPU: sums are rounded in another order."""
    random.seed(SEED)
    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(threads)
    return np.random.default_rng(SEED)


def fit(
    model: nn.Module,
    batch: Callable[[], tuple[torch.Tensor, torch.Tensor]],
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    steps: int,
    peak_rate: float,
    weight_decay: float = 0.02,
    short_floats: bool = False,
    look: Callable[[nn.Module], None] | None = None,
    looks: int = 0,
) -> nn.Module:
    """AdamW, one cycle of the learning rate, and an average of the last few hundred steps' weights, which is returned.

    `short_floats` computes in bfloat16 (the weights stay float32): on a CPU that knows the type two to three times faster.
    `look` is called `looks` times on the way, evenly, with the network so far: to see what it still gets wrong.
    """
    layout = torch.channels_last if short_floats else torch.contiguous_format
    model = model.to(memory_format=layout)
    optimiser = torch.optim.AdamW(model.parameters(), lr=peak_rate, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, peak_rate, total_steps=steps, pct_start=0.15)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.995), use_buffers=True)
    model.train()
    began, shown = time.monotonic(), 0.0
    for step in range(1, steps + 1):
        x, y = batch()
        with torch.autocast("cpu", torch.bfloat16, enabled=short_floats):
            output = model(x.to(memory_format=layout))
        value = loss(output.float(), y)
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        schedule.step()
        average.update_parameters(model)
        shown = value.item() if step == 1 else 0.98 * shown + 0.02 * value.item()
        if step % 100 == 0 or step == steps:
            print(f"step {step}/{steps} loss {shown:.4f} after {time.monotonic() - began:.0f} s", flush=True)
        if look and step < steps and step * (looks + 1) // steps > (step - 1) * (looks + 1) // steps:
            look(model.eval())
            model.train()
    return average.module.to(memory_format=torch.contiguous_format).eval()


def export(model: nn.Module, height_px: int, width_px: int) -> bytes:
    """ONNX, opset 17, float32, batch axis free, batch normalisation folded into the convolutions."""
    file = io.BytesIO()
    sample = torch.zeros(1, 1, height_px, width_px)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model.eval(), (sample,), file, opset_version=17, dynamo=False,
            input_names=["input"], output_names=["logits"],
            dynamic_axes={"input": {0: "n"}, "logits": {0: "n"}},
        )  # fmt: skip
    graph = onnx.load_from_string(file.getvalue())
    without_identities(graph.graph)
    onnx.checker.check_model(graph)
    data = graph.SerializeToString(deterministic=True)
    agree(model, data, height_px, width_px)
    return data


def without_identities(graph: onnx.GraphProto) -> None:
    """The exporter shares equal biases through Identity nodes; a copy of a few floats is simpler for every runtime."""
    values = {constant.name: constant for constant in graph.initializer}
    for node in [node for node in graph.node if node.op_type == "Identity" and node.input[0] in values]:
        copy = onnx.TensorProto()
        copy.CopyFrom(values[node.input[0]])
        copy.name = node.output[0]
        graph.initializer.append(copy)
        graph.node.remove(node)


def agree(model: nn.Module, data: bytes, height_px: int, width_px: int) -> None:
    """The exported graph must say what the trained network says, for a batch as well."""
    x = torch.randn(3, 1, height_px, width_px, generator=torch.Generator().manual_seed(SEED))
    with torch.no_grad():
        expected = model(x).numpy()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    difference = np.abs(session.run(None, {"input": x.numpy()})[0] - expected).max()
    if difference > 1e-3:
        raise AssertionError(f"the exported model differs from the trained one by {difference}")


def one_core_ms(data: bytes, height_px: int, width_px: int) -> float:
    """Median time of one frame on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    x = np.zeros((1, 1, height_px, width_px), np.float32)
    times = []
    for _ in range(50):
        began = time.perf_counter()
        session.run(None, {"input": x})
        times.append(time.perf_counter() - began)
    return float(np.median(times) * 1e3)


def write_release(out: Path, name: str, version: str, model: bytes, calibration: str, recipe: str, metrics: dict) -> None:
    """Writes the model and, with their digests filled in, the texts that name it.

    `calibration` holds the mark MODEL_DIGEST, `recipe` the marks MODEL_DIGEST and CALIBRATION_DIGEST.
    """
    calibration = calibration.replace("MODEL_DIGEST", digest_of(model))
    recipe = recipe.replace("MODEL_DIGEST", digest_of(model))
    recipe = recipe.replace("CALIBRATION_DIGEST", digest_of(calibration.encode()))
    out.mkdir(parents=True, exist_ok=True)
    (out / "model.onnx").write_bytes(model)
    (out / f"{name}-{version}.toml").write_bytes(calibration.encode())
    (out / "recipe.toml").write_bytes(recipe.encode())
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n", "utf-8")
    print(json.dumps(metrics, indent=1), flush=True)


def map_loss(positive_weight: float) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Weighted cross-entropy for every pixel, plus soft Dice per label over the batch, so that rare defects count."""

    def loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        weight = torch.tensor(positive_weight)
        entropy = nn.functional.binary_cross_entropy_with_logits(logits, target, pos_weight=weight)
        guess = torch.sigmoid(logits)
        both, either = (guess * target).sum((0, 2, 3)), (guess + target).sum((0, 2, 3))
        return 4 * entropy + (1 - (2 * both + 10) / (either + 10)).mean()

    return loss


def maps_of(model: nn.Module, x: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return torch.cat([model(part) for part in x.split(16)]).numpy()


def fit_platt(logits: np.ndarray, target: np.ndarray) -> tuple[float, float]:
    """Slope and intercept of least negative log-likelihood, by Newton's method on a million pixels at most."""
    z, y = logits.reshape(-1).astype(np.float64), target.reshape(-1).astype(np.float64)
    step = max(1, len(z) // 1_000_000)
    z, y = z[::step], y[::step]
    slope, intercept = 1.0, 0.0
    for _ in range(30):
        p = 1 / (1 + np.exp(-np.clip(slope * z + intercept, -60, 60)))
        gradient = np.array([((p - y) * z).sum(), (p - y).sum()])
        w = np.maximum(p * (1 - p), 1e-12)
        hessian = np.array([[(w * z * z).sum(), (w * z).sum()], [(w * z).sum(), w.sum()]]) + 1e-6 * np.eye(2)
        change = np.linalg.solve(hessian, gradient)
        slope, intercept = slope - change[0], intercept - change[1]
        if np.abs(change).max() < 1e-9:
            break
    return round(float(slope), 4), round(float(intercept), 4)
