//! Entries: the UTF-8 JSON that the log keeps, with sorted keys and no floats. The stored bytes are authoritative and
//! never re-encoded. The format is `docs/spec/entry.md`.

mod retention;
#[cfg(test)]
pub(crate) mod tests;

use serde::{Deserialize, Serialize};

pub use self::retention::{Destroyed, Retention, RetentionEvent};
use super::{period::PeriodClose, private::PrivateField};
use crate::types::{
    Blake3Digest, Bounds, CameraId, EntryIndex, FrameId, FrameKey, Instant, LineId, ProductId, RecipeRef, Score,
    Sha256Digest, StationId, Verdict,
};

/// Longest entry in bytes. A decision with sixteen labels takes about 3 KiB.
pub const ENTRY_BYTES_MAX: usize = 8 * 1024;
/// Largest counter, because integers above 2^53 - 1 change their value in JavaScript and other JSON readers.
pub const COUNTER_MAX: u64 = (1 << 53) - 1;
/// The version that entries of this release carry in `v`. Version 1 repeats thresholds for every label.
pub const ENTRY_VERSION: u32 = 2;
/// The version of a decision that says where labels were found, and of nothing else; the newest this release reads.
pub const PLACED_VERSION: u32 = 3;

/// One entry of the log, by its `kind`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    Decision(Box<Decision>),
    Gap(Gap),
    Recipe(RecipeEvent),
    Access(Access),
    Key(KeyEvent),
    Start(Start),
    PeriodClose(Box<PeriodClose>),
    Retention(Box<Retention>),
    /// A kind of a later release: kept, proven and shown by name, not interpreted.
    Unknown {
        kind: String,
        time: Option<Instant>,
    },
}

#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    #[error("an entry has at most {ENTRY_BYTES_MAX} bytes, this one has {0}")]
    TooLong(usize),
    #[error("an entry is a JSON object with `v`, `kind` and the kind's own keys: {0}")]
    Json(#[from] serde_json::Error),
    #[error("entry version {found} is newer than this release reads ({PLACED_VERSION}); use a newer lineproof")]
    Newer { found: u32 },
    #[error("an entry of version 1 has no {0}; that came with version 2")]
    Later(&'static str),
    #[error("a decision has version 3 if its labels say where they were found, and no other has")]
    Places,
}

// Every struct below lists its fields in alphabetical order, because serde writes them in that order and
// entries have sorted keys. `entries_have_sorted_keys` holds this.

/// What the service decided of one frame, and everything needed to decide it again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// Digest of the calibration file, if the recipe names one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub calibration: Option<Blake3Digest>,
    pub camera: CameraId,
    /// When the line PC says the frame was captured.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub captured: Option<Instant>,
    pub clock: ClockState,
    pub frame: FrameRecord,
    pub image: ImageRecord,
    pub kind: DecisionKind,
    pub line: LineId,
    pub model: ModelRecord,
    /// Commitments to private values.
    pub private: Commitments,
    pub product: ProductId,
    pub quality: QualityRecord,
    /// Why the verdict is what it is, in codes of `docs/spec/entry.md`; empty for a plain OK.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub reasons: Vec<String>,
    pub recipe: RecipeRecord,
    pub runtime: RuntimeRecord,
    pub scores: ScoresRecord,
    /// Version and build of the software.
    pub software: String,
    pub station: StationId,
    /// When the verdict was decided, by the server's clock.
    pub time: Instant,
    pub v: u32,
    pub verdict: Verdict,
}

/// The constant `kind` of an entry: writes its own name and reads nothing else.
macro_rules! kind {
    ($name:ident, $text:literal) => {
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub enum $name {
            #[default]
            #[serde(rename = $text)]
            Kind,
        }
    };
}

kind!(DecisionKind, "decision");
kind!(GapKind, "gap");
kind!(RecipeKind, "recipe");
kind!(AccessKind, "access");
kind!(KeyKind, "key");
kind!(StartKind, "start");
kind!(PeriodCloseKind, "period_close");
kind!(RetentionKind, "retention");

/// What is known of the server's clock when it stamped an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClockState {
    /// The kernel says a time service disciplines the clock.
    Synchronised,
    /// Nothing disciplines the clock, or nobody can say.
    Free,
    /// The clock went backwards against an earlier entry.
    Stepped,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FrameRecord {
    /// The camera's frame counter, at most [`COUNTER_MAX`].
    pub counter: u64,
    pub id: FrameId,
    /// The trigger or PLC part counter, if the line has one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub trigger: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageRecord {
    /// The retention class the sealed image is filed under, or why there is none: `none:<reason>`.
    pub archive: String,
    /// Length of the encoded bytes.
    pub bytes: u64,
    /// BLAKE3 of the bytes as they came.
    pub encoded: Blake3Digest,
    /// How they came: `png`, `jpeg`, `tiff`, `bmp` or a PFNC name.
    pub format: String,
    pub height: u32,
    /// PFNC code of the decoded pixels, `0x01080001`.
    pub pfnc: String,
    /// BLAKE3 of the canonical pixels, `docs/spec/pixels.md`.
    pub pixels: Blake3Digest,
    pub width: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelRecord {
    pub digest: Blake3Digest,
    pub version: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Commitments {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub client: Option<Sha256Digest>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lot: Option<Sha256Digest>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub serial: Option<Sha256Digest>,
}

impl Commitments {
    #[must_use]
    pub fn get(&self, field: PrivateField) -> Option<Sha256Digest> {
        match field {
            PrivateField::Client => self.client,
            PrivateField::Lot => self.lot,
            PrivateField::Serial => self.serial,
        }
    }
}

/// Measured image quality, `docs/spec/recipe.md`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QualityRecord {
    pub focus: Score,
    pub mean: Score,
    pub saturated: Score,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecipeRecord {
    pub digest: Blake3Digest,
    pub name: RecipeRef,
}

/// What ran the model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuntimeRecord {
    /// Frames in the batch this one was inferred with.
    pub batch: u32,
    /// CPU features that choose kernels: the x86-64 level and what goes beyond it, such as `x86-64-v4,avx512vnni`.
    pub cpu: String,
    /// Graph optimisation level.
    pub optimisation: String,
    /// The execution provider that really ran: `cpu`, `cuda`, …
    pub provider: String,
    /// Threads one session uses within an operator.
    pub threads: u32,
    /// ONNX Runtime's version.
    pub version: String,
}

/// Scores and thresholds. In the entry's bytes, thresholds that several labels share stand once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "ScoresWire", into = "ScoresWire")]
pub struct ScoresRecord {
    /// `>=` or `>`.
    pub comparator: String,
    /// The decision score: the largest among the defect labels.
    pub decision: Score,
    pub labels: Vec<LabelRecord>,
}

/// The score of one label and the thresholds it was held against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelRecord {
    /// The box or the tile that gave the score.
    pub at: Option<Bounds>,
    /// Boxes that a detection model found and the recipe kept.
    pub boxes: Option<u32>,
    pub label: String,
    /// Absent for a label that is no defect.
    pub reject: Option<Score>,
    pub review: Option<Score>,
    pub score: Score,
}

impl LabelRecord {
    fn thresholds(&self) -> Option<(Score, Score)> {
        self.reject.zip(self.review)
    }
}

/// [`ScoresRecord`] as bytes.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScoresWire {
    comparator: String,
    decision: Score,
    labels: Vec<LabelWire>,
    /// What holds for every label that names neither thresholds nor `"defect":false`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    reject: Option<Score>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    review: Option<Score>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LabelWire {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    at: Option<Bounds>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    boxes: Option<u32>,
    /// `false`, or left out.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    defect: Option<False>,
    label: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    reject: Option<Score>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    review: Option<Score>,
    score: Score,
}

/// The constant `false`.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(try_from = "bool", into = "bool")]
struct False;

impl TryFrom<bool> for False {
    type Error = &'static str;

    fn try_from(value: bool) -> Result<Self, Self::Error> {
        if value { Err("`defect` is false or left out") } else { Ok(Self) }
    }
}

impl From<False> for bool {
    fn from(False: False) -> Self {
        false
    }
}

impl TryFrom<ScoresWire> for ScoresRecord {
    type Error = &'static str;

    /// What could be written in two ways is refused in the one we never write.
    fn try_from(wire: ScoresWire) -> Result<Self, Self::Error> {
        let ScoresWire { comparator, decision, labels, reject, review } = wire;
        if reject.is_some() != review.is_some() {
            return Err("shared thresholds are two, `reject` and `review`");
        }
        let label = |label: LabelWire| {
            let has_own = label.reject.is_some() || label.review.is_some();
            if label.defect.is_some() && (has_own || reject.is_none()) {
                return Err("`defect` marks a label without thresholds of its own, where others share some");
            }
            let is_sharing = !has_own && label.defect.is_none();
            let (reject, review) = if is_sharing { (reject, review) } else { (label.reject, label.review) };
            let LabelWire { at, boxes, label, score, .. } = label;
            Ok(LabelRecord { at, boxes, label, reject, review, score })
        };
        Ok(Self { comparator, decision, labels: labels.into_iter().map(label).collect::<Result<_, _>>()? })
    }
}

impl From<ScoresRecord> for ScoresWire {
    fn from(record: ScoresRecord) -> Self {
        // The pair that most labels have, the first of those that tie; one label alone shares with nobody.
        let sharing = |pair| record.labels.iter().filter(|label| label.thresholds() == Some(pair)).count();
        let pairs = record.labels.iter().filter_map(LabelRecord::thresholds);
        let shared = pairs.rev().max_by_key(|pair| sharing(*pair)).filter(|pair| sharing(*pair) > 1);
        let label = |label: &LabelRecord| {
            let is_shared = shared.is_some() && label.thresholds() == shared;
            let is_good = shared.is_some() && label.reject.is_none() && label.review.is_none();
            let own = |score: Option<Score>| score.filter(|_| !is_shared);
            LabelWire {
                at: label.at,
                boxes: label.boxes,
                defect: is_good.then_some(False),
                label: label.label.clone(),
                reject: own(label.reject),
                review: own(label.review),
                score: label.score,
            }
        };
        Self {
            labels: record.labels.iter().map(label).collect(),
            reject: shared.map(|(reject, _)| reject),
            review: shared.map(|(_, review)| review),
            comparator: record.comparator,
            decision: record.decision,
        }
    }
}

/// Frames for which there is no decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gap {
    pub camera: CameraId,
    pub clock: ClockState,
    /// How many frames were lost; at least the counters of `first..=last`, more if refusals repeat.
    pub count: u64,
    /// First missing frame counter, if known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub first: Option<u64>,
    /// Id of the frame, when the gap is one identified frame.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub frame: Option<FrameId>,
    pub kind: GapKind,
    /// Last missing frame counter, if known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last: Option<u64>,
    pub line: LineId,
    pub reason: GapReason,
    pub station: StationId,
    pub time: Instant,
    pub v: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GapReason {
    /// The camera's counter jumped.
    CounterJump,
    /// The frame was refused before inference: overload.
    Overload,
    /// The frame's deadline passed before inference.
    Deadline,
    /// The bytes did not match the client's digest.
    DigestMismatch,
    /// The bytes were no frame the recipe accepts.
    BadFrame,
    /// Inference failed.
    InferenceFault,
    /// No recipe could serve the frame.
    NoRecipe,
}

/// A recipe came into use, or went out of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecipeEvent {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub calibration: Option<Blake3Digest>,
    pub clock: ClockState,
    pub event: RecipeEventKind,
    pub kind: RecipeKind,
    pub model: Blake3Digest,
    pub recipe: RecipeRecord,
    pub time: Instant,
    pub v: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecipeEventKind {
    Registered,
    Approved,
    Activated,
    Retired,
}

/// Someone read or exported, or tried what is not allowed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Access {
    pub clock: ClockState,
    /// Number of entries concerned.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub count: Option<u64>,
    pub event: AccessEvent,
    /// The entry concerned, when it is one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub index: Option<EntryIndex>,
    pub kind: AccessKind,
    /// The method that was called, `lineproof.v1.HistoryService/ListDecisions`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub method: Option<String>,
    /// A digest that identifies what was given away or offered: an export's, a second image's, a configuration's.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub object: Option<String>,
    /// Commitment to who asked.
    pub private: Commitments,
    /// Why a call was refused, or with which right it was not: a word of `docs/spec/entry.md`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    pub time: Instant,
    pub v: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccessEvent {
    Passport,
    Export,
    /// A known frame id came with other bytes; the first decision stands.
    FrameIdReused,
    /// Somebody asked a question that was answered.
    Read,
    /// Somebody had something done that is no question.
    Changed,
    /// Somebody known asked for what they may not.
    Refused,
    /// Somebody could not show who they are.
    LoginFailed,
    /// The service runs with another configuration than before, or for the first time.
    Configured,
}

/// A key came into use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyEvent {
    pub clock: ClockState,
    pub kind: KeyKind,
    /// What the key does: `log` signs checkpoints.
    pub purpose: String,
    pub time: Instant,
    pub v: u32,
    /// The verifier key as a C2SP vkey line.
    pub vkey: String,
}

/// The service started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    pub clock: ClockState,
    pub kind: StartKind,
    /// Entries that recovery found in the write-ahead log beyond the last checkpoint.
    pub recovered: u64,
    pub software: String,
    pub time: Instant,
    /// Bytes of an unacknowledged, torn tail that recovery cut off.
    pub torn_bytes: u64,
    pub v: u32,
}

impl Access {
    /// An entry that says nothing yet but what happened and when.
    #[must_use]
    pub fn new(event: AccessEvent, (time, clock): (Instant, ClockState)) -> Self {
        let (kind, private, v) = (AccessKind::Kind, Commitments::default(), ENTRY_VERSION);
        let (method, object, reason) = (None, None, None);
        Self { clock, count: None, event, index: None, kind, method, object, private, reason, time, v }
    }
}

/// Reads `kind` and `v` first, so that a later release's entries stay readable by name.
#[derive(Deserialize)]
struct Head {
    v: u32,
    kind: String,
    time: Option<Instant>,
}

impl Entry {
    /// The bytes the log keeps.
    ///
    /// # Errors
    /// [`EntryError::TooLong`] above [`ENTRY_BYTES_MAX`].
    pub fn encode(&self) -> Result<Vec<u8>, EntryError> {
        let bytes = match self {
            Self::Decision(entry) => return entry.encode(),
            Self::Gap(entry) => serde_json::to_vec(entry),
            Self::Recipe(entry) => serde_json::to_vec(entry),
            Self::Access(entry) => serde_json::to_vec(entry),
            Self::Key(entry) => serde_json::to_vec(entry),
            Self::Start(entry) => serde_json::to_vec(entry),
            Self::PeriodClose(entry) => serde_json::to_vec(entry),
            Self::Retention(entry) => serde_json::to_vec(entry),
            Self::Unknown { kind, .. } => unreachable!("an entry of unknown kind {kind} is only ever read"),
        }?;
        bounded(bytes)
    }

    /// Reads the bytes of one entry.
    ///
    /// # Errors
    /// [`EntryError`] when the bytes are too long, no entry, or of a newer version. A kind this release does not know
    /// is no error.
    pub fn parse(bytes: &[u8]) -> Result<Self, EntryError> {
        if bytes.len() > ENTRY_BYTES_MAX {
            return Err(EntryError::TooLong(bytes.len()));
        }
        // Nearly every entry is a decision of today's version: read once, not first for its head and then whole.
        if let Ok(decision) = serde_json::from_slice::<Decision>(bytes)
            && decision.v >= ENTRY_VERSION
            && decision.v == decision.version()
        {
            return Ok(Self::Decision(Box::new(decision)));
        }
        let head: Head = serde_json::from_slice(bytes)?;
        if head.v == 0 || head.v > PLACED_VERSION {
            return Err(EntryError::Newer { found: head.v });
        }
        Ok(match head.kind.as_str() {
            "decision" => {
                if head.v == 1 {
                    refuse_version_2(bytes)?;
                }
                let decision: Decision = serde_json::from_slice(bytes)?;
                if (head.v == PLACED_VERSION) != (decision.version() == PLACED_VERSION) {
                    return Err(EntryError::Places);
                }
                Self::Decision(Box::new(decision))
            }
            "gap" => Self::Gap(serde_json::from_slice(bytes)?),
            "recipe" => Self::Recipe(serde_json::from_slice(bytes)?),
            "access" => Self::Access(serde_json::from_slice(bytes)?),
            "key" => Self::Key(serde_json::from_slice(bytes)?),
            "start" => Self::Start(serde_json::from_slice(bytes)?),
            "period_close" => Self::PeriodClose(serde_json::from_slice(bytes)?),
            "retention" => Self::Retention(serde_json::from_slice(bytes)?),
            _ => Self::Unknown { kind: head.kind, time: head.time },
        })
    }

    /// The value of `kind`.
    #[must_use]
    pub fn kind(&self) -> &str {
        match self {
            Self::Decision(_) => "decision",
            Self::Gap(_) => "gap",
            Self::Recipe(_) => "recipe",
            Self::Access(_) => "access",
            Self::Key(_) => "key",
            Self::Start(_) => "start",
            Self::PeriodClose(_) => "period_close",
            Self::Retention(_) => "retention",
            Self::Unknown { kind, .. } => kind,
        }
    }

    /// When the entry was made, by the server's clock.
    #[must_use]
    pub fn time(&self) -> Option<Instant> {
        match self {
            Self::Decision(entry) => Some(entry.time),
            Self::Gap(entry) => Some(entry.time),
            Self::Recipe(entry) => Some(entry.time),
            Self::Access(entry) => Some(entry.time),
            Self::Key(entry) => Some(entry.time),
            Self::Start(entry) => Some(entry.time),
            Self::PeriodClose(entry) => Some(entry.time),
            Self::Retention(entry) => Some(entry.time),
            Self::Unknown { time, .. } => *time,
        }
    }

    /// The commitments an entry of this kind carries.
    #[must_use]
    pub fn commitments(&self) -> Commitments {
        match self {
            Self::Decision(entry) => entry.private.clone(),
            Self::Access(entry) => entry.private.clone(),
            Self::PeriodClose(entry) => entry.private.clone(),
            Self::Retention(entry) => entry.private.clone(),
            Self::Gap(_) | Self::Recipe(_) | Self::Key(_) | Self::Start(_) | Self::Unknown { .. } => {
                Commitments::default()
            }
        }
    }
}

/// Decisions of version 1 have the thresholds of every label beside its score, and nothing shared.
fn refuse_version_2(bytes: &[u8]) -> Result<(), EntryError> {
    #[derive(Deserialize)]
    struct Body {
        scores: ScoresWire,
    }
    let Body { scores } = serde_json::from_slice(bytes)?;
    if scores.reject.is_some() || scores.review.is_some() {
        return Err(EntryError::Later("shared thresholds"));
    }
    if scores.labels.iter().any(|label| label.defect.is_some()) {
        return Err(EntryError::Later("`defect`"));
    }
    Ok(())
}

fn bounded(bytes: Vec<u8>) -> Result<Vec<u8>, EntryError> {
    if bytes.len() > ENTRY_BYTES_MAX { Err(EntryError::TooLong(bytes.len())) } else { Ok(bytes) }
}

impl Decision {
    /// The bytes the log keeps; the same as [`Entry::encode`] gives.
    ///
    /// # Errors
    /// [`EntryError::TooLong`] above [`ENTRY_BYTES_MAX`].
    pub fn encode(&self) -> Result<Vec<u8>, EntryError> {
        bounded(serde_json::to_vec(self)?)
    }

    /// The version that what it says asks for.
    #[must_use]
    pub fn version(&self) -> u32 {
        let is_placed = self.scores.labels.iter().any(|label| label.at.is_some() || label.boxes.is_some());
        if is_placed { PLACED_VERSION } else { ENTRY_VERSION }
    }

    /// What makes the decision's frame unique for retries.
    #[must_use]
    pub fn frame_key(&self) -> FrameKey {
        FrameKey { line: self.line.clone(), camera: self.camera.clone(), frame: self.frame.id.clone() }
    }
}
