"""When a frame is sent again, always under the same id and with the same bytes: the service answers a frame it has decided
with the entry it has."""

from __future__ import annotations

import random
from dataclasses import dataclass

import grpc

from .errors import Refused

_UNKNOWN_OUTCOME = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
}

# A refusal that leaves the outcome open, without a hint when to come back, is tried again this often.
_UNKNOWN_OUTCOME_ATTEMPTS_MAX = 5


@dataclass(frozen=True)
class Retry:
    """How long and how often. The defaults are those of `lineproof camera`."""

    answer_within_s: float = 30.0
    """A call or stream that leaves a frame without an answer for this long is given up for a new one."""
    reconnect_for_s: float = 300.0
    """While the service is away, it is tried again for this long. 0: never."""
    retry_for_s: float = 60.0
    """A frame refused with "try again" is tried again for this long. 0: never."""
    pause_first_s: float = 0.1
    """The pause doubles from this to `pause_longest_s`; a random part of up to a half is left out, so that many line PCs do
    not return at once."""
    pause_longest_s: float = 5.0

    def pause_s(self, failures: int) -> float:
        """The pause after so many failures in a row before this one."""
        # 2^30 times the first pause is beyond any longest one; larger powers are no floats.
        pause = min(self.pause_first_s * 2.0 ** min(failures, 30), self.pause_longest_s)
        return pause * random.uniform(0.5, 1.0)

    def after_refusal_s(self, refused: Refused, attempts: int, refused_for_s: float) -> float | None:
        """How long to wait before a frame that the service has refused is sent again. `None`: the refusal is final.

        `attempts`: how often it was sent. `refused_for_s`: how long ago it was refused first.
        """
        if refused_for_s >= self.retry_for_s:
            return None
        if refused.retry_after_s is not None:
            return min(refused.retry_after_s, self.retry_for_s)
        if refused.code in _UNKNOWN_OUTCOME and attempts < _UNKNOWN_OUTCOME_ATTEMPTS_MAX:
            return self.pause_s(attempts - 1)
        return None


NO_RETRY = Retry(reconnect_for_s=0.0, retry_for_s=0.0)
"""Every frame is sent once; whoever gets `Unavailable` or `DeadlineExceeded` asks again under the same frame id."""


def is_silence(refused: Refused) -> bool:
    """The way to the service failed, not the frame: worth asking again for as long as the service may be away."""
    return not refused.reason and (refused.code in _UNKNOWN_OUTCOME or refused.code is grpc.StatusCode.DEADLINE_EXCEEDED)
