//! The words of the line PC: who it is, what it sends, what it hears.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use tonic::Code;

use crate::types::{CameraId, FrameId, LineId, PixelFormat, ProductId, RecipeRef, StationId, Verdict};

/// Most frames one stream may have under way; the service has its own limit.
pub const IN_FLIGHT_MAX: usize = 1_024;

/// What keeps a line PC from starting.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    #[error("{0:?} is no server address; write it like http://127.0.0.1:7443 or https://host:7443")]
    Address(String),
    #[error("{0} is not on this machine, and http is plain text; use https:// with --ca (and --cert, --key)")]
    PlainText(String),
    #[error("https needs the authority to trust: give its PEM file with --ca")]
    NoAuthority,
    #[error("the TLS files do not fit together: {0}")]
    Tls(tonic::transport::Error),
    #[error("cannot read {path}: {source}", path = path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("between 1 and {IN_FLIGHT_MAX} frames may be in flight, not {0}")]
    InFlight(usize),
    #[error("the rate is a number of parts per second above zero, not {0}")]
    Rate(f64),
}

/// PEM texts for TLS.
#[derive(Clone, Debug)]
pub struct TlsPem {
    pub authority: Vec<u8>,
    /// Certificate and key this line PC shows, where the service asks for them.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl TlsPem {
    /// # Errors
    /// [`LineError::File`] for a file that cannot be read.
    pub fn read(authority: &Path, identity: Option<(&Path, &Path)>) -> Result<Self, LineError> {
        let read =
            |path: &Path| std::fs::read(path).map_err(|source| LineError::File { path: path.to_path_buf(), source });
        Ok(Self {
            authority: read(authority)?,
            identity: identity.map(|(cert, key)| Ok((read(cert)?, read(key)?))).transpose()?,
        })
    }
}

/// Who this line PC is and how it behaves.
#[derive(Clone, Debug)]
pub struct LineConfig {
    pub server: String,
    pub tls: Option<TlsPem>,
    pub line: LineId,
    pub station: StationId,
    pub camera: CameraId,
    pub product: ProductId,
    /// `None`: the one the service has for the product.
    pub recipe: Option<RecipeRef>,
    /// Frames sent and not yet answered.
    pub in_flight: usize,
    /// How long a verdict is of use; `None`: the service's default.
    pub useful_for: Option<Duration>,
    /// Parts per second; `None`: as fast as the service answers.
    pub rate_per_s: Option<f64>,
    /// First and longest pause between attempts; it doubles between them.
    pub backoff: (Duration, Duration),
    /// A stream on which the oldest frame has waited this long is given up for a new one.
    pub answer_within: Duration,
    /// Without any answer from the service for this long the run ends.
    pub reconnect_for: Duration,
    /// A frame refused with "try again" is tried again for this long.
    pub retry_for: Duration,
    /// After a stop, frames in flight are waited for this long.
    pub drain_for: Duration,
}

impl LineConfig {
    #[must_use]
    pub fn new(
        server: impl Into<String>,
        line: LineId,
        station: StationId,
        camera: CameraId,
        product: ProductId,
    ) -> Self {
        Self {
            server: server.into(),
            tls: None,
            line,
            station,
            camera,
            product,
            recipe: None,
            in_flight: 4,
            useful_for: None,
            rate_per_s: None,
            backoff: (Duration::from_millis(100), Duration::from_secs(5)),
            answer_within: Duration::from_secs(30),
            reconnect_for: Duration::from_secs(300),
            retry_for: Duration::from_secs(60),
            drain_for: Duration::from_secs(15),
        }
    }
}

/// How raw pixels lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawFrame {
    pub format: PixelFormat,
    pub width_px: u32,
    pub height_px: u32,
    /// 0: rows are tight.
    pub stride_bytes: u32,
}

/// One frame to be judged.
#[derive(Clone, Debug)]
pub struct OutgoingFrame {
    /// Unique for the line and camera; the same id must always mean the same bytes.
    pub frame_id: FrameId,
    pub frame_counter: u64,
    pub serial: String,
    /// Empty: none.
    pub lot: String,
    /// An encoded image, or raw pixels as `raw` says.
    pub image: Bytes,
    pub raw: Option<RawFrame>,
    /// `None`: now.
    pub captured_at: Option<SystemTime>,
    /// The truth where it is known (a simulated part). Never sent; the summary compares it with the verdict.
    pub is_bad: Option<bool>,
}

/// A part the source could not turn into a frame. It is counted as a part without a verdict.
#[derive(Clone, Debug)]
pub struct Unsent {
    pub name: String,
    pub reason: String,
}

/// A verdict with its place in the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    pub verdict: Verdict,
    pub reasons: Vec<String>,
    /// The largest score among the defect labels.
    pub score: f32,
    pub labels: Vec<LabelScore>,
    pub entry_index: u64,
    pub leaf_hash: Vec<u8>,
    pub recipe: String,
    /// The service had decided this frame before.
    pub is_duplicate: bool,
    /// Where the service's time went; `None` for a duplicate.
    pub stages: Option<StageTimes>,
}

impl Decision {
    /// The label with the largest score.
    #[must_use]
    pub fn top_label(&self) -> Option<&LabelScore> {
        self.labels.iter().max_by(|a, b| a.score.total_cmp(&b.score))
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct LabelScore {
    pub label: String,
    pub score: f32,
}

/// Microseconds in the stages of the service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StageTimes {
    pub queue_us: u64,
    pub check_us: u64,
    pub decode_us: u64,
    pub preprocess_us: u64,
    pub infer_us: u64,
    pub decide_us: u64,
    pub seal_us: u64,
    pub commit_us: u64,
    pub total_us: u64,
}

/// Why the service gave no verdict.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    pub code: Code,
    pub reason: String,
    pub message: String,
    pub retry_after: Option<Duration>,
}

pub type Outcome = Result<Decision, Refusal>;

/// The final answer to one frame.
#[derive(Debug)]
pub struct Answered<'a> {
    pub frame: &'a OutgoingFrame,
    pub outcome: &'a Outcome,
    /// From the first time the frame was sent until this answer.
    pub latency: Duration,
    /// How often it was sent.
    pub attempts: u32,
}

/// What happens on the line, in order.
#[derive(Debug)]
pub enum LineEvent<'a> {
    Answered(Answered<'a>),
    /// The source had a part that could not be sent.
    Unsent(&'a Unsent),
    /// The service asks to send this frame again later.
    Retrying {
        frame: &'a OutgoingFrame,
        refusal: &'a Refusal,
        after: Duration,
    },
    /// The stream broke; the next attempt comes after this long.
    Reconnecting {
        why: &'a str,
        after: Duration,
        pending: usize,
    },
}

/// The code as it is written in specifications.
#[must_use]
pub fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
