"""The calls of a line PC: one frame, a stream of frames, and whether the service can inspect at all."""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timezone
from types import TracebackType

import grpc
from grpc_health.v1 import health_pb2

from . import decision, errors
from .decision import Decision
from .frame import Frame, to_request
from .retry import Retry, is_silence
from .stream import IN_FLIGHT_MAX, Answer, Event, Line
from .v1 import inspection_pb2_grpc


class Health(enum.Enum):
    """What the standard gRPC health service says."""

    SERVING = "SERVING"
    NOT_SERVING = "NOT_SERVING"
    UNKNOWN = "UNKNOWN"
    """The service does not know the name it was asked for."""
    AWAY = "AWAY"
    """No service answers there."""


class Client:
    """A connection to the service; `lineproof.connect` makes one."""

    def __init__(self, channel: grpc.Channel, retry: Retry = Retry()) -> None:
        self.channel = channel
        """For the other services of proto/lineproof/v1, whose stubs are in `lineproof.v1`."""
        self.retry = retry
        self._inspection = inspection_pb2_grpc.InspectionServiceStub(channel)
        # The stub of grpc_health has no types for its methods.
        self._check_health = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Ends calls under way; what the service has taken it decides and records all the same."""
        self.channel.close()

    def inspect(self, frame: Frame, *, retry: Retry | None = None) -> Decision:
        """Decides one frame; sends it again while that may help. Raises `Refused`, in one of its kinds."""
        retry = retry or self.retry
        request = to_request(frame, datetime.now(timezone.utc))
        began = time.monotonic()
        refused_first: float | None = None
        attempts = 0
        while True:
            attempts += 1
            sent = time.monotonic()
            try:
                return decision.of_response(self._inspection.Inspect(request, timeout=retry.answer_within_s))
            except grpc.RpcError as error:
                refused = errors.of_call(error, frame.frame_id)
            now = time.monotonic()
            if refused.code is grpc.StatusCode.CANCELLED and not refused.reason and now - sent >= retry.answer_within_s:
                # Either side may notice first that the time is over; the service's gRPC library calls it CANCELLED.
                refused = errors.DeadlineExceeded(refused.message, frame.frame_id, code=grpc.StatusCode.DEADLINE_EXCEEDED)
            if is_silence(refused):
                pause = retry.pause_s(attempts - 1) if now - began < retry.reconnect_for_s else None
            else:
                refused_first = now if refused_first is None else refused_first
                pause = retry.after_refusal_s(refused, attempts, now - refused_first)
            if pause is None:
                raise refused
            time.sleep(pause)

    def stream(
        self,
        frames: Iterable[Frame],
        *,
        in_flight: int = 4,
        retry: Retry | None = None,
        on_event: Callable[[Event], None] = lambda event: None,
    ) -> Iterator[Answer]:
        """Sends frames as they come and gives every one its answer, in the order of the frames.

        `frames` is read by a thread of its own, at most `in_flight` frames ahead of the answers, so that it may wait for a
        camera. A refused frame is an answer and does not end the stream. When the connection breaks, frames without an answer
        are sent again under the same ids. Raises `GaveUp` when the service stays away longer than `retry.reconnect_for_s`
        or will never accept this line PC; what `frames` raises; and `ValueError` for a frame id that is under way already.
        `on_event` hears of frames sent again and of lost connections.
        """
        if not 1 <= in_flight <= IN_FLIGHT_MAX:
            raise ValueError(f"in_flight is {in_flight}; it can be 1 to {IN_FLIGHT_MAX}")
        return Line(self._inspection, frames, in_flight, retry or self.retry, on_event).answers()

    def health(self, name: str = "", *, timeout_s: float = 5.0) -> Health:
        """Whether the service inspects. `name`: empty for all of it, `lineproof.v1.InspectionService`, or
        `recipe/NAME@VERSION` for one recipe."""
        try:
            answer = self._check_health(health_pb2.HealthCheckRequest(service=name), timeout=timeout_s)
        except grpc.RpcError as error:
            refused = errors.of_call(error)
            if refused.code is grpc.StatusCode.NOT_FOUND:
                return Health.UNKNOWN
            if is_silence(refused):
                return Health.AWAY
            raise refused from None
        return Health.SERVING if answer.status == health_pb2.HealthCheckResponse.SERVING else Health.NOT_SERVING
