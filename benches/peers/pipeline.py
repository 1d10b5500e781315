"""The one way from a frame to a result that the floor and every Python peer run: decode, resize, normalise, infer."""

import os

import cv2
import numpy as np

from workloads import HEIGHT_PX, MODEL_OF, WIDTH_PX

MEAN = np.array([0.485, 0.456, 0.406], np.float32).reshape(3, 1, 1)
STD = np.array([0.229, 0.224, 0.225], np.float32).reshape(3, 1, 1)

cv2.setNumThreads(1)


def preprocess(workload, payload):
    """Bytes of a frame to the model's input, float32 [1, C, h, w]."""
    data = np.frombuffer(payload, np.uint8)
    if workload == "jpeg_cls":
        bgr = cv2.resize(cv2.imdecode(data, cv2.IMREAD_COLOR), (224, 224), interpolation=cv2.INTER_LINEAR)
        planes = bgr[:, :, ::-1].transpose(2, 0, 1).astype(np.float32)
        return ((planes / 255.0 - MEAN) / STD)[None]
    gray = data.reshape(HEIGHT_PX, WIDTH_PX)
    if workload == "mono_seg":
        small = cv2.resize(gray, (640, 640), interpolation=cv2.INTER_LINEAR)
        return (small.astype(np.float32) / 255.0)[None, None]
    small = cv2.resize(gray, (224, 224), interpolation=cv2.INTER_LINEAR).astype(np.float32) / 255.0
    return (np.broadcast_to(small, (3, 224, 224)) - MEAN)[None] / STD


def postprocess(workload, output):
    """The model's output for n frames to n float32 vectors: scores, or highest value and count of pixels above 0.5."""
    if workload == "mono_seg":
        return [np.array([map_.max(), np.count_nonzero(map_ > 0.5)], np.float32) for map_ in output]
    return [row.astype(np.float32) for row in output]


class Pipeline:
    """One session. Settings come from BENCH_* variables where they are not given."""

    def __init__(self, workload=None, models=None, threads=None):
        import onnxruntime

        self.workload = workload or os.environ["BENCH_WORKLOAD"]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(threads or os.environ["BENCH_THREADS"])
        options.inter_op_num_threads = 1
        # Several sessions share few cores: threads that spin while idle would take time from decoding.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        model = os.path.join(models or os.environ["BENCH_MODELS"], MODEL_OF[self.workload])
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def one(self, payload):
        """A frame's bytes to its vector."""
        output = self.session.run(None, {"image": preprocess(self.workload, payload)})[0]
        return postprocess(self.workload, output)[0]

    def many(self, payloads):
        """The same for a batch, run as one."""
        batch = np.concatenate([preprocess(self.workload, payload) for payload in payloads])
        return postprocess(self.workload, self.session.run(None, {"image": batch})[0])
