"""A line PC's side of Lineproof: frames in, verdicts with a durable entry in the log out.

    with lineproof.connect("http://127.0.0.1:7443") as client:
        frame = lineproof.Frame(camera, frame_id="f-1", frame_counter=1, product="demo-part", serial="SN-1", image=png)
        decision = client.inspect(frame)

No verdict is never OK: whatever keeps a frame from its verdict is an exception, `Refused`, or an answer that holds one.
"""

from .client import Client, Health
from .connection import Tls, connect
from .decision import Box, Decision, DetectedBox, LabelScore, Timings, Verdict
from .errors import (
    DeadlineExceeded,
    FrameIdReused,
    GaveUp,
    Internal,
    InvalidFrame,
    LineproofError,
    NotAllowed,
    NotServed,
    Overloaded,
    Refused,
    Unavailable,
    UnknownSource,
    UnreadableAnswer,
)
from .frame import Camera, Frame, PixelFormat, RawLayout, frame_id_of
from .retry import NO_RETRY, Retry
from .stream import Answer, Event, Reconnecting, Retrying

__all__ = [
    "NO_RETRY",
    "Answer",
    "Box",
    "Camera",
    "Client",
    "DeadlineExceeded",
    "Decision",
    "DetectedBox",
    "Event",
    "Frame",
    "FrameIdReused",
    "GaveUp",
    "Health",
    "Internal",
    "InvalidFrame",
    "LabelScore",
    "LineproofError",
    "NotAllowed",
    "NotServed",
    "Overloaded",
    "PixelFormat",
    "RawLayout",
    "Reconnecting",
    "Refused",
    "Retry",
    "Retrying",
    "Timings",
    "Tls",
    "Unavailable",
    "UnknownSource",
    "UnreadableAnswer",
    "Verdict",
    "connect",
    "frame_id_of",
]
