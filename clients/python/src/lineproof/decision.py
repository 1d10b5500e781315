"""A verdict with its place in the log, as the service answers it."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime, timezone

from .errors import UnreadableAnswer
from .v1 import inspection_pb2 as pb


class Verdict(enum.Enum):
    """OPC 40001-101 ResultEvaluationEnum, without UNDEFINED: what is not decided has no verdict."""

    OK = 1
    NOT_OK = 2
    NOT_DECIDABLE = 3
    """Goes to human review."""

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Box:
    """In pixels of the frame."""

    x_px: int
    y_px: int
    width_px: int
    height_px: int


@dataclass(frozen=True)
class DetectedBox:
    box: Box
    score: float


@dataclass(frozen=True)
class LabelScore:
    """What the model says of one label, and the thresholds it was held against."""

    label: str
    score: float
    review_threshold: float | None
    """`None` for a label that is no defect; so `reject_threshold`."""
    reject_threshold: float | None
    area_px: int | None
    """Pixels above the recipe's pixel threshold; `None` without a map."""
    box: Box | None
    """Where the label was found."""
    boxes: tuple[DetectedBox, ...]
    """Detection only: the boxes that were kept, highest score first. Empty in a duplicate's answer."""


@dataclass(frozen=True)
class Timings:
    """Where the service's time went, in microseconds."""

    queue_us: int
    check_us: int
    decode_us: int
    preprocess_us: int
    infer_us: int
    decide_us: int
    seal_us: int
    commit_us: int
    """From handing the entry to the log until it was durable."""
    total_us: int


@dataclass(frozen=True)
class Decision:
    """A verdict. Its entry was durable in the log before this answer left the service."""

    frame_id: str
    verdict: Verdict
    reasons: tuple[str, ...]
    """Codes such as `reject:scratch`; empty for a plain OK."""
    score: float
    """The largest score among the defect labels."""
    labels: tuple[LabelScore, ...]
    """In the recipe's order."""
    entry_index: int
    """Where the decision stands in the log."""
    leaf_hash: bytes
    """RFC 6962 leaf hash of the entry, 32 bytes of SHA-256."""
    recipe: str
    recipe_digest: str
    is_duplicate: bool
    """The service had decided this frame before; this is the recorded decision again."""
    decided_at: datetime
    timings: Timings | None
    """`None` in a duplicate's answer."""

    @property
    def top_label(self) -> LabelScore | None:
        """The label with the largest score."""
        return max(self.labels, key=lambda label: label.score, default=None)


def of_response(response: pb.InspectResponse) -> Decision:
    """Raises `UnreadableAnswer` for a verdict this package does not know: that is no verdict, and never OK."""
    try:
        verdict = Verdict(response.verdict)
    except ValueError:
        message = f"the answer holds a verdict this package does not know: {response.verdict}"
        raise UnreadableAnswer(message, response.frame_id) from None
    return Decision(
        frame_id=response.frame_id,
        verdict=verdict,
        reasons=tuple(response.reasons),
        score=response.score,
        labels=tuple(_label(label) for label in response.labels),
        entry_index=response.entry_index,
        leaf_hash=response.leaf_hash,
        recipe=response.recipe,
        recipe_digest=response.recipe_digest,
        is_duplicate=response.duplicate,
        decided_at=response.decided_at.ToDatetime(tzinfo=timezone.utc),
        timings=_timings(response.timings) if response.HasField("timings") else None,
    )


def _label(label: pb.LabelScore) -> LabelScore:
    return LabelScore(
        label=label.label,
        score=label.score,
        review_threshold=label.review_threshold if label.HasField("review_threshold") else None,
        reject_threshold=label.reject_threshold if label.HasField("reject_threshold") else None,
        area_px=label.area_px if label.HasField("area_px") else None,
        box=_box(label.box) if label.HasField("box") else None,
        boxes=tuple(DetectedBox(_box(found.box), found.score) for found in label.boxes),
    )


def _box(box: pb.Box) -> Box:
    return Box(box.x_px, box.y_px, box.width_px, box.height_px)


def _timings(timings: pb.Timings) -> Timings:
    return Timings(
        queue_us=timings.queue_us,
        check_us=timings.check_us,
        decode_us=timings.decode_us,
        preprocess_us=timings.preprocess_us,
        infer_us=timings.infer_us,
        decide_us=timings.decide_us,
        seal_us=timings.seal_us,
        commit_us=timings.commit_us,
        total_us=timings.total_us,
    )
