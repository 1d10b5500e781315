"""What a line PC says of one frame, and the message it becomes."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime, timedelta

from blake3 import blake3

from .v1 import inspection_pb2 as pb


class PixelFormat(enum.IntEnum):
    """Raw pixel formats by their GenICam PFNC code."""

    MONO8 = 0x01080001
    MONO10 = 0x01100003
    MONO12 = 0x01100005
    MONO16 = 0x01100007
    MONO10P = 0x010A0046
    MONO12P = 0x010C0047
    BAYER_GR8 = 0x01080008
    BAYER_RG8 = 0x01080009
    BAYER_GB8 = 0x0108000A
    BAYER_BG8 = 0x0108000B
    RGB8 = 0x02180014
    BGR8 = 0x02180015


@dataclass(frozen=True)
class RawLayout:
    """How raw pixels lie in memory."""

    format: PixelFormat
    width_px: int
    height_px: int
    stride_bytes: int = 0
    """Bytes from one row to the next; 0: rows are tight."""


@dataclass(frozen=True)
class Camera:
    """Where frames come from. Names have 1 to 64 characters of letters, digits and `._-:`; the service must be configured for them."""

    line: str
    station: str
    camera: str


@dataclass(frozen=True)
class Frame:
    """One frame of one part. The service checks every field and names the one that is wrong."""

    camera: Camera
    frame_id: str
    """Unique for the camera, 1 to 64 characters. The same id with the same bytes is the same frame and gets the same entry."""
    frame_counter: int
    """The camera's own counter, rising by one per frame; a jump is recorded as a gap. At most 2^53 - 1."""
    product: str
    """The type of the part."""
    serial: str
    """Serial number or data-matrix code, 1 to 128 printable characters. The log holds only a salted commitment to it."""
    image: bytes
    """A PNG, JPEG, TIFF or BMP file, or raw pixels as `raw` says."""
    raw: RawLayout | None = None
    lot: str = ""
    recipe: str = ""
    """`name@version`; empty: the one configured for the product."""
    captured_at: datetime | None = None
    """With its time zone. `None`: when the frame is first sent."""
    trigger_counter: int | None = None
    """Trigger or PLC part counter, where the line has one."""
    useful_for: timedelta | None = None
    """How long the answer is of use. A frame that still waits then is not judged. `None`: what the service is configured for."""
    image_blake3: bytes | None = None
    """BLAKE3 of `image`, 32 bytes, where the camera's driver knows it. `None`: computed here. Compared before anything is decoded."""

    def __post_init__(self) -> None:
        if self.captured_at is not None and self.captured_at.utcoffset() is None:
            raise ValueError("captured_at has no time zone; write datetime.now(timezone.utc)")


def frame_id_of(name: str, image: bytes) -> str:
    """The id `lineproof camera` gives the file `name`: the same only for the same name and bytes.

    A frame id stands in the log in clear and for ever. Names mostly are serial numbers, which must stay erasable; without
    the image nobody can try names until one gives this id.
    """
    return blake3(name.encode() + b"\0" + image).hexdigest()[:32]


def to_request(frame: Frame, now: datetime) -> pb.InspectRequest:
    """What is sent for a frame, the same each time it is sent."""
    image = pb.Image(data=frame.image)
    if frame.raw is not None:
        image.raw.pfnc = frame.raw.format
        image.raw.width_px = frame.raw.width_px
        image.raw.height_px = frame.raw.height_px
        image.raw.stride_bytes = frame.raw.stride_bytes
    request = pb.InspectRequest(
        line=frame.camera.line,
        station=frame.camera.station,
        camera=frame.camera.camera,
        frame_id=frame.frame_id,
        frame_counter=frame.frame_counter,
        trigger_counter=frame.trigger_counter,
        product=frame.product,
        serial=frame.serial,
        lot=frame.lot,
        recipe=frame.recipe,
        image_blake3=blake3(frame.image).digest() if frame.image_blake3 is None else frame.image_blake3,
        image=image,
    )
    request.captured_at.FromDatetime(frame.captured_at or now)
    if frame.useful_for is not None:
        request.useful_for.FromTimedelta(frame.useful_for)
    return request
