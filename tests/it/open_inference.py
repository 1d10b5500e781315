"""What a user of tritonclient does, unchanged, against a running service: python open_inference.py ADDRESS FOLDER

FOLDER has part-1.png … part-4.png and pixels.bin, 320 x 256 raw Mono8. Prints a line for each thing that went as it should.
"""

import queue
import sys
from pathlib import Path

import numpy
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

address, folder = sys.argv[1], Path(sys.argv[2])
client = triton.InferenceServerClient(address)
MODEL = "machined-surface"


def expect(condition, what):
    if not condition:
        sys.exit(f"FAILED: {what}")
    print(f"ok: {what}")


def image_input(number):
    data = triton.InferInput("image", [1], "BYTES")
    data.set_data_from_numpy(numpy.array([(folder / f"part-{number}.png").read_bytes()], dtype=object))
    return [data]


def refused(code, what, call):
    try:
        answer = call()
    except InferenceServerException as error:
        expect(code in str(error.status()), f"{what} is {code}: {error.message()[:160]}")
    else:
        sys.exit(f"FAILED: {what} was answered: {answer}")


expect(client.is_server_live() and client.is_server_ready(), "the server is live and ready")
expect(client.is_model_ready(MODEL) and client.is_model_ready(MODEL, "1.1.0"), "the model is ready")
metadata = client.get_server_metadata()
expect(metadata.name == "lineproof" and metadata.version, "the server has a name and a version")
index = client.get_model_repository_index()
expect(any(model.name == MODEL and model.state == "READY" for model in index.models), "the index has the model")
metadata = client.get_model_metadata(MODEL)
expect([tensor.name for tensor in metadata.inputs][0] == "image", "the metadata names the inputs")
expect(list(metadata.versions) == ["1.1.0"], "the metadata names the versions")
config = client.get_model_config(MODEL).config
expect(config.name == MODEL and config.max_batch_size == 0, "the configuration names the model")
expect({tensor.name for tensor in config.output} == {tensor.name for tensor in metadata.outputs}, "both name the outputs")

# ---- An image as bytes ----
answer = client.infer(MODEL, image_input(1), request_id="first", parameters={"serial": "SN-1", "lot": "L-7"})
verdict, entry = answer.as_numpy("verdict")[0], int(answer.as_numpy("entry_index")[0])
expect(verdict in (b"OK", b"NOT_OK", b"NOT_DECIDABLE"), f"a verdict: {verdict}")
labels, scores = answer.as_numpy("labels"), answer.as_numpy("scores")
expect(len(labels) == len(scores) and scores.dtype == numpy.float32, "a score for every label")
expect(answer.as_numpy("score")[0] in scores, "the decision score is one of them")
expect(answer.as_numpy("leaf_hash")[0].startswith(b"sha256:"), "a leaf hash")
expect(answer.get_response().id == "first", "the id comes back")
again = client.infer(MODEL, image_input(1), request_id="first", parameters={"serial": "SN-1", "lot": "L-7"})
expect(int(again.as_numpy("entry_index")[0]) == entry, "the same id with the same bytes is the same entry")
refused("ALREADY_EXISTS", "the same id with other bytes", lambda: client.infer(MODEL, image_input(2), request_id="first"))
some = client.infer(MODEL, image_input(2), outputs=[triton.InferRequestedOutput("verdict")])
expect(some.as_numpy("verdict") is not None and some.as_numpy("score") is None, "only the outputs that were asked for")

# ---- Pixels as a tensor ----
pixels = numpy.fromfile(folder / "pixels.bin", dtype=numpy.uint8).reshape(256, 320)
for shape in ([256, 320], [1, 256, 320], [256, 320, 1]):
    data = triton.InferInput("pixels", shape, "UINT8")
    data.set_data_from_numpy(pixels.reshape(shape))
    answer = client.infer(MODEL, [data], model_version="1.1.0", parameters={"frame_counter": 40 + len(shape) + shape[0]})
    expect(answer.as_numpy("verdict").shape == (1,), f"pixels of shape {shape}")
deep = triton.InferInput("pixels", [256, 320], "UINT16")
deep.set_data_from_numpy(pixels.astype(numpy.uint16) * 257)
expect(client.infer(MODEL, [deep]).as_numpy("verdict").shape == (1,), "pixels of 16 bits")

# ---- What is not there, and what does not fit ----
refused("NOT_FOUND", "an unknown model", lambda: client.infer("no-such-model", image_input(1)))
refused("NOT_FOUND", "an unknown version", lambda: client.infer(MODEL, image_input(1), model_version="999"))
refused("NOT_FOUND", "an unknown model's metadata", lambda: client.get_model_metadata("no-such-model"))
refused("NOT_FOUND", "an unknown camera", lambda: client.infer(MODEL, image_input(1), parameters={"camera": "cam-9"}))
other = triton.InferInput("picture", [1], "BYTES")
other.set_data_from_numpy(numpy.array([b"x"], dtype=object))
refused("INVALID_ARGUMENT", "an unknown input", lambda: client.infer(MODEL, [other]))
wrong = triton.InferInput("image", [1], "FP32")
wrong.set_data_from_numpy(numpy.zeros(1, dtype=numpy.float32))
refused("INVALID_ARGUMENT", "a wrong datatype", lambda: client.infer(MODEL, [wrong]))
two = triton.InferInput("image", [2], "BYTES")
two.set_data_from_numpy(numpy.array([b"x", b"y"], dtype=object))
refused("INVALID_ARGUMENT", "a wrong shape", lambda: client.infer(MODEL, [two]))
refused("INVALID_ARGUMENT", "no image", lambda: client.infer(MODEL, [triton.InferInput("image", [1], "BYTES").set_data_from_numpy(numpy.array([b"GIF89a"], dtype=object))]))
refused("INVALID_ARGUMENT", "an unknown output", lambda: client.infer(MODEL, image_input(1), outputs=[triton.InferRequestedOutput("probability")]))
refused("INVALID_ARGUMENT", "classification as an output", lambda: client.infer(MODEL, image_input(1), outputs=[triton.InferRequestedOutput("scores", class_count=1)]))
refused("INVALID_ARGUMENT", "an unknown parameter", lambda: client.infer(MODEL, image_input(1), parameters={"seriall": "SN-1"}))
refused("INVALID_ARGUMENT", "a digest of other bytes", lambda: client.infer(MODEL, image_input(1), parameters={"image_blake3": "00" * 32}))
refused("INVALID_ARGUMENT", "two inputs", lambda: client.infer(MODEL, image_input(1) + image_input(2)))

# ---- A stream ----
answers = queue.Queue()
client.start_stream(callback=lambda result, error: answers.put((result, error)))
for number in (1, 2, 3, 4):
    client.async_stream_infer(MODEL, image_input(number), request_id=f"stream-{number}", parameters={"serial": f"SN-{number}"})
client.async_stream_infer("no-such-model", image_input(1), request_id="stream-5")
client.async_stream_infer(MODEL, image_input(4), request_id="stream-6")
ids, errors = [], 0
for _ in range(6):
    result, error = answers.get(timeout=60)
    if error is None:
        ids.append(result.get_response().id)
    else:
        errors += 1
        expect("NOT_FOUND" in error.message(), f"a refused frame in a stream: {error.message()[:120]}")
client.stop_stream()
expect(ids == ["stream-1", "stream-2", "stream-3", "stream-4", "stream-6"] and errors == 1, "answers of a stream come in order")
print(f"done {entry}")
