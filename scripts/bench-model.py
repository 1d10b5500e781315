#!/usr/bin/env python3
"""Writes the model of benches/end_to_end.rs: a ResNet-18 for 224 x 224 RGB with seeded random weights and five labels.

Speed does not depend on what the weights say, so nothing is trained and nothing is committed. Batch normalisation is
folded into the convolutions, as every exporter does. Run by scripts/bench.sh, which pins numpy and onnx.
"""

import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LABELS = 5
dice = np.random.default_rng(20261123)
nodes, weights = [], []


def constant(name, values):
    weights.append(numpy_helper.from_array(values.astype(np.float32), name))
    return name


def convolution(name, data, inputs, outputs, kernel, stride, relu):
    deviation = np.sqrt(2.0 / (inputs * kernel * kernel))
    weight = constant(f"{name}.weight", dice.standard_normal((outputs, inputs, kernel, kernel)) * deviation)
    bias = constant(f"{name}.bias", dice.standard_normal(outputs) * 0.01)
    nodes.append(
        helper.make_node(
            "Conv",
            [data, weight, bias],
            [name],
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[kernel // 2] * 4,
        )
    )
    return rectified(name) if relu else name


def rectified(data):
    nodes.append(helper.make_node("Relu", [data], [f"{data}.relu"]))
    return f"{data}.relu"


def block(name, data, inputs, outputs, stride):
    first = convolution(f"{name}.conv1", data, inputs, outputs, 3, stride, relu=True)
    second = convolution(f"{name}.conv2", first, outputs, outputs, 3, 1, relu=False)
    is_same = inputs == outputs and stride == 1
    short = data if is_same else convolution(f"{name}.short", data, inputs, outputs, 1, stride, relu=False)
    nodes.append(helper.make_node("Add", [second, short], [f"{name}.sum"]))
    return rectified(f"{name}.sum")


def main(path):
    data = convolution("stem", "input", 3, 64, 7, 2, relu=True)
    nodes.append(
        helper.make_node("MaxPool", [data], ["pool"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    )
    data, channels = "pool", 64
    for stage, outputs in enumerate([64, 128, 256, 512], start=1):
        data = block(f"stage{stage}.0", data, channels, outputs, 1 if stage == 1 else 2)
        data = block(f"stage{stage}.1", data, outputs, outputs, 1)
        channels = outputs
    nodes.append(helper.make_node("GlobalAveragePool", [data], ["mean"]))
    nodes.append(helper.make_node("Flatten", ["mean"], ["features"], axis=1))
    weight = constant("head.weight", dice.standard_normal((LABELS, channels)) * 0.01)
    bias = constant("head.bias", np.zeros(LABELS))
    nodes.append(helper.make_node("Gemm", ["features", weight, bias], ["logits"], transB=1))

    graph = helper.make_graph(
        nodes,
        "resnet18",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 224, 224])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, LABELS])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    print(f"{path}: {sum(weight.raw_data.__len__() for weight in weights) // 4:,} weights")


if __name__ == "__main__":
    main(sys.argv[1])
