//! Checks an export.

use std::collections::{BTreeMap, BTreeSet};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use rayon::prelude::*;

use super::{
    Findings, Problem, Step, complete, entry, gather, open_checkpoint,
    tables::{Digests, Rows, Tables, same_text},
    unpacked::{Lines, Unpacked, small},
};
use crate::{
    core::{
        export::{
            CALIBRATIONS, CHECKPOINT, DECISIONS_CSV, DECISIONS_DE_CSV, DECISIONS_JSONL, ENTRIES, ENTRIES_INDEX,
            ENTRIES_MAX, ENTRIES_PROOF, LOG_VKEY, MANIFEST, MANIFEST_BYTES_MAX, MODEL_CARD_BYTES_MAX, MODEL_CARDS,
            PAGE, PAGE_BYTES_MAX, PERIODS_MAX, PRIVATE, README, README_TEXT, RECIPE_BYTES_MAX, RECIPES, REPORT,
            SOFTWARE,
            balance::Balances,
            consistency,
            keys::{Keys, Signed},
            manifest::{self, Predicate, Statement},
            multiproof::{self, HASHES_PER_ENTRY_MAX, Leaf},
            renders_as,
            report::{self, Context},
            summary::Summary,
            table::Row,
            writer::OpeningLine,
            zip::Archive,
        },
        lineage::{
            checkpoint::CHECKPOINT_BYTES_MAX,
            entry::{Decision, ENTRY_BYTES_MAX, Entry},
            private::PrivateField,
            tree::leaf_hash,
        },
        recipe::{OutputKind, Recipe, Role},
    },
    types::{Blake3Digest, Sha256Digest},
};

/// Entries that are parsed and rendered at a time, on all cores.
const CHUNK_ENTRIES: usize = 4096;
/// Entries that one core takes at a time.
const SLICE_ENTRIES: usize = 256;
/// Bytes of a report.
const REPORT_BYTES_MAX: u64 = 16 << 20;
/// Bytes of a line in `private.jsonl`: a value of 128 characters, each escaped to six bytes, and its frame.
const OPENING_BYTES_MAX: usize = 2048;
/// Bytes of a number or a base64 hash in a line.
const SHORT_LINE_BYTES_MAX: usize = 64;
const FIXED: [&str; 11] = [
    README,
    CHECKPOINT,
    DECISIONS_CSV,
    DECISIONS_DE_CSV,
    DECISIONS_JSONL,
    ENTRIES_INDEX,
    ENTRIES,
    ENTRIES_PROOF,
    LOG_VKEY,
    PRIVATE,
    REPORT,
];

/// Checks everything in an export, step by step, as `docs/spec/export.md` says.
#[must_use]
pub fn verify_export(bytes: &[u8], keys: &Keys) -> Findings {
    gather(|steps| check(bytes, keys, steps))
}

fn check(bytes: &[u8], keys: &Keys, steps: &mut Vec<Step>) -> Result<(), Problem> {
    let archive = Archive::open(bytes).map_err(|error| Problem::Layout(error.to_string()))?;
    check_names(&archive)?;
    steps.push(Step::Container { files: archive.names().len(), bytes: bytes.len() as u64 });

    let note = small(&archive, CHECKPOINT, CHECKPOINT_BYTES_MAX as u64)?;
    let signed = open_checkpoint(&note, keys, steps)?;

    let envelope = small(&archive, MANIFEST, MANIFEST_BYTES_MAX)?;
    let statement = manifest::open(&envelope, &signed.key.key_id(), signed.key.key()).map_err(Problem::Manifest)?;
    let predicate = &statement.predicate;
    if predicate.checkpoint != signed.facts {
        return Err(Problem::CheckpointDiffers);
    }
    let before = archive.before(MANIFEST).expect("the manifest was read above");
    if Sha256Digest::of(before) != predicate.container {
        return Err(first_change(&archive, &statement).unwrap_or(Problem::Container));
    }
    steps.push(Step::Manifest { software: predicate.software.clone() });

    let files = Unpacked::check(&archive, &statement)?;
    steps.push(Step::Digests { files: statement.subject.len(), bytes: files.bytes });

    let places = Places::read(&files)?;
    let texts = Texts::read(&files, &archive)?;
    let contents = Contents { files: &files, places: &places, texts: &texts, predicate };
    let leaves = contents.leaves()?;
    contents.check_proof(&leaves, &signed, steps)?;
    let read = contents.read(&leaves)?;
    let counts = &read.summary.counts;
    if counts.entries != predicate.counts.entries || *counts != predicate.counts {
        return Err(Problem::Counts);
    }
    steps.push(Step::Entries {
        decisions: counts.decisions,
        gaps: counts.gaps,
        gap_frames: counts.gap_frames,
        other: counts.other,
    });
    steps.push(Step::Decisions {
        decisions: counts.decisions,
        ok: counts.ok,
        not_ok: counts.not_ok,
        not_decidable: counts.not_decidable,
    });
    steps.push(Step::Openings { values: counts.openings, decisions: counts.decisions });
    texts.check(&read.summary, predicate)?;
    steps.push(Step::Texts {
        recipes: texts.recipes.len(),
        calibrations: texts.calibrations.len(),
        absent: predicate.absent.recipes.len() + predicate.absent.calibrations.len(),
    });
    steps.push(Step::Thresholds { decisions: read.against_recipe });
    let account = &read.summary.account;
    if account.closes() > PERIODS_MAX {
        return Err(Problem::TooLarge { what: "the number of period closes", max: PERIODS_MAX as u64 });
    }
    let balances = account.balances(&predicate.selection);
    let balances = balances.map_err(|(index, fault)| Problem::Period { index, fault })?;
    let (totals, recounted, outside) = (balances.totals, balances.recounted, balances.outside);
    steps.push(Step::Periods { totals, recounted, outside });
    contents.check_derived(&read.summary, &balances, &note, &signed, steps)?;
    complete(balances.incomplete())
}

/// The files an export has, no other, in order.
fn check_names(archive: &Archive<'_>) -> Result<(), Problem> {
    let names: Vec<&str> = archive.names().collect();
    for needed in FIXED.into_iter().chain([MANIFEST]) {
        if !names.contains(&needed) {
            return Err(Problem::MissingFile { name: needed.into() });
        }
    }
    for name in &names {
        let in_folder = digest_of_name(name, CALIBRATIONS, ".toml")
            .or_else(|| digest_of_name(name, MODEL_CARDS, ".md"))
            .or_else(|| digest_of_name(name, RECIPES, ".toml"));
        if in_folder.is_none() && !FIXED.contains(name) && ![PAGE, MANIFEST].contains(name) {
            return Err(Problem::ExtraFile { name: (*name).into() });
        }
    }
    if archive.size(PAGE).is_some_and(|size| size > PAGE_BYTES_MAX) {
        return Err(Problem::TooLarge { what: PAGE, max: PAGE_BYTES_MAX });
    }
    if let Some(name) = names.iter().find(|name| archive.is_stored(name) != (**name == MANIFEST)) {
        return Err(Problem::Layout(format!("{name}: only the manifest is not compressed")));
    }
    let (last, others) = names.split_last().expect("the needed files are there");
    if *last != MANIFEST {
        return Err(Problem::Order { name: MANIFEST.into() });
    }
    match others.windows(2).find(|pair| pair[0] >= pair[1]) {
        Some(pair) => Err(Problem::Order { name: pair[1].into() }),
        None => Ok(()),
    }
}

/// The digest in a name such as `recipes/<64 hex>.toml`.
fn digest_of_name(name: &str, folder: &str, ending: &str) -> Option<Blake3Digest> {
    let hex = name.strip_prefix(folder)?.strip_suffix(ending)?;
    format!("{}{hex}", Blake3Digest::PREFIX).parse().ok()
}

/// Names the file that differs when the container does; the container alone would only say that one does.
fn first_change(archive: &Archive<'_>, statement: &Statement) -> Option<Problem> {
    Unpacked::check(archive, statement).err()
}

/// Where entries stand, what proves it, and what was opened of them.
struct Places {
    indexes: Vec<u64>,
    proof: Vec<Sha256Digest>,
    openings: Vec<OpeningLine>,
}

impl Places {
    fn read(files: &Unpacked<'_>) -> Result<Self, Problem> {
        let mut buffer = Vec::new();
        let mut indexes = Vec::new();
        let mut lines = files.lines(ENTRIES_INDEX, SHORT_LINE_BYTES_MAX);
        while let Some(text) = lines.next_text(&mut buffer)? {
            let index: u64 = text.parse().map_err(|_| lines.wrong("it is no number"))?;
            if index.to_string() != text {
                return Err(lines.wrong("the number is written in another way than usual"));
            }
            indexes.push(index);
            if indexes.len() > ENTRIES_MAX {
                return Err(Problem::TooLarge { what: ENTRIES_INDEX, max: ENTRIES_MAX as u64 });
            }
        }
        let hashes_max = indexes.len() * HASHES_PER_ENTRY_MAX;
        let mut proof = Vec::new();
        let mut lines = files.lines(ENTRIES_PROOF, SHORT_LINE_BYTES_MAX);
        while let Some(text) = lines.next_text(&mut buffer)? {
            let hash = BASE64.decode(text).ok().and_then(|hash| Sha256Digest::from_slice(&hash).ok());
            proof.push(hash.ok_or_else(|| lines.wrong("it is no base64 of 32 bytes"))?);
            if proof.len() > hashes_max {
                return Err(Problem::TooLarge { what: ENTRIES_PROOF, max: hashes_max as u64 });
            }
        }
        let mut openings: Vec<OpeningLine> = Vec::new();
        let mut lines = files.lines(PRIVATE, OPENING_BYTES_MAX);
        while let Some(text) = lines.next_text(&mut buffer)? {
            let line: OpeningLine = serde_json::from_str(text).map_err(|error| lines.wrong(&error.to_string()))?;
            if serde_json::to_string(&line).ok().as_deref() != Some(text) {
                return Err(lines.wrong("it is not in the one form that this format has"));
            }
            let key = (line.index, line.field);
            if openings.last().is_some_and(|before| (before.index, before.field) >= key) {
                return Err(lines.wrong("it is out of order"));
            }
            openings.push(line);
            if openings.len() > 2 * ENTRIES_MAX {
                return Err(Problem::TooLarge { what: PRIVATE, max: 2 * ENTRIES_MAX as u64 });
            }
        }
        Ok(Self { indexes, proof, openings })
    }

    fn openings_of(&self, index: u64) -> &[OpeningLine] {
        let start = self.openings.partition_point(|line| line.index < index);
        let end = start + self.openings[start..].iter().take_while(|line| line.index == index).count();
        &self.openings[start..end]
    }
}

/// The recipe and calibration texts that came along.
struct Texts {
    /// The recipe as this release reads it, if it does.
    recipes: BTreeMap<Blake3Digest, Option<Recipe>>,
    calibrations: BTreeSet<Blake3Digest>,
    model_cards: BTreeSet<Blake3Digest>,
}

impl Texts {
    fn read(files: &Unpacked<'_>, archive: &Archive<'_>) -> Result<Self, Problem> {
        let mut texts = Self { recipes: BTreeMap::new(), calibrations: BTreeSet::new(), model_cards: BTreeSet::new() };
        for name in archive.names() {
            let named = |digest: Blake3Digest| -> Result<Vec<u8>, Problem> {
                let text = files.text(name, RECIPE_BYTES_MAX as u64)?;
                if Blake3Digest::of(&text) == digest { Ok(text) } else { Err(Problem::Text { name: name.into() }) }
            };
            if let Some(digest) = digest_of_name(name, RECIPES, ".toml") {
                let text = named(digest)?;
                let recipe = std::str::from_utf8(&text).ok().and_then(|text| Recipe::parse(text).ok());
                texts.recipes.insert(digest, recipe);
            } else if let Some(digest) = digest_of_name(name, CALIBRATIONS, ".toml") {
                named(digest)?;
                texts.calibrations.insert(digest);
            } else if let Some(digest) = digest_of_name(name, MODEL_CARDS, ".md") {
                files.text(name, MODEL_CARD_BYTES_MAX as u64)?;
                texts.model_cards.insert(digest);
            }
        }
        Ok(texts)
    }

    /// Every text is named by a decision, and every named text is there or said to be absent.
    fn check(&self, summary: &Summary, predicate: &Predicate) -> Result<(), Problem> {
        let absent = &predicate.absent;
        let recipes =
            (RECIPES, ".toml", self.recipes.keys().copied().collect(), summary.recipes.keys().copied().collect());
        let calibrations = (CALIBRATIONS, ".toml", self.calibrations.clone(), summary.calibrations.clone());
        let model_cards = (MODEL_CARDS, ".md", self.model_cards.clone(), summary.models.clone());
        let kinds =
            [(recipes, &absent.recipes), (calibrations, &absent.calibrations), (model_cards, &absent.model_cards)];
        for ((folder, ending, present, named), absent) in kinds {
            let present: BTreeSet<Blake3Digest> = present;
            let named: BTreeSet<Blake3Digest> = named;
            if let Some(digest) = present.difference(&named).next() {
                return Err(Problem::UnnamedText { name: format!("{folder}{}{ending}", digest.hex()) });
            }
            let missing: Vec<Blake3Digest> = named.difference(&present).copied().collect();
            if missing != *absent {
                let digest = missing.iter().find(|digest| !absent.contains(digest)).or(absent.first());
                return Err(Problem::MissingText { digest: *digest.expect("two unequal lists are not both empty") });
            }
        }
        Ok(())
    }
}

/// What the second pass over the entries gathers.
#[derive(Default)]
struct Contained {
    summary: Summary,
    /// Decisions whose thresholds were compared with their recipe's text.
    against_recipe: u64,
}

/// One entry, checked.
struct Checked {
    leaf: Leaf,
    entry: Entry,
    against_recipe: bool,
}

/// A slice of entries, checked by one core.
#[derive(Default)]
struct Slice {
    entries: Vec<Checked>,
    rows: Rows,
}

/// The entries, a chunk at a time.
struct EntryChunks<'a> {
    lines: Lines<'a>,
    chunk: Chunk,
}

/// The bytes of some entries, one after the other.
#[derive(Default)]
struct Chunk {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Chunk {
    fn get(&self, at: usize) -> &[u8] {
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        &self.bytes[start..self.ends[at]]
    }
}

impl<'a> EntryChunks<'a> {
    fn open(files: &'a Unpacked<'_>) -> Self {
        Self { lines: files.lines(ENTRIES, ENTRY_BYTES_MAX + 1), chunk: Chunk::default() }
    }

    fn read(&mut self, entries: usize) -> Result<&Chunk, Problem> {
        self.chunk.bytes.clear();
        self.chunk.ends.clear();
        for _ in 0..entries {
            if !self.lines.next(&mut self.chunk.bytes)? {
                return Err(self.lines.wrong("there are fewer entries than indexes"));
            }
            self.chunk.ends.push(self.chunk.bytes.len());
        }
        Ok(&self.chunk)
    }

    fn end(mut self) -> Result<(), Problem> {
        if self.lines.next(&mut Vec::new())? {
            return Err(self.lines.wrong("there are more entries than indexes"));
        }
        Ok(())
    }
}

struct Contents<'a> {
    files: &'a Unpacked<'a>,
    places: &'a Places,
    texts: &'a Texts,
    predicate: &'a Predicate,
}

impl Contents<'_> {
    fn same_rendering(&self) -> bool {
        renders_as(&self.predicate.software)
    }

    /// First pass: hashes every entry, so that nothing is interpreted before it is proven.
    fn leaves(&self) -> Result<Vec<Leaf>, Problem> {
        let mut leaves = Vec::with_capacity(self.places.indexes.len());
        let mut entries = EntryChunks::open(self.files);
        for indexes in self.places.indexes.chunks(CHUNK_ENTRIES) {
            let chunk = entries.read(indexes.len())?;
            let hashed = indexes.par_iter().enumerate();
            let hashed = hashed.map(|(at, index)| Leaf { index: *index, hash: leaf_hash(chunk.get(at)) });
            leaves.par_extend(hashed);
        }
        entries.end()?;
        Ok(leaves)
    }

    /// Second pass: reads every entry, checks it, and holds the tables against it.
    fn read(&self, leaves: &[Leaf]) -> Result<Contained, Problem> {
        let mut contained = Contained::default();
        let mut digests = Digests::new();
        self.chunks(leaves, |slices| {
            digests.add(&slices.iter().map(|slice| &slice.rows).collect::<Vec<_>>());
            slices.into_iter().for_each(|slice| self.take(slice, &mut contained));
            Ok(())
        })?;
        if self.same_rendering() && !digests.are_of(self.files) {
            return Err(self.first_difference(leaves));
        }
        Ok(contained)
    }

    /// Renders the tables again beside those of the export, to say where they part.
    fn first_difference(&self, leaves: &[Leaf]) -> Problem {
        let compare = || {
            let mut tables = Tables::open(self.files)?;
            self.chunks(leaves, |slices| slices.iter().try_for_each(|slice| tables.compare(&slice.rows)))?;
            tables.end()
        };
        compare().expect_err("texts with different digests differ")
    }

    /// Checks all entries on all cores and hands them on in order, [`CHUNK_ENTRIES`] at a time.
    fn chunks(&self, leaves: &[Leaf], mut take: impl FnMut(Vec<Slice>) -> Result<(), Problem>) -> Result<(), Problem> {
        let mut entries = EntryChunks::open(self.files);
        for leaves in leaves.chunks(CHUNK_ENTRIES) {
            let chunk = entries.read(leaves.len())?;
            let slices: Result<Vec<Slice>, Problem> = leaves
                .par_chunks(SLICE_ENTRIES)
                .enumerate()
                .map(|(at, leaves)| {
                    let first = at * SLICE_ENTRIES;
                    self.check_slice(leaves, (first..).map(|at| chunk.get(at)))
                })
                // Collected before the first problem is taken: it is the one of the first entry, whichever core was first.
                .collect::<Vec<Result<Slice, Problem>>>()
                .into_iter()
                .collect();
            take(slices?)?;
        }
        Ok(())
    }

    fn check_slice<'e>(&self, leaves: &[Leaf], entries: impl Iterator<Item = &'e [u8]>) -> Result<Slice, Problem> {
        let mut slice = Slice::default();
        for (&leaf, bytes) in leaves.iter().zip(entries) {
            let index = leaf.index;
            let entry = entry::read(index, bytes)?;
            let openings = self.places.openings_of(index);
            check_openings(index, &entry, openings)?;
            let mut against_recipe = false;
            match &entry {
                Entry::Decision(decision) => {
                    let row = row(leaf, decision, openings);
                    if !self.predicate.selection.admits(decision, row.serial, row.lot) {
                        return Err(Problem::Unselected { index });
                    }
                    consistency::check(decision).map_err(|contradiction| Problem::Decision { index, contradiction })?;
                    against_recipe = self.check_recipe(index, decision)?;
                    if self.same_rendering() {
                        slice.rows.push(&row);
                    }
                }
                Entry::Gap(gap) if !self.predicate.selection.admits_gap(gap) => {
                    return Err(Problem::Unselected { index });
                }
                Entry::PeriodClose(close) if !self.predicate.selection.admits_close(close) => {
                    return Err(Problem::Unselected { index });
                }
                _ => {}
            }
            slice.entries.push(Checked { leaf, entry, against_recipe });
        }
        Ok(slice)
    }

    /// Whether the decision used the model, calibration and thresholds that its recipe's text names.
    fn check_recipe(&self, index: u64, decision: &Decision) -> Result<bool, Problem> {
        let Some(Some(recipe)) = self.texts.recipes.get(&decision.recipe.digest) else { return Ok(false) };
        let differs = |what| Err(Problem::Recipe { index, what });
        if recipe.reference() != decision.recipe.name || recipe.version != decision.model.version {
            return differs("name");
        }
        if recipe.model.digest != decision.model.digest {
            return differs("model");
        }
        if recipe.calibration.as_ref().map(|file| file.digest) != decision.calibration {
            return differs("calibration");
        }
        if recipe.policy.comparator.symbol() != decision.scores.comparator {
            return differs("comparator");
        }
        let labels = &decision.scores.labels;
        let same = recipe.policy.labels.len() == labels.len()
            && recipe.policy.labels.iter().zip(labels).all(|(policy, found)| {
                let thresholds = match policy.role {
                    Role::Defect { review, reject } => (Some(review), Some(reject)),
                    Role::Ok => (None, None),
                };
                policy.label == found.label && thresholds == (found.review, found.reject)
            });
        if !same {
            return differs("thresholds");
        }
        let is_detection = matches!(recipe.output.kind, OutputKind::Detection(_));
        if labels.iter().any(|label| label.boxes.is_some() != is_detection) {
            return differs("boxes");
        }
        Ok(true)
    }

    fn take(&self, slice: Slice, contained: &mut Contained) {
        for Checked { leaf, entry, against_recipe } in slice.entries {
            contained.against_recipe += u64::from(against_recipe);
            match &entry {
                Entry::Decision(decision) => {
                    let row = row(leaf, decision, self.places.openings_of(leaf.index));
                    contained.summary.add(leaf.index, &entry, Some(&row));
                }
                _ => contained.summary.add(leaf.index, &entry, None),
            }
        }
    }

    fn check_proof(&self, leaves: &[Leaf], signed: &Signed, steps: &mut Vec<Step>) -> Result<(), Problem> {
        let size = signed.facts.size;
        let root = multiproof::root(leaves, size, &self.places.proof).map_err(Problem::Proof)?;
        if root != signed.facts.root {
            return Err(Problem::Root { size });
        }
        // An opening of an entry that is not here would have been read by nobody.
        let opened = self.places.openings.iter().find(|line| self.places.indexes.binary_search(&line.index).is_err());
        if let Some(line) = opened {
            return Err(Problem::Opening { index: line.index, field: line.field.name() });
        }
        steps.push(Step::Proof { entries: leaves.len() as u64, size, hashes: self.places.proof.len() });
        Ok(())
    }

    /// Renders what is derived once more and compares.
    fn check_derived(
        &self,
        summary: &Summary,
        balances: &Balances<'_>,
        note: &[u8],
        signed: &Signed,
        steps: &mut Vec<Step>,
    ) -> Result<(), Problem> {
        if self.files.text(LOG_VKEY, 1024)? != format!("{}\n", signed.key.line()).as_bytes() {
            return Err(Problem::Key);
        }
        if !self.same_rendering() {
            steps.push(Step::NotDerived { made_by: self.predicate.software.clone(), this: SOFTWARE });
            return Ok(());
        }
        let context = Context {
            selection: &self.predicate.selection,
            checkpoint: &signed.facts,
            note: std::str::from_utf8(note).expect("a signed note is UTF-8"),
            key: &signed.key,
            absent: &self.predicate.absent,
            software: &self.predicate.software,
        };
        let report = report::render(summary, balances, &context);
        same_text(REPORT, &self.files.text(REPORT, REPORT_BYTES_MAX)?, report.as_bytes())?;
        same_text(README, &self.files.text(README, REPORT_BYTES_MAX)?, README_TEXT.as_bytes())?;
        steps.push(Step::Derived { files: 5 });
        Ok(())
    }
}

fn check_openings(index: u64, entry: &Entry, openings: &[OpeningLine]) -> Result<(), Problem> {
    let commitments = entry.commitments();
    for line in openings {
        let opened = line.opening().map(|opening| opening.commitment());
        let is_ours = matches!(entry, Entry::Decision(_)) && line.field != PrivateField::Client;
        if !is_ours || opened.is_none() || opened != commitments.get(line.field) {
            return Err(Problem::Opening { index, field: line.field.name() });
        }
    }
    Ok(())
}

fn row<'a>(leaf: Leaf, decision: &'a Decision, openings: &'a [OpeningLine]) -> Row<'a> {
    let value = |field| openings.iter().find(|line| line.field == field).map(|line| line.value.as_str());
    let (serial, lot) = (value(PrivateField::Serial), value(PrivateField::Lot));
    Row { index: leaf.index, leaf_hash: leaf.hash, decision, serial, lot }
}
