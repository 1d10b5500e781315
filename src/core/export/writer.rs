//! Makes one export out of entries, their private values and the texts they name.

use std::{
    collections::BTreeSet,
    io::{self, Write},
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{
    CALIBRATIONS, CHECKPOINT, DECISIONS_CSV, DECISIONS_DE_CSV, DECISIONS_JSONL, ENTRIES, ENTRIES_INDEX, ENTRIES_MAX,
    ENTRIES_PROOF, LOG_VKEY, MANIFEST, MODEL_CARD_BYTES_MAX, MODEL_CARDS, PAGE, PERIODS_MAX, PRIVATE, README,
    README_TEXT, RECIPE_BYTES_MAX, RECIPES, REPORT, SOFTWARE, VERIFY_PAGE,
    keys::VerifierKey,
    manifest::{
        self, Absent, CheckpointFacts, Counts, FORMAT, Predicate, Selection, Statement, Subject, SubjectDigest,
    },
    multiproof::{self, Leaf, ProofError},
    report::{self, Context},
    summary::Summary,
    table::{self, Dialect, Row},
    zip::{MemberWriter, ZipWriter},
};
use crate::{
    core::lineage::{
        entry::Entry,
        private::{Opening, PrivateField},
        tree::leaf_hash,
    },
    types::{Blake3Digest, Sha256Digest},
};

/// Entries that are read, parsed and rendered at a time, on all cores.
pub const CHUNK_ENTRIES: usize = 1024;

/// What a source reports when it cannot read.
pub type SourceError = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error("nothing in the log matches the selection; widen it")]
    Nothing,
    #[error("the selection has {found} entries; an export has at most {ENTRIES_MAX}; narrow it, by day for example")]
    TooMany { found: usize },
    #[error(
        "the selection touches {found} closed periods; an export has at most {PERIODS_MAX}; narrow it, by day for example"
    )]
    TooManyPeriods { found: usize },
    #[error("entry {index} is not fit for an export: {reason}; run `lineproof fsck`")]
    Entry { index: u64, reason: String },
    #[error("entry {index} was found but does not match the selection; the index is wrong, run `lineproof reindex`")]
    Unselected { index: u64 },
    #[error("the private value {field} filed for entry {index} does not open its commitment; run `lineproof fsck`")]
    Opening { index: u64, field: &'static str },
    #[error("the {what} {digest} has {bytes} bytes; an export takes at most {bytes_max}")]
    Text { what: &'static str, digest: Blake3Digest, bytes: usize, bytes_max: usize },
    #[error("the {what} filed under {digest} has another digest")]
    TextDigest { what: &'static str, digest: Blake3Digest },
    #[error("the entries do not lead to the root of the checkpoint; the log is damaged, run `lineproof fsck`")]
    Root,
    #[error(transparent)]
    Proof(#[from] ProofError),
    #[error("the log, its private values or its texts cannot be read: {0}")]
    Source(#[source] SourceError),
    #[error("the export cannot be signed: {0}")]
    Sign(#[source] SourceError),
    #[error("the export cannot be written: {0}")]
    Write(#[from] io::Error),
}

/// Where an export comes from. All answers belong to one checkpoint.
pub trait Source {
    /// The stored bytes of the entries at ascending `indexes`, at most [`CHUNK_ENTRIES`].
    ///
    /// # Errors
    /// [`SourceError`], as for every method here.
    fn entries(&self, indexes: &[u64]) -> Result<Vec<Vec<u8>>, SourceError>;

    /// What opens the entry's commitments; none when the values were erased.
    fn openings(&self, index: u64) -> Result<Vec<Opening>, SourceError>;

    /// RFC 6962 inclusion proof in the checkpoint's tree.
    fn inclusion(&self, index: u64) -> Result<Vec<Sha256Digest>, SourceError>;

    /// The recipe file with this digest, if it is still there.
    fn recipe(&self, digest: Blake3Digest) -> Result<Option<Vec<u8>>, SourceError>;

    /// The calibration file with this digest, if it is still there.
    fn calibration(&self, digest: Blake3Digest) -> Result<Option<Vec<u8>>, SourceError>;

    /// The card of the model with this digest, if it has one.
    fn model_card(&self, model: Blake3Digest) -> Result<Option<Vec<u8>>, SourceError>;
}

/// Signs the manifest and notes that there is an export.
pub type Sign<'a> = &'a mut dyn FnMut(&[u8], &Counts) -> Result<[u8; 64], SourceError>;

/// Under which checkpoint, for whom and with which key an export is made.
pub struct Request<'a> {
    pub selection: Selection,
    /// The signed note.
    pub note: &'a str,
    pub checkpoint: CheckpointFacts,
    pub key: &'a VerifierKey,
    /// Ed25519 signature by `key` over the manifest's DSSE pre-authentication encoding. Called once, last: without it
    /// there is no export, so this is the place to write down that there is one.
    pub sign: Sign<'a>,
}

/// What an export came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportReport {
    pub counts: Counts,
    pub checkpoint: CheckpointFacts,
    /// Bytes of the ZIP.
    pub bytes: u64,
    /// SHA-256 of the manifest file.
    pub manifest: Sha256Digest,
}

/// How far an export is, for a progress bar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    pub done: u64,
    pub total: u64,
}

/// Passes over the entries: gather, two spreadsheets, JSON Lines, the entries themselves.
const PASSES: u64 = 5;

/// Writes the export of the entries at `indexes` to `sink`. The same arguments give the same bytes.
///
/// # Errors
/// [`ExportError`]; what was written to `sink` by then is no export.
pub fn write<W: Write>(
    source: &(impl Source + ?Sized),
    mut indexes: Vec<u64>,
    request: Request<'_>,
    sink: W,
    progress: &mut dyn FnMut(Progress),
) -> Result<ExportReport, ExportError> {
    indexes.sort_unstable();
    indexes.dedup();
    if indexes.is_empty() {
        return Err(ExportError::Nothing);
    }
    if indexes.len() > ENTRIES_MAX {
        return Err(ExportError::TooMany { found: indexes.len() });
    }
    let total = indexes.len() as u64 * PASSES;
    let mut done = 0;
    let mut step = |entries: usize| {
        done += entries as u64;
        progress(Progress { done, total });
    };
    let selection = request.selection.clone().normal();
    let gathered = Gathered::gather(source, &indexes, &selection, &mut step)?;
    let proof = multiproof::build(&indexes, request.checkpoint.size, |index| {
        source.inclusion(index).map_err(ExportError::Source)
    })?;
    if multiproof::root(&gathered.leaves, request.checkpoint.size, &proof)? != request.checkpoint.root {
        return Err(ExportError::Root);
    }
    let texts = Texts::gather(source, &gathered.summary)?;
    let context = Context {
        selection: &selection,
        checkpoint: &request.checkpoint,
        note: request.note,
        key: request.key,
        absent: &texts.absent,
        software: SOFTWARE,
    };
    let balances = gathered.summary.account.balances(&selection).map_err(|(index, fault)| {
        let reason = format!("this period close cannot be right: {fault}");
        ExportError::Entry { index, reason }
    })?;
    let report = report::render(&gathered.summary, &balances, &context);

    let mut files = Files { zip: ZipWriter::new(sink), subject: Vec::new() };
    files.text(README, README_TEXT.as_bytes())?;
    files.texts(CALIBRATIONS, "toml", &texts.calibrations)?;
    files.text(CHECKPOINT, request.note.as_bytes())?;
    for (name, dialect) in [(DECISIONS_CSV, Dialect::Comma), (DECISIONS_DE_CSV, Dialect::Semicolon)] {
        files.add(name, |out| {
            let mut header = Vec::new();
            table::csv_header(&mut header, dialect);
            out.write_all(&header)?;
            gathered.rows(source, &mut step, |bytes, row| table::csv_row(bytes, row, dialect), out)
        })?;
    }
    files.add(DECISIONS_JSONL, |out| gathered.rows(source, &mut step, table::json_row, out))?;
    files.add(ENTRIES_INDEX, |out| lines(out, indexes.iter()))?;
    files.add(ENTRIES, |out| {
        for chunk in indexes.chunks(CHUNK_ENTRIES) {
            for entry in source.entries(chunk).map_err(ExportError::Source)? {
                out.write_all(&entry)?;
                out.write_all(b"\n")?;
            }
            step(chunk.len());
        }
        Ok(())
    })?;
    files.add(ENTRIES_PROOF, |out| lines(out, proof.iter().map(|hash| BASE64.encode(hash.0))))?;
    files.text(LOG_VKEY, format!("{}\n", request.key.line()).as_bytes())?;
    files.texts(MODEL_CARDS, "md", &texts.model_cards)?;
    files.add(PRIVATE, |out| gathered.private(out))?;
    files.texts(RECIPES, "toml", &texts.recipes)?;
    files.text(REPORT, report.as_bytes())?;
    files.text(PAGE, VERIFY_PAGE.as_bytes())?;

    let predicate = Predicate {
        absent: texts.absent,
        checkpoint: request.checkpoint.clone(),
        container: files.zip.digest(),
        counts: gathered.summary.counts,
        format: FORMAT,
        selection,
        software: SOFTWARE.into(),
    };
    let payload = Statement::new(files.subject, predicate).payload();
    let signature = (request.sign)(&manifest::pae(&payload), &gathered.summary.counts).map_err(ExportError::Sign)?;
    let envelope = manifest::envelope(&payload, &request.key.key_id(), signature);
    let bytes = files.zip.finish(MANIFEST, &envelope)?;
    Ok(ExportReport {
        counts: gathered.summary.counts,
        checkpoint: request.checkpoint,
        bytes,
        manifest: Sha256Digest::of(&envelope),
    })
}

/// One line of `private.jsonl`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpeningLine {
    pub field: PrivateField,
    pub index: u64,
    pub salt: String,
    pub value: String,
}

impl OpeningLine {
    fn new(index: u64, opening: &Opening) -> Self {
        let salt = data_encoding::HEXLOWER.encode(&opening.salt);
        Self { field: opening.field, index, salt, value: opening.value.clone() }
    }

    /// The opening, unless the salt is no salt.
    #[must_use]
    pub fn opening(&self) -> Option<Opening> {
        let salt = data_encoding::HEXLOWER.decode(self.salt.as_bytes()).ok()?.try_into().ok()?;
        Some(Opening { field: self.field, salt, value: self.value.clone() })
    }
}

/// What the first pass keeps of the entries.
struct Gathered {
    leaves: Vec<Leaf>,
    /// Ascending by index.
    parts: Vec<Part>,
    summary: Summary,
}

/// The opened values of one decision.
struct Part {
    index: u64,
    lot: Option<Opening>,
    serial: Option<Opening>,
}

impl Gathered {
    fn gather(
        source: &(impl Source + ?Sized),
        indexes: &[u64],
        selection: &Selection,
        step: &mut dyn FnMut(usize),
    ) -> Result<Self, ExportError> {
        let mut gathered =
            Self { leaves: Vec::with_capacity(indexes.len()), parts: Vec::new(), summary: Summary::default() };
        for chunk in indexes.chunks(CHUNK_ENTRIES) {
            let entries = source.entries(chunk).map_err(ExportError::Source)?;
            let parsed: Vec<(Leaf, Entry)> =
                chunk.par_iter().zip(&entries).map(|(index, bytes)| parse(*index, bytes)).collect::<Result<_, _>>()?;
            if parsed.len() != chunk.len() {
                return Err(ExportError::Source("the log returned fewer entries than it was asked for".into()));
            }
            for (leaf, entry) in parsed {
                gathered.take(source, leaf, &entry, selection)?;
            }
            step(chunk.len());
        }
        Ok(gathered)
    }

    fn take(
        &mut self,
        source: &(impl Source + ?Sized),
        leaf: Leaf,
        entry: &Entry,
        selection: &Selection,
    ) -> Result<(), ExportError> {
        self.leaves.push(leaf);
        let index = leaf.index;
        let unselected = ExportError::Unselected { index };
        match entry {
            Entry::Decision(decision) => {
                let part = Part::open(source, index, entry)?;
                if !selection.admits(decision, part.serial(), part.lot()) {
                    return Err(unselected);
                }
                let row = Row { index, leaf_hash: leaf.hash, decision, serial: part.serial(), lot: part.lot() };
                self.summary.add(index, entry, Some(&row));
                self.parts.push(part);
            }
            Entry::Gap(gap) if !selection.admits_gap(gap) => return Err(unselected),
            Entry::PeriodClose(close) if !selection.admits_close(close) => return Err(unselected),
            _ => self.summary.add(index, entry, None),
        }
        Ok(())
    }

    /// Renders a row per decision, a chunk at a time on all cores, in order.
    fn rows<W: Write>(
        &self,
        source: &(impl Source + ?Sized),
        step: &mut dyn FnMut(usize),
        render: impl Fn(&mut Vec<u8>, &Row<'_>) + Sync,
        out: &mut MemberWriter<'_, W>,
    ) -> Result<(), ExportError> {
        for leaves in self.leaves.chunks(CHUNK_ENTRIES) {
            let indexes: Vec<u64> = leaves.iter().map(|leaf| leaf.index).collect();
            let entries = source.entries(&indexes).map_err(ExportError::Source)?;
            let rows: Vec<Vec<u8>> = leaves
                .par_iter()
                .zip(&entries)
                .map(|(leaf, bytes)| {
                    let mut out = Vec::new();
                    if let Ok(Entry::Decision(decision)) = Entry::parse(bytes)
                        && let Ok(at) = self.parts.binary_search_by_key(&leaf.index, |part| part.index)
                    {
                        let part = &self.parts[at];
                        let (serial, lot) = (part.serial(), part.lot());
                        render(
                            &mut out,
                            &Row { index: leaf.index, leaf_hash: leaf.hash, decision: &decision, serial, lot },
                        );
                    }
                    out
                })
                .collect();
            rows.iter().try_for_each(|row| out.write_all(row))?;
            step(leaves.len());
        }
        Ok(())
    }

    fn private<W: Write>(&self, out: &mut MemberWriter<'_, W>) -> Result<(), ExportError> {
        for part in &self.parts {
            for opening in [&part.lot, &part.serial].into_iter().flatten() {
                let line = OpeningLine::new(part.index, opening);
                let mut line = serde_json::to_vec(&line).expect("an opening is three strings and a number");
                line.push(b'\n');
                out.write_all(&line)?;
            }
        }
        Ok(())
    }
}

fn parse(index: u64, bytes: &[u8]) -> Result<(Leaf, Entry), ExportError> {
    let wrong = |reason: String| ExportError::Entry { index, reason };
    if bytes.contains(&b'\n') {
        return Err(wrong("it has a line break".into()));
    }
    let entry = Entry::parse(bytes).map_err(|error| wrong(error.to_string()))?;
    Ok((Leaf { index, hash: leaf_hash(bytes) }, entry))
}

impl Part {
    fn open(source: &(impl Source + ?Sized), index: u64, entry: &Entry) -> Result<Self, ExportError> {
        let commitments = entry.commitments();
        let mut part = Self { index, lot: None, serial: None };
        if commitments.lot.is_none() && commitments.serial.is_none() {
            return Ok(part);
        }
        for opening in source.openings(index).map_err(ExportError::Source)? {
            let field = opening.field;
            // Who asked is nobody's business outside the plant.
            let slot = match field {
                PrivateField::Client => continue,
                PrivateField::Lot => &mut part.lot,
                PrivateField::Serial => &mut part.serial,
            };
            if commitments.get(field) != Some(opening.commitment()) {
                return Err(ExportError::Opening { index, field: field.name() });
            }
            *slot = Some(opening);
        }
        Ok(part)
    }

    fn serial(&self) -> Option<&str> {
        self.serial.as_ref().map(|opening| opening.value.as_str())
    }

    fn lot(&self) -> Option<&str> {
        self.lot.as_ref().map(|opening| opening.value.as_str())
    }
}

/// The texts that decisions name, by digest.
#[derive(Default)]
struct Texts {
    recipes: Vec<(Blake3Digest, Vec<u8>)>,
    calibrations: Vec<(Blake3Digest, Vec<u8>)>,
    model_cards: Vec<(Blake3Digest, Vec<u8>)>,
    absent: Absent,
}

impl Texts {
    fn gather(source: &(impl Source + ?Sized), summary: &Summary) -> Result<Self, ExportError> {
        let mut texts = Self::default();
        let recipes: BTreeSet<Blake3Digest> = summary.recipes.keys().copied().collect();
        for digest in recipes {
            let text = source.recipe(digest).map_err(ExportError::Source)?;
            let text = named_text("recipe", digest, text, RECIPE_BYTES_MAX)?;
            file(digest, text, &mut texts.recipes, &mut texts.absent.recipes);
        }
        for &digest in &summary.calibrations {
            let text = source.calibration(digest).map_err(ExportError::Source)?;
            let text = named_text("calibration", digest, text, RECIPE_BYTES_MAX)?;
            file(digest, text, &mut texts.calibrations, &mut texts.absent.calibrations);
        }
        for &digest in &summary.models {
            let text = source.model_card(digest).map_err(ExportError::Source)?;
            let text = short_text("model card", digest, text, MODEL_CARD_BYTES_MAX)?;
            file(digest, text, &mut texts.model_cards, &mut texts.absent.model_cards);
        }
        Ok(texts)
    }
}

fn file(
    digest: Blake3Digest,
    text: Option<Vec<u8>>,
    present: &mut Vec<(Blake3Digest, Vec<u8>)>,
    absent: &mut Vec<Blake3Digest>,
) {
    match text {
        Some(text) => present.push((digest, text)),
        None => absent.push(digest),
    }
}

fn named_text(
    what: &'static str,
    digest: Blake3Digest,
    text: Option<Vec<u8>>,
    bytes_max: usize,
) -> Result<Option<Vec<u8>>, ExportError> {
    let text = short_text(what, digest, text, bytes_max)?;
    match text {
        Some(text) if Blake3Digest::of(&text) != digest => Err(ExportError::TextDigest { what, digest }),
        text => Ok(text),
    }
}

fn short_text(
    what: &'static str,
    digest: Blake3Digest,
    text: Option<Vec<u8>>,
    bytes_max: usize,
) -> Result<Option<Vec<u8>>, ExportError> {
    match text {
        Some(text) if text.len() > bytes_max => Err(ExportError::Text { what, digest, bytes: text.len(), bytes_max }),
        text => Ok(text),
    }
}

fn lines<W: Write>(
    out: &mut MemberWriter<'_, W>,
    lines: impl Iterator<Item = impl std::fmt::Display>,
) -> Result<(), ExportError> {
    let mut buffered = io::BufWriter::with_capacity(64 * 1024, out);
    for line in lines {
        writeln!(buffered, "{line}")?;
    }
    buffered.flush()?;
    Ok(())
}

/// The ZIP with the list of its files.
struct Files<W: Write> {
    zip: ZipWriter<W>,
    subject: Vec<Subject>,
}

impl<W: Write> Files<W> {
    fn add(
        &mut self,
        name: &str,
        fill: impl FnOnce(&mut MemberWriter<'_, W>) -> Result<(), ExportError>,
    ) -> Result<(), ExportError> {
        let written = self.zip.add(name, fill)?;
        self.subject.push(Subject { digest: SubjectDigest { sha256: written.sha256.hex() }, name: name.into() });
        Ok(())
    }

    fn text(&mut self, name: &str, bytes: &[u8]) -> Result<(), ExportError> {
        self.add(name, |out| Ok(out.write_all(bytes)?))
    }

    fn texts(&mut self, folder: &str, ending: &str, texts: &[(Blake3Digest, Vec<u8>)]) -> Result<(), ExportError> {
        texts.iter().try_for_each(|(digest, text)| self.text(&format!("{folder}{}.{ending}", digest.hex()), text))
    }
}
