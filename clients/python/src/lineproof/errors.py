"""Why a frame got no verdict. The part has not been judged then: never treat any of this as OK.

What the code of a refusal promises is written in proto/lineproof/v1/inspection.proto: INVALID_ARGUMENT, RESOURCE_EXHAUSTED,
FAILED_PRECONDITION, ALREADY_EXISTS and NOT_FOUND mean that no decision was recorded for these bytes; after the others a
decision may stand in the log, and the same frame id with the same bytes gets it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from .v1 import inspection_pb2 as pb

if TYPE_CHECKING:
    from .frame import Frame

_CODES = {code.value[0]: code for code in grpc.StatusCode}


class LineproofError(Exception):
    """Anything this package raises beside `ValueError` for arguments that cannot work."""


class Refused(LineproofError):
    """A frame without a verdict."""

    def __init__(
        self,
        message: str,
        frame_id: str = "",
        *,
        code: grpc.StatusCode,
        reason: str = "",
        retry_after_s: float | None = None,
        fields: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        """A sentence for people, with what to do."""
        self.frame_id = frame_id
        self.code = code
        self.reason = reason
        """A stable word such as `overload` or `digest_mismatch`. Empty: the service did not speak, the way to it failed."""
        self.retry_after_s = retry_after_s
        """Set when the service wishes to see the same frame again, after so many seconds."""
        self.fields = fields
        """The fields of the request that are wrong, where the service named them."""

    @property
    def is_outcome_unknown(self) -> bool:
        """A decision may stand in the log. Asking again with the same frame id and the same bytes tells."""
        return self.code not in _NOTHING_RECORDED

    def __str__(self) -> str:
        return f"{self.code.name} {self.reason}: {self.message}" if self.reason else f"{self.code.name}: {self.message}"


class InvalidFrame(Refused):
    """INVALID_ARGUMENT, OUT_OF_RANGE: wrong fields, wrong digest, no image, too long. Sending it again is of no use."""


class UnknownSource(Refused):
    """NOT_FOUND: the service is not configured for this line, station or camera."""


class NotServed(Refused):
    """FAILED_PRECONDITION: no recipe inspects this product, or the log takes no entries."""


class Overloaded(Refused):
    """RESOURCE_EXHAUSTED: the line's queue is full, or the disk is below its reserve."""


class FrameIdReused(Refused):
    """ALREADY_EXISTS: this frame id was used for other bytes. The first decision stands."""


class DeadlineExceeded(Refused):
    """DEADLINE_EXCEEDED: with the reason `deadline` the frame waited longer than it was useful for and was not judged;
    without a reason no answer came in time."""


class Unavailable(Refused):
    """UNAVAILABLE, CANCELLED, ABORTED: the service is away, or about to stop."""


class NotAllowed(Refused):
    """UNAUTHENTICATED, PERMISSION_DENIED, UNIMPLEMENTED: this service will never take frames from this line PC like that."""


class Internal(Refused):
    """INTERNAL, UNKNOWN, DATA_LOSS: a fault in the service or on the way."""


class UnreadableAnswer(Internal):
    """The answer holds neither a verdict this package knows nor a refusal: it and the service are of different releases."""

    def __init__(self, message: str, frame_id: str = "") -> None:
        message = f"{message}; use a package and a service of the same release"
        super().__init__(message, frame_id, code=grpc.StatusCode.DATA_LOSS, reason="unreadable_answer")


class GaveUp(LineproofError):
    """A stream ended before all of its frames were answered."""

    def __init__(self, why: str, unanswered: tuple[Frame, ...]) -> None:
        super().__init__(f"{why}; {len(unanswered)} frames are not answered, send them again under the same ids")
        self.why = why
        self.unanswered = unanswered
        """Frames whose outcome is unknown, in their order."""


_NOTHING_RECORDED = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNIMPLEMENTED,
}

_CLASSES: dict[grpc.StatusCode, type[Refused]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidFrame,
    grpc.StatusCode.OUT_OF_RANGE: InvalidFrame,
    grpc.StatusCode.NOT_FOUND: UnknownSource,
    grpc.StatusCode.FAILED_PRECONDITION: NotServed,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    grpc.StatusCode.ALREADY_EXISTS: FrameIdReused,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.CANCELLED: Unavailable,
    grpc.StatusCode.ABORTED: Unavailable,
    grpc.StatusCode.UNAUTHENTICATED: NotAllowed,
    grpc.StatusCode.PERMISSION_DENIED: NotAllowed,
    grpc.StatusCode.UNIMPLEMENTED: NotAllowed,
}


def of_call(error: grpc.RpcError, frame_id: str = "") -> Refused:
    """The status of a failed call with its `google.rpc` details: ErrorInfo, RetryInfo, BadRequest."""
    # grpc raises errors that are calls as well, but types them as errors only.
    if not isinstance(error, grpc.Call):
        return Internal(str(error), frame_id, code=grpc.StatusCode.UNKNOWN)
    code = error.code() or grpc.StatusCode.UNKNOWN
    info, retry, bad = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo(), error_details_pb2.BadRequest()
    try:
        status = rpc_status.from_call(error)
    except ValueError:
        # Details of another status than the call's are nobody's.
        status = None
    for detail in status.details if status is not None else ():
        for known in (info, retry, bad):
            if detail.Is(known.DESCRIPTOR):
                detail.Unpack(known)
    return _CLASSES.get(code, Internal)(
        error.details() or "",
        frame_id,
        code=code,
        # The service names a wrong field instead of giving a reason; the stream says `bad_request` then.
        reason=info.reason or ("bad_request" if bad.field_violations else ""),
        retry_after_s=_seconds(retry.retry_delay) if retry.HasField("retry_delay") else None,
        fields=tuple(violation.field for violation in bad.field_violations),
    )


def of_refusal(refusal: pb.Refusal, frame_id: str) -> Refused:
    """A refusal within a stream."""
    code = _CODES.get(refusal.code, grpc.StatusCode.UNKNOWN)
    return _CLASSES.get(code, Internal)(
        refusal.message,
        frame_id,
        code=code,
        reason=refusal.reason,
        retry_after_s=_seconds(refusal.retry_after) if refusal.HasField("retry_after") else None,
    )


def _seconds(duration: Duration) -> float:
    return max(0.0, duration.seconds + duration.nanos / 1e9)
