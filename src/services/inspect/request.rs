//! What comes in and what goes out: frames, answers, refusals.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::gaps::Source;
use crate::{
    core::{
        decide::DefectArea,
        frame::RawLayout,
        lineage::entry::{Decision, GapReason},
    },
    ports::lineage::{AppendError, Receipt},
    types::{self, Blake3Digest, FrameId, FrameKey, LotId, ProductId, RecipeRef, Serial},
};

/// One frame as a line PC hands it over, names checked, pixels not looked at yet.
#[derive(Clone, Debug)]
pub struct FrameRequest {
    pub source: Source,
    pub frame: FrameId,
    pub counter: u64,
    pub trigger: Option<u64>,
    pub captured: Option<types::Instant>,
    pub product: ProductId,
    pub serial: Serial,
    pub lot: Option<LotId>,
    /// Unset: the product's.
    pub recipe: Option<RecipeRef>,
    /// The client's digest of `image`; clients of other protocols send none, and their bytes are taken as they came.
    pub claimed: Option<Blake3Digest>,
    pub image: Bytes,
    /// Set for raw pixels.
    pub raw: Option<RawLayout>,
    /// Who sent it, as authenticated.
    pub client: Option<String>,
    /// When it was received.
    pub received: Instant,
    /// How long an answer is of use, from receipt.
    pub useful_for: Duration,
}

impl FrameRequest {
    #[must_use]
    pub fn key(&self) -> FrameKey {
        FrameKey { line: self.source.line.clone(), camera: self.source.camera.clone(), frame: self.frame.clone() }
    }

    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.received + self.useful_for
    }
}

/// A verdict with the durable entry behind it.
#[derive(Clone, Debug)]
pub struct Answer {
    pub decision: Box<Decision>,
    pub receipt: Receipt,
    /// In the order of the decision's labels; empty for a duplicate.
    pub areas: Vec<DefectArea>,
    /// Unset when the recorded decision was found instead of made.
    pub timings: Option<Timings>,
}

/// Where the time of one frame went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    pub queue: Duration,
    pub check: Duration,
    pub decode: Duration,
    pub preprocess: Duration,
    pub infer: Duration,
    pub decide: Duration,
    pub seal: Duration,
    pub commit: Duration,
    pub total: Duration,
}

/// Why there is no verdict. The part has not been judged.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Refusal {
    #[error("station {station} of line {line} with camera {camera} is not configured here; add it under [[station]] in lineproof.toml", line = .0.line, station = .0.station, camera = .0.camera)]
    UnknownSource(Source),
    #[error(
        "the bytes have digest {found}, the request says {claimed}; the frame was damaged on its way, send it again"
    )]
    DigestMismatch { claimed: Blake3Digest, found: Blake3Digest },
    #[error("{0}")]
    BadFrame(String),
    #[error("{0}")]
    NoRecipe(String),
    #[error("recipe {recipe} cannot serve: {reason}")]
    RecipeUnavailable { recipe: RecipeRef, reason: String },
    #[error("{waiting} frames of line {line} are waiting; try again in {} ms", .retry_after.as_millis())]
    Overload { line: types::LineId, waiting: usize, retry_after: Duration },
    #[error("the frame waited {} ms and its answer was of use for {} ms; it was not inferred", .waited.as_millis(), .useful_for.as_millis())]
    Deadline { waited: Duration, useful_for: Duration },
    #[error("frame {key} is recorded as entry {} with other bytes; the first decision stands, give this frame an id of its own", .first.index)]
    FrameIdReused { key: FrameKey, first: Receipt },
    #[error("inference failed and nothing was decided: {0}")]
    InferenceFault(String),
    #[error(transparent)]
    Log(#[from] AppendError),
    #[error("the service is shutting down; send the frame again when it is back")]
    ShuttingDown,
    #[error("{0}")]
    Internal(String),
}

impl Refusal {
    /// The stable word for machines.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::UnknownSource(_) => "unknown_station",
            Self::DigestMismatch { .. } => "digest_mismatch",
            Self::BadFrame(_) => "bad_frame",
            Self::NoRecipe(_) => "no_recipe",
            Self::RecipeUnavailable { .. } => "recipe_unavailable",
            Self::Overload { .. } => "overload",
            Self::Deadline { .. } => "deadline",
            Self::FrameIdReused { .. } => "frame_id_reused",
            Self::InferenceFault(_) => "inference_fault",
            Self::Log(AppendError::DiskReserve { .. }) => "disk_reserve",
            Self::Log(AppendError::ReadOnly(_)) => "log_read_only",
            Self::Log(AppendError::Stopped(_)) => "log_stopped",
            Self::Log(AppendError::FrameUnknown(_)) => "index_rebuilding",
            Self::Log(AppendError::Closed) | Self::ShuttingDown => "shutting_down",
            Self::Log(AppendError::Invalid(_)) | Self::Internal(_) => "internal",
        }
    }

    /// When the same frame is worth sending again.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Overload { retry_after, .. } => Some(*retry_after),
            Self::Log(AppendError::DiskReserve { .. }) => Some(Duration::from_secs(5)),
            Self::ShuttingDown | Self::Log(AppendError::Closed | AppendError::FrameUnknown(_)) => {
                Some(Duration::from_secs(1))
            }
            _ => None,
        }
    }

    /// The gap this refusal leaves in the log, if it leaves one. Sources that are not ours leave none, and a log that
    /// does not take decisions takes no gaps either.
    #[must_use]
    pub fn gap(&self) -> Option<GapReason> {
        match self {
            Self::DigestMismatch { .. } => Some(GapReason::DigestMismatch),
            Self::BadFrame(_) => Some(GapReason::BadFrame),
            Self::NoRecipe(_) | Self::RecipeUnavailable { .. } => Some(GapReason::NoRecipe),
            Self::Overload { .. } => Some(GapReason::Overload),
            Self::Deadline { .. } => Some(GapReason::Deadline),
            Self::InferenceFault(_) => Some(GapReason::InferenceFault),
            Self::UnknownSource(_)
            | Self::FrameIdReused { .. }
            | Self::Log(_)
            | Self::ShuttingDown
            | Self::Internal(_) => None,
        }
    }
}

/// What becomes of a frame.
pub type Outcome = Result<Answer, Refusal>;
