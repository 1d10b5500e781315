//! Checks passports, exports and whole logs with nothing but public keys, and says what was checked.
//!
//! Each check authenticates before it interprets: signatures first, then digests, then contents. The first thing that
//! is wrong ends it.

mod archive;
mod challenge;
mod entry;
mod handover;
mod log;
mod passport;
mod receipt;
mod tables;
mod unpacked;

pub use archive::verify_export;
pub use challenge::{Asked, ReplayFault, verify_challenge};
pub use handover::take_handover;
pub use log::{LogFiles, verify_log};
pub use passport::verify_passport;
pub use receipt::verify_receipt;

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    challenge::ChallengeError,
    consistency::Contradiction,
    keys::{Keys, NoteError, Signed},
    manifest::ManifestError,
    multiproof::ProofError,
};
use crate::{
    core::{
        lineage::{
            entry::EntryError,
            passport::PassportError,
            period::{Incomplete, PeriodFault, Totals},
            receipt::ReceiptError,
            tiles::TileError,
            tree,
        },
        witness::{policy::Quorum, request::AddCheckpoint},
    },
    types::{Blake3Digest, Sha256Digest},
};

/// What was checked, in order, and what was wrong, if anything.
#[derive(Debug)]
pub struct Findings {
    pub steps: Vec<Step>,
    pub problem: Option<Problem>,
}

impl Findings {
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.problem.is_none()
    }
}

/// One thing that was checked and found right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "check", rename_all = "snake_case")]
pub enum Step {
    /// The ZIP's structure.
    Container {
        files: usize,
        bytes: u64,
    },
    Checkpoint {
        origin: String,
        size: u64,
        key: String,
        witnesses: Vec<String>,
    },
    /// A receipt's signature over the root its proof leads to.
    Receipt {
        origin: String,
        size: u64,
        key: String,
    },
    /// A known witness cosigned the checkpoint.
    Cosigned {
        witness: String,
        time: String,
    },
    /// The policy that was asked for holds.
    Quorum {
        name: String,
        missing: Vec<String>,
    },
    /// The log has so many more entries, which are not covered by what witnesses cosigned and were not checked.
    NotWitnessed {
        entries: u64,
    },
    /// Signatures below the checkpoint by keys that nobody gave: nothing is known of them.
    Unchecked {
        keys: Vec<String>,
    },
    Manifest {
        software: String,
    },
    Digests {
        files: usize,
        bytes: u64,
    },
    Proof {
        entries: u64,
        size: u64,
        hashes: usize,
    },
    Entries {
        decisions: u64,
        gaps: u64,
        gap_frames: u64,
        other: u64,
    },
    Decisions {
        decisions: u64,
        ok: u64,
        not_ok: u64,
        not_decidable: u64,
    },
    Openings {
        values: u64,
        decisions: u64,
    },
    Texts {
        recipes: usize,
        calibrations: usize,
        absent: usize,
    },
    /// The thresholds in decisions are those of the recipe texts; for so many decisions the text was there.
    Thresholds {
        decisions: u64,
    },
    /// The periods that the line closed; of so many the evidence holds everything that was counted. So many decisions
    /// are in none of them.
    Periods {
        #[serde(flatten)]
        totals: Totals,
        recounted: u64,
        outside: u64,
    },
    Derived {
        files: usize,
    },
    NotDerived {
        made_by: String,
        this: &'static str,
    },
    /// The nonce picked these entries; `compared`: it is the one the reader says was given.
    Chosen {
        nonce: String,
        asked: u64,
        size: u64,
        compared: bool,
    },
    /// A later checkpoint of the same log, which covers what was done after the first one. No policy was asked of it.
    LaterCheckpoint {
        size: u64,
        key: String,
    },
    /// What came out when the picked decisions were decided again, by reason where they could not be; noted under a later
    /// checkpoint of this size. `eps` and `largest` are differences of scores.
    Replayed {
        exact: u64,
        within: u64,
        differs: u64,
        not_replayable: BTreeMap<&'static str, u64>,
        eps: String,
        largest: Option<String>,
        size: u64,
    },
    /// The log announced its next key under a key that is trusted, so that one is trusted, too.
    Handover {
        index: u64,
        origin: String,
        key: String,
    },
    /// A passport is of the entry by which the log announced this key, a vkey line.
    Announced {
        vkey: String,
    },
    /// What a passport is of.
    Part {
        index: u64,
        kind: String,
        verdict: Option<&'static str>,
        time: Option<String>,
        serial: Option<String>,
    },
    Tiles {
        tiles: u64,
        bundles: u64,
    },
    Root {
        root: Sha256Digest,
    },
}

/// What is wrong, and where.
#[derive(Debug)]
pub enum Problem {
    NotRecognised { reason: String },
    TooLarge { what: &'static str, max: u64 },
    Unreadable { place: String, reason: String },
    Layout(String),
    MissingFile { name: String },
    ExtraFile { name: String },
    Order { name: String },
    Checkpoint(NoteError),
    Policy(Quorum),
    Consistency(tree::ProofError),
    Manifest(ManifestError),
    CheckpointDiffers,
    Container,
    Unlisted { name: String },
    Changed { name: String },
    Form { name: String, line: u64, reason: String },
    Proof(ProofError),
    Root { size: u64 },
    Entry { index: u64, error: EntryError },
    EntryForm { index: u64, reason: &'static str },
    Decision { index: u64, contradiction: Contradiction },
    Unselected { index: u64 },
    Opening { index: u64, field: &'static str },
    Text { name: String },
    UnnamedText { name: String },
    MissingText { digest: Blake3Digest },
    Recipe { index: u64, what: &'static str },
    Counts,
    Period { index: u64, fault: PeriodFault },
    Incomplete { first: Box<Incomplete>, periods: usize },
    Derived { name: &'static str, line: u64 },
    Key,
    Challenge(ChallengeError),
    Replay(ReplayFault),
    Nonce { found: String },
    Count { found: u64 },
    NoReplays,
    Passport(PassportError),
    PassportForm,
    Receipt(ReceiptError),
    ReceiptKey { origin: String },
    ReceiptSignature { key: String },
    ReceiptPolicy,
    Inclusion(tree::ProofError),
    MissingTile { path: String },
    Tile { path: String, error: TileError },
    TileDiffers { path: String },
    EntryDiffers { index: u64, tile: String },
    EmptyLog,
    Handover,
    Retired { key: String },
}

impl Problem {
    /// A stable name for machines.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotRecognised { .. } => "not_recognised",
            Self::TooLarge { .. } => "too_large",
            Self::Unreadable { .. } => "unreadable",
            Self::Layout(_) => "zip_layout",
            Self::MissingFile { .. } => "missing_file",
            Self::ExtraFile { .. } => "extra_file",
            Self::Order { .. } => "file_order",
            Self::Checkpoint(_) => "checkpoint",
            Self::Policy(_) => "policy",
            Self::Consistency(_) => "consistency",
            Self::Manifest(_) => "manifest",
            Self::CheckpointDiffers => "checkpoint_differs",
            Self::Container => "container",
            Self::Unlisted { .. } => "unlisted_file",
            Self::Changed { .. } => "file_changed",
            Self::Form { .. } => "file_form",
            Self::Proof(_) => "proof",
            Self::Root { .. } => "root",
            Self::Entry { .. } => "entry",
            Self::EntryForm { .. } => "entry_form",
            Self::Decision { .. } => "decision",
            Self::Unselected { .. } => "unselected",
            Self::Opening { .. } => "opening",
            Self::Text { .. } => "text_digest",
            Self::UnnamedText { .. } => "text_unnamed",
            Self::MissingText { .. } => "text_missing",
            Self::Recipe { .. } => "recipe_differs",
            Self::Counts => "counts",
            Self::Period { .. } => "period",
            Self::Incomplete { .. } => "incomplete",
            Self::Derived { .. } => "derived",
            Self::Key => "key_copy",
            Self::Challenge(_) => "challenge",
            Self::Replay(_) => "replay",
            Self::Nonce { .. } => "nonce",
            Self::Count { .. } => "count",
            Self::NoReplays => "no_replays",
            Self::Passport(_) => "passport",
            Self::PassportForm => "passport_form",
            Self::Receipt(_) => "receipt",
            Self::ReceiptKey { .. } => "receipt_key",
            Self::ReceiptSignature { .. } => "receipt_signature",
            Self::ReceiptPolicy => "receipt_policy",
            Self::Inclusion(_) => "inclusion",
            Self::MissingTile { .. } => "tile_missing",
            Self::Tile { .. } => "tile",
            Self::TileDiffers { .. } => "tile_differs",
            Self::EntryDiffers { .. } => "entry_differs",
            Self::EmptyLog => "empty_log",
            Self::Handover => "handover",
            Self::Retired { .. } => "retired_key",
        }
    }
}

/// Checks who signed a checkpoint and whether the policy, if there is one, holds.
///
/// # Errors
/// [`Problem::Checkpoint`] or [`Problem::Policy`].
pub fn open_checkpoint(note: &[u8], keys: &Keys, steps: &mut Vec<Step>) -> Result<Signed, Problem> {
    let signed = keys.open_checkpoint(note).map_err(Problem::Checkpoint)?;
    steps.push(Step::Checkpoint {
        origin: signed.facts.origin.clone(),
        size: signed.facts.size,
        key: signed.key.key_id(),
        witnesses: signed.cosignatures.iter().map(|cosignature| cosignature.witness.name().to_owned()).collect(),
    });
    for cosignature in &signed.cosignatures {
        steps.push(Step::Cosigned { witness: cosignature.witness.key_id(), time: cosignature.time_text() });
    }
    if !signed.unchecked.is_empty() {
        steps.push(Step::Unchecked { keys: signed.unchecked.clone() });
    }
    match &signed.quorum {
        Some(quorum) if !quorum.is_satisfied() => return Err(Problem::Policy(quorum.clone())),
        Some(quorum) => steps.push(Step::Quorum { name: quorum.name.clone(), missing: quorum.missing.clone() }),
        None => {}
    }
    Ok(signed)
}

/// Checks a signed checkpoint alone.
#[must_use]
pub fn verify_checkpoint(note: &[u8], keys: &Keys) -> Findings {
    gather(|steps| open_checkpoint(note, keys, steps).map(drop))
}

/// Checks the checkpoint in a request to a witness; its proof says something only beside an earlier checkpoint.
#[must_use]
pub fn verify_request(text: &[u8], keys: &Keys) -> Findings {
    gather(|steps| {
        let request = std::str::from_utf8(text).map_err(|error| error.to_string());
        let request = request.and_then(|text| AddCheckpoint::parse(text).map_err(|refusal| refusal.to_string()));
        let request = request.map_err(|reason| Problem::NotRecognised { reason })?;
        open_checkpoint(request.note.as_bytes(), keys, steps).map(drop)
    })
}

/// Refuses evidence that is genuine and says itself that frames or parts are missing.
fn complete(incomplete: Vec<Incomplete>) -> Result<(), Problem> {
    let periods = incomplete.len();
    match incomplete.into_iter().next() {
        Some(first) => Err(Problem::Incomplete { first: Box::new(first), periods }),
        None => Ok(()),
    }
}

/// Runs a check that pushes its steps, and gathers both.
fn gather(check: impl FnOnce(&mut Vec<Step>) -> Result<(), Problem>) -> Findings {
    let mut steps = Vec::new();
    let problem = check(&mut steps).err();
    Findings { steps, problem }
}
