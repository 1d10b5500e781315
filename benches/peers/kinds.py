"""How a frame becomes a request, and how a request is sent: one class per kind of server.

A body is cut where the frame's number stands, so that a request costs the client one copy and no serialising: the
client shares the cores with the server. Only `Inspect` has more to do, for its frames carry ids and digests.
"""

import http.client
import struct
import time

import grpc
from blake3 import blake3

from workloads import HEIGHT_PX, MARK, WIDTH_PX

GRPC_OPTIONS = [
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.max_send_message_length", 64 << 20),
    ("grpc.use_local_subchannel_pool", 1),  # a connection per client, as cameras have
]
CALL_TIMEOUT_S = 120


def cut(body):
    """The body before and after the frame's number."""
    at = body.index(MARK)
    return body[:at], body[at + len(MARK) :]


class Grpc:
    """Bytes in, bytes out, so that protobuf costs the client nothing."""

    method: str

    def __init__(self, port, client):
        self.client = client
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=GRPC_OPTIONS)
        self.call = self.channel.unary_unary(self.method)

    def close(self):
        self.channel.close()


class OpenInference(Grpc):
    """The Open Inference Protocol: model `insp`, one BYTES element `image`, or a UINT8 tensor `pixels`."""

    method = "/inference.GRPCInferenceService/ModelInfer"

    @staticmethod
    def prepare(frames, pixels):
        from tritonclient.grpc import service_pb2 as pb

        def body(frame):
            request = pb.ModelInferRequest(model_name="insp")
            if pixels:
                request.inputs.add(name="pixels", datatype="UINT8", shape=[HEIGHT_PX, WIDTH_PX])
                request.raw_input_contents.append(frame)
            else:
                request.inputs.add(name="image", datatype="BYTES", shape=[1, 1])
                request.raw_input_contents.append(struct.pack("<I", len(frame)) + frame)
            return request.SerializeToString()

        return [cut(body(frame)) for frame in frames]

    def send(self, prepared, number):
        answer = self.call(b"".join((prepared[0], number.to_bytes(8, "big"), prepared[1])), timeout=CALL_TIMEOUT_S)
        if not answer:
            raise RuntimeError("empty answer")

    def first(self, prepared, number):
        """An answer that is looked at: one with results, and from our server the verdict OK."""
        from tritonclient.grpc import service_pb2 as pb

        body = b"".join((prepared[0], number.to_bytes(8, "big"), prepared[1]))
        answer = pb.ModelInferResponse.FromString(self.call(body, timeout=CALL_TIMEOUT_S))
        names = [output.name for output in answer.outputs]
        if not answer.raw_output_contents or not names:
            raise RuntimeError(f"an answer without results: {names}")
        if "verdict" in names and answer.raw_output_contents[names.index("verdict")][4:] != b"OK":
            raise RuntimeError(f"not OK: {answer}"[:300])


class Inspect(Grpc):
    """Our own call. Every client is a camera of its own, counts its frames and names each with its id and digest."""

    method = "/lineproof.v1.InspectionService/Inspect"
    counters = {}  # of each camera, over all levels of a run

    @staticmethod
    def prepare(frames, pixels):
        from lineproof.v1 import inspection_pb2 as pb

        prepared = []
        for frame in frames:
            image = pb.Image(data=frame)
            if pixels:
                image.raw.CopyFrom(pb.RawLayout(pfnc=0x01080001, width_px=WIDTH_PX, height_px=HEIGHT_PX))
            fixed = pb.InspectRequest(line="line-1", station="station-1", product="part", image=image)
            # BLAKE3 of what comes before the number is worked out once; a raw frame ends with its number.
            before, after = cut(frame)
            prepared.append((*cut(fixed.SerializeToString()), blake3(before), after))
        return prepared

    def body(self, prepared, number):
        from lineproof.v1 import inspection_pb2 as pb

        before, after, digest, rest = prepared
        mark = number.to_bytes(8, "big")
        digest = digest.copy()
        digest.update(mark)
        digest.update(rest)
        counter = self.counters[self.client] = self.counters.get(self.client, 0) + 1
        own = pb.InspectRequest(
            camera=f"cam-{self.client + 1}",
            frame_id=f"frame-{number}",
            frame_counter=counter,
            serial=f"SN-{number}",
            image_blake3=digest.digest(),
        )
        own.captured_at.FromNanoseconds(time.time_ns())
        # Messages that follow each other are read as one: fields that only one of them has are merged.
        return b"".join((before, mark, after, own.SerializeToString()))

    def send(self, prepared, number):
        from lineproof.v1 import inspection_pb2 as pb

        answer = pb.InspectResponse.FromString(self.call(self.body(prepared, number), timeout=CALL_TIMEOUT_S))
        if answer.verdict != pb.VERDICT_OK or answer.duplicate:
            raise RuntimeError(f"not a new OK: {answer}"[:300])
        return answer.timings

    first = send


class Http:
    """POST /predict with the frame as its body."""

    headers = {"Content-Type": "application/octet-stream"}

    def __init__(self, port, client):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=CALL_TIMEOUT_S)

    @staticmethod
    def prepare(frames, pixels):
        return [cut(frame) for frame in frames]

    def send(self, prepared, number):
        body = b"".join((prepared[0], number.to_bytes(8, "big"), prepared[1]))
        try:
            self.connection.request("POST", "/predict", body, self.headers)
            answer = self.connection.getresponse()
            data = answer.read()
        except Exception:
            self.connection.close()
            raise
        if answer.status != 200 or not data:
            raise RuntimeError(f"HTTP {answer.status} {data[:300]!r}")

    first = send

    def close(self):
        self.connection.close()


class HttpForm(Http):
    """The same as a field `image` of a form."""

    boundary = b"benchboundary7f3a"
    headers = {"Content-Type": "multipart/form-data; boundary=" + boundary.decode()}

    @classmethod
    def prepare(cls, frames, pixels):
        start = (
            b"--" + cls.boundary + b'\r\nContent-Disposition: form-data; name="image"; filename="a.bin"\r\n'
            b"Content-Type: application/octet-stream\r\n\r\n"
        )
        return [cut(start + frame + b"\r\n--" + cls.boundary + b"--\r\n") for frame in frames]


KINDS = {"oip": OpenInference, "inspect": Inspect, "http": Http, "http-form": HttpForm}
