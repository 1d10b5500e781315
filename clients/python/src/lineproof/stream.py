"""A stream of frames over which every frame gets its answer, over restarts of the service too.

A frame is *pending* from the moment it is taken from the source until its answer is handed on. At most `in_flight` frames are
pending, so memory is bounded and the source feels the service's pace. When the stream breaks, whatever is pending without an
answer is sent again under the same id on a new one; the service answers a frame it knows with the entry it has. So nothing
is lost (pending frames stay) and nothing is doubled (ids stay).

One thread, the caller's, decides everything. A thread reads the source and one reads the answers; both only put what they
got into `Line._inbox`.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone

import grpc

from . import decision, errors
from .decision import Decision
from .errors import GaveUp, Refused, UnreadableAnswer
from .frame import Frame, to_request
from .retry import Retry
from .v1 import inspection_pb2 as pb
from .v1 import inspection_pb2_grpc

IN_FLIGHT_MAX = 1024
"""Most frames of one stream that may be pending, each with its image in memory."""

# How long the service may take to end a stream we have finished.
_CLOSE_WITHIN_S = 1.0

# Ends of a stream after which no other will work.
_HOPELESS = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNIMPLEMENTED}

# Ends of a stream that name the fault of one of its frames, such as one too long to be received.
_POISONED = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.DATA_LOSS,
}


@dataclass(frozen=True)
class Answer:
    """The final answer to one frame."""

    frame: Frame
    outcome: Decision | Refused
    latency_s: float
    """From the first time the frame was sent until this answer came."""
    attempts: int
    """How often it was sent."""


@dataclass(frozen=True)
class Retrying:
    """The service refused a frame that it may take later; it is sent again."""

    frame: Frame
    refused: Refused
    after_s: float


@dataclass(frozen=True)
class Reconnecting:
    """The stream broke; the next attempt comes after this long."""

    why: str
    after_s: float
    pending: int


Event = Retrying | Reconnecting


class _Pending:
    """A frame whose answer is not handed on yet."""

    def __init__(self, frame: Frame, request: pb.InspectRequest) -> None:
        self.frame = frame
        self.request = request
        self.answer: Answer | None = None
        self.first_sent: float | None = None
        self.sent: float | None = None
        """When it went out on the present stream; `None`: it still has to."""
        self.not_before = 0.0
        self.first_refused: float | None = None
        self.attempts = 0

    @property
    def waits(self) -> bool:
        return self.sent is not None and self.answer is None


@dataclass(frozen=True)
class _SourceEnded:
    error: BaseException | None


@dataclass(frozen=True)
class _Said:
    """What came on a stream; `None`: it ended."""

    call: object
    what: pb.InspectStreamResponse | grpc.RpcError | None


class _Call:
    """One stream, from opening to its end."""

    def __init__(self, stub: inspection_pb2_grpc.InspectionServiceStub, inbox: queue.SimpleQueue[_Message]) -> None:
        self._outbox: queue.SimpleQueue[pb.InspectRequest | None] = queue.SimpleQueue()
        self._call = stub.InspectStream(iter(self._outbox.get, None))
        self._inbox = inbox
        self._reader = threading.Thread(target=self._read, name="lineproof-answers", daemon=True)
        self._reader.start()

    def send(self, request: pb.InspectRequest) -> None:
        self._outbox.put(request)

    def _read(self) -> None:
        try:
            for response in self._call:
                self._inbox.put(_Said(self, response))
            self._inbox.put(_Said(self, None))
        except grpc.RpcError as error:
            self._inbox.put(_Said(self, error))

    def finish(self) -> None:
        """Every answer is here; the service only has to notice that we are done."""
        self._outbox.put(None)
        self._reader.join(_CLOSE_WITHIN_S)
        self._call.cancel()

    def cancel(self) -> None:
        self._outbox.put(None)
        self._call.cancel()


_Message = _Pending | _SourceEnded | _Said


class Line:
    """One run: the source, what is pending, and the present stream."""

    def __init__(
        self,
        stub: inspection_pb2_grpc.InspectionServiceStub,
        frames: Iterable[Frame],
        in_flight: int,
        retry: Retry,
        on_event: Callable[[Event], None],
    ) -> None:
        self._stub = stub
        self._frames = frames
        self._in_flight = in_flight
        self._retry = retry
        self._on_event = on_event
        self._inbox: queue.SimpleQueue[_Message] = queue.SimpleQueue()
        self._room = threading.Semaphore(in_flight)
        self._is_closed = False
        # By frame id, in the order they were taken.
        self._pending: dict[str, _Pending] = {}
        self._source_ended: _SourceEnded | None = None
        self._call: _Call | None = None
        self._open_at = 0.0
        self._heard = time.monotonic()
        self._failures = 0
        # So many frames are to be sent alone, to learn which of them the service cannot take.
        self._alone = 0
        self._gave_up: str | None = None

    def answers(self) -> Iterator[Answer]:
        """Works until all is answered or it makes no sense to go on."""
        threading.Thread(target=self._take_frames, name="lineproof-frames", daemon=True).start()
        try:
            while True:
                yield from self._answered_in_order()
                if self._gave_up is not None:
                    yield from (pending.answer for pending in self._pending.values() if pending.answer is not None)
                    unanswered = tuple(pending.frame for pending in self._pending.values() if pending.answer is None)
                    raise GaveUp(self._gave_up, unanswered)
                if self._source_ended is not None and not self._pending:
                    break
                self._send_ready()
                self._hear()
                self._give_up_silent_stream()
            if self._call is not None:
                self._call.finish()
                self._call = None
            if self._source_ended.error is not None:
                raise self._source_ended.error
        finally:
            self._is_closed = True
            self._room.release()
            if self._call is not None:
                self._call.cancel()

    def _take_frames(self) -> None:
        """The source's thread: takes a frame when there is room for it."""
        try:
            frames = iter(self._frames)
            while True:
                self._room.acquire()
                if self._is_closed:
                    return
                frame = next(frames, None)
                if frame is None:
                    break
                self._inbox.put(_Pending(frame, to_request(frame, datetime.now(timezone.utc))))
        except BaseException as error:  # noqa: BLE001 - handed to the caller, whose source it is
            self._inbox.put(_SourceEnded(error))
        else:
            self._inbox.put(_SourceEnded(None))

    def _answered_in_order(self) -> Iterator[Answer]:
        while self._pending:
            first = next(iter(self._pending))
            answer = self._pending[first].answer
            if answer is None:
                return
            del self._pending[first]
            self._room.release()
            yield answer

    def _send_ready(self) -> None:
        """Sends what may go out now, on a stream that is opened when there is something to say."""
        now = time.monotonic()
        window = 1 if self._alone else self._in_flight
        under_way = sum(pending.waits for pending in self._pending.values())
        for pending in self._pending.values():
            if under_way >= window:
                return
            if pending.answer is not None or pending.sent is not None or pending.not_before > now:
                continue
            if self._call is None:
                if self._open_at > now:
                    return
                self._call = _Call(self._stub, self._inbox)
            self._call.send(pending.request)
            pending.first_sent = now if pending.first_sent is None else pending.first_sent
            pending.sent = now
            pending.attempts += 1
            under_way += 1

    def _hear(self) -> None:
        """Waits for the next thing that happens, or until something has to be done."""
        wait = None if (at := self._act_at()) is None else max(0.0, at - time.monotonic())
        try:
            message = self._inbox.get(timeout=wait)
        except queue.Empty:
            return
        if isinstance(message, _Pending):
            self._take(message)
        elif isinstance(message, _SourceEnded):
            self._source_ended = message
        elif message.call is self._call:
            if isinstance(message.what, pb.InspectStreamResponse):
                self._answered(message.what)
            else:
                self._stream_ended(message.what)

    def _act_at(self) -> float | None:
        """When a frame may go out, or the stream has been silent for too long."""
        times = []
        for pending in self._pending.values():
            if pending.waits and pending.sent is not None:
                times.append(pending.sent + self._retry.answer_within_s)
            elif pending.answer is None and (not self._alone or not any(it.waits for it in self._pending.values())):
                times.append(pending.not_before if self._call else max(pending.not_before, self._open_at))
        return min(times, default=None)

    def _take(self, pending: _Pending) -> None:
        if not self._pending:
            # The service owed us nothing until now; its silence counts from here.
            self._heard = time.monotonic()
        if self._pending.setdefault(pending.frame.frame_id, pending) is not pending:
            raise ValueError(f"the frame id {pending.frame.frame_id} is under way for another frame")
        if self._alone:
            self._alone += 1

    def _answered(self, response: pb.InspectStreamResponse) -> None:
        self._heard = time.monotonic()
        self._failures = 0
        pending = self._pending.get(response.frame_id)
        if pending is None or not pending.waits:
            # An answer to a frame that has one.
            return
        outcome = _outcome(response)
        if isinstance(outcome, Refused):
            since = self._heard if pending.first_refused is None else pending.first_refused
            after = self._retry.after_refusal_s(outcome, pending.attempts, self._heard - since)
            if after is not None:
                pending.sent, pending.not_before, pending.first_refused = None, self._heard + after, since
                self._on_event(Retrying(pending.frame, outcome, after))
                return
        self._settle(pending, outcome)

    def _settle(self, pending: _Pending, outcome: Decision | Refused) -> None:
        latency_s = time.monotonic() - (pending.first_sent or 0.0)
        pending.answer = Answer(pending.frame, outcome, latency_s, pending.attempts)
        self._alone = max(0, self._alone - 1)

    def _stream_ended(self, error: grpc.RpcError | None) -> None:
        sent = [pending for pending in self._pending.values() if pending.waits]
        if error is None:
            self._break("the service ended the stream")
            return
        refused = errors.of_call(error)
        if refused.code in _HOPELESS:
            self._gave_up = f"the service refuses this line PC: {refused}"
        elif refused.code in _POISONED:
            # Alone it is clear which frame is meant.
            if len(sent) == 1:
                refused.frame_id, refused.reason = sent[0].frame.frame_id, refused.reason or "stream_refused"
                self._heard = time.monotonic()
                self._settle(sent[0], refused)
            else:
                self._alone = sum(pending.answer is None for pending in self._pending.values())
            self._drop_call()
        else:
            self._break(str(refused), refused.retry_after_s)

    def _give_up_silent_stream(self) -> None:
        oldest = min((pending.sent for pending in self._pending.values() if pending.waits and pending.sent is not None), default=None)
        if oldest is not None and time.monotonic() - oldest >= self._retry.answer_within_s:
            self._break(f"no answer for {self._retry.answer_within_s:g} s")

    def _break(self, why: str, hint_s: float | None = None) -> None:
        """The stream is gone; another one is worth a try, after a pause."""
        self._drop_call()
        waiting = sum(pending.answer is None for pending in self._pending.values())
        if not waiting:
            return
        if time.monotonic() - self._heard >= self._retry.reconnect_for_s:
            self._gave_up = f"no answer for {self._retry.reconnect_for_s:g} s: {why}"
            return
        after = self._retry.pause_s(self._failures) if hint_s is None else min(hint_s, self._retry.reconnect_for_s)
        self._failures += 1
        self._open_at = time.monotonic() + after
        self._on_event(Reconnecting(why, after, waiting))

    def _drop_call(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None
        for pending in self._pending.values():
            if pending.waits:
                pending.sent = None


def _outcome(response: pb.InspectStreamResponse) -> Decision | Refused:
    if response.HasField("decided"):
        try:
            return decision.of_response(response.decided)
        except UnreadableAnswer as error:
            return error
    if response.HasField("refused"):
        return errors.of_refusal(response.refused, response.frame_id)
    return UnreadableAnswer("the answer holds neither a verdict nor a refusal", response.frame_id)
