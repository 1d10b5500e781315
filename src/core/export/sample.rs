//! A small plant for tests: a log in memory, with parts, gaps, a recipe and keys.

use ed25519_dalek::{Signer as _, SigningKey};

use super::{
    keys::{VerifierKey, tests::checkpoint},
    manifest::{CheckpointFacts, Selection},
    writer::{self, ExportError, ExportReport, Request, Source, SourceError},
};
use crate::{
    core::lineage::{
        entry::{
            ClockState, Commitments, Decision, ENTRY_VERSION, Entry, Gap, GapKind, GapReason, ImageRecord, LabelRecord,
            PeriodCloseKind, RecipeEvent, RecipeEventKind, RecipeKind, ScoresRecord, Start, StartKind, tests::decision,
        },
        period::{Announced, Counters, Mark, PeriodClose},
        private::{Opening, PrivateField},
        tree::{leaf_hash, node_hash},
    },
    types::{Blake3Digest, EntryIndex, Instant, Score, Sha256Digest, Verdict},
};

pub(crate) const ORIGIN: &str = "plant-7.example/line-log";
const CALIBRATION: &str = r#"format = 1
name = "machined-surface"
version = "1.0.0"
model = "MODEL"
method = "platt"
slope = 1.1
intercept = -0.2
fitted_on = "rendered validation parts, 400 images, seed 1"
note = "for tests"
"#;
const RECIPE: &str = r#"format = 1
name = "machined-surface"
version = "1.0.0"
title = "Machined metal"

[model]
file = "model.onnx"
digest = "MODEL"

[calibration]
file = "machined-surface-1.0.0.toml"
digest = "CALIBRATION"

[frame]
formats = ["png"]
width_px = { min = 64, max = 4096 }
height_px = { min = 64, max = 4096 }
encoded_bytes_max = 33554432

[input]
tensor = "input"
colour = "gray"
width_px = 256
height_px = 256
resize = "pillow-bilinear"
fit = "stretch"
mean = [0.5]
std = [0.5]

[output]
kind = "segmentation"
tensor = "logits"
activation = "sigmoid"
labels = ["scratch", "dent"]
map_score = "top-k-mean"
top_k = 32
pixel_threshold = 0.5

[policy]
comparator = ">="
review = 0.30
reject = 0.60

[policy.class."dent"]
review = 0.25
reject = 0.50
"#;
const CARD: &str = "# machined-surface 1.0.0\n\nTrained on rendered parts.\n";
/// 2026-11-23T06:00:00Z.
const START_NANOS: i64 = 1_795_413_600_000_000_000;

/// A log of `entries` with everything filed beside it.
pub(crate) struct Plant {
    pub(crate) entries: Vec<Vec<u8>>,
    openings: Vec<Vec<Opening>>,
    leaves: Vec<Sha256Digest>,
    pub(crate) key: SigningKey,
    pub(crate) with_texts: bool,
}

impl Plant {
    /// `parts` decisions with a few rejects, reviews and gaps among them; the same for the same number.
    pub(crate) fn new(parts: u64) -> Self {
        let mut plant = Self {
            entries: Vec::new(),
            openings: Vec::new(),
            leaves: Vec::new(),
            key: SigningKey::from_bytes(&[42; 32]),
            with_texts: true,
        };
        let (clock, v, time) = (ClockState::Synchronised, ENTRY_VERSION, at(0));
        plant.push(
            Entry::Start(Start {
                clock,
                kind: StartKind::Kind,
                recovered: 0,
                software: "lineproof 0.1.0".into(),
                time,
                torn_bytes: 0,
                v,
            }),
            Vec::new(),
        );
        let calibration = Some(Blake3Digest::of(calibration_text().as_bytes()));
        let (event, model, recipe) = (RecipeEventKind::Activated, Blake3Digest::of(b"model"), recipe_record());
        plant.push(
            Entry::Recipe(RecipeEvent { calibration, clock, event, kind: RecipeKind::Kind, model, recipe, time, v }),
            Vec::new(),
        );
        let mut counter = 1000;
        let mut middle = 0;
        for part in 0..parts {
            counter += 1;
            if part % 97 == 41 {
                plant.push(gap(part, counter, counter + 2), Vec::new());
                counter += 3;
            }
            let (decision, openings) = part_decision(part, counter);
            plant.push(Entry::Decision(Box::new(decision)), openings);
            if part == parts / 2 {
                middle = counter;
            }
        }
        let mut previous: Option<PeriodClose> = None;
        for (first, last) in [(1001, middle), (middle + 1, counter)].into_iter().filter(|(first, last)| first <= last) {
            // The line knows of one part that its camera did not see.
            let close = plant.close(first, last, Some(last - first + 2), previous.as_ref());
            plant.push(Entry::PeriodClose(Box::new(close.clone())), Vec::new());
            previous = Some(close);
        }
        plant
    }

    /// The bytes of the last decision.
    pub(crate) fn last_decision(&self) -> &[u8] {
        let is_decision = |bytes: &&Vec<u8>| matches!(Entry::parse(bytes), Ok(Entry::Decision(_)));
        self.entries.iter().rfind(is_decision).expect("there are parts")
    }

    /// The close of the counters `first..=last` over everything so far.
    pub(crate) fn close(
        &self,
        first: u64,
        last: u64,
        parts: Option<u64>,
        previous: Option<&PeriodClose>,
    ) -> PeriodClose {
        let mut counters = Counters::default();
        let marks = self.entries.iter().filter_map(|bytes| Mark::of(&Entry::parse(bytes).unwrap()));
        marks.for_each(|(_, mark)| counters.add(&mark));
        let announced = Announced {
            first,
            frames_per_part: None,
            from: Some(at(0)),
            last,
            lost: Vec::new(),
            parts,
            period: format!("shift-{}", 1 + u64::from(previous.is_some())).parse().unwrap(),
            restarted: false,
            to: Some(at(last - 1000)),
            unseen: Some(1),
        };
        let balance = counters.balance(&announced);
        PeriodClose {
            announced,
            camera: "cam-1".parse().unwrap(),
            clock: ClockState::Synchronised,
            corrects: None,
            decided: balance.decided,
            end: self.entries.len() as u64,
            gaps: balance.gaps,
            kind: PeriodCloseKind::Kind,
            line: "line-1".parse().unwrap(),
            lost_frames: balance.lost_frames,
            missing: balance.missing,
            missing_frames: balance.missing_frames,
            // The close before stands where the entries that it counts end.
            previous: previous.map(|close| EntryIndex(close.end)),
            private: Commitments::default(),
            since: 0,
            station: "station-1".parse().unwrap(),
            time: at(last - 1000),
            v: ENTRY_VERSION,
        }
    }

    fn push(&mut self, entry: Entry, openings: Vec<Opening>) {
        self.push_bytes(entry.encode().unwrap(), openings);
    }

    pub(crate) fn push_bytes(&mut self, bytes: Vec<u8>, openings: Vec<Opening>) {
        self.leaves.push(leaf_hash(&bytes));
        self.entries.push(bytes);
        self.openings.push(openings);
    }

    pub(crate) fn vkey(&self) -> VerifierKey {
        VerifierKey::log(ORIGIN, self.key.verifying_key())
    }

    pub(crate) fn facts(&self) -> CheckpointFacts {
        let root = self.subtree(0, self.leaves.len());
        CheckpointFacts { origin: ORIGIN.into(), root, size: self.leaves.len() as u64 }
    }

    pub(crate) fn note(&self) -> String {
        let facts = self.facts();
        checkpoint(&facts.origin, facts.size, facts.root, &self.key)
    }

    /// Every decision that `selection` admits, and every other entry.
    pub(crate) fn indexes(&self, selection: &Selection) -> Vec<u64> {
        let admitted = |(at, bytes): &(usize, &Vec<u8>)| {
            let value = |field| {
                self.openings[*at].iter().find(|opening| opening.field == field).map(|opening| opening.value.as_str())
            };
            match Entry::parse(bytes).unwrap() {
                Entry::Decision(decision) => {
                    selection.admits(&decision, value(PrivateField::Serial), value(PrivateField::Lot))
                }
                Entry::Gap(gap) => selection.admits_gap(&gap),
                _ => true,
            }
        };
        self.entries.iter().enumerate().filter(admitted).map(|(at, _)| at as u64).collect()
    }

    pub(crate) fn export(&self, selection: &Selection) -> Result<(Vec<u8>, ExportReport), ExportError> {
        let (key, note) = (self.vkey(), self.note());
        let request = Request {
            selection: selection.clone(),
            note: &note,
            checkpoint: self.facts(),
            key: &key,
            sign: &mut |message, _| Ok(self.key.sign(message).to_bytes()),
        };
        let mut out = Vec::new();
        let report = writer::write(self, self.indexes(selection), request, &mut out, &mut |_| {})?;
        Ok((out, report))
    }

    fn subtree(&self, start: usize, end: usize) -> Sha256Digest {
        if end - start == 1 {
            return self.leaves[start];
        }
        let middle = start + (end - start).next_power_of_two() / 2;
        node_hash(&self.subtree(start, middle), &self.subtree(middle, end))
    }

    fn path(&self, index: usize, start: usize, end: usize) -> Vec<Sha256Digest> {
        if end - start == 1 {
            return Vec::new();
        }
        let middle = start + (end - start).next_power_of_two() / 2;
        let (mut path, sibling) = if index < middle {
            (self.path(index, start, middle), self.subtree(middle, end))
        } else {
            (self.path(index, middle, end), self.subtree(start, middle))
        };
        path.push(sibling);
        path
    }
}

impl Source for Plant {
    fn entries(&self, indexes: &[u64]) -> Result<Vec<Vec<u8>>, SourceError> {
        Ok(indexes.iter().map(|index| self.entries[*index as usize].clone()).collect())
    }

    fn openings(&self, index: u64) -> Result<Vec<Opening>, SourceError> {
        Ok(self.openings[index as usize].clone())
    }

    fn inclusion(&self, index: u64) -> Result<Vec<Sha256Digest>, SourceError> {
        Ok(self.path(index as usize, 0, self.leaves.len()))
    }

    fn recipe(&self, _: Blake3Digest) -> Result<Option<Vec<u8>>, SourceError> {
        Ok(self.with_texts.then(|| recipe_text().into_bytes()))
    }

    fn calibration(&self, _: Blake3Digest) -> Result<Option<Vec<u8>>, SourceError> {
        Ok(self.with_texts.then(|| calibration_text().into_bytes()))
    }

    fn model_card(&self, _: Blake3Digest) -> Result<Option<Vec<u8>>, SourceError> {
        Ok(self.with_texts.then(|| CARD.into()))
    }
}

fn at(second: u64) -> Instant {
    Instant::from_unix_nanos(START_NANOS + second as i64 * 1_000_000_000).unwrap()
}

fn calibration_text() -> String {
    CALIBRATION.replace("MODEL", &Blake3Digest::of(b"model").to_string())
}

fn recipe_text() -> String {
    let calibration = Blake3Digest::of(calibration_text().as_bytes()).to_string();
    RECIPE.replace("MODEL", &Blake3Digest::of(b"model").to_string()).replace("CALIBRATION", &calibration)
}

fn recipe_record() -> crate::core::lineage::entry::RecipeRecord {
    crate::core::lineage::entry::RecipeRecord {
        digest: Blake3Digest::of(recipe_text().as_bytes()),
        name: "machined-surface@1.0.0".parse().unwrap(),
    }
}

fn gap(part: u64, first: u64, last: u64) -> Entry {
    let reason = if part.is_multiple_of(2) { GapReason::Overload } else { GapReason::CounterJump };
    Entry::Gap(Gap {
        camera: "cam-1".parse().unwrap(),
        clock: ClockState::Synchronised,
        count: last - first + 1,
        first: Some(first),
        frame: None,
        kind: GapKind::Kind,
        last: Some(last),
        line: "line-1".parse().unwrap(),
        reason,
        station: "station-1".parse().unwrap(),
        time: at(part * 3),
        v: ENTRY_VERSION,
    })
}

/// A part whose scores follow from its number.
fn part_decision(part: u64, counter: u64) -> (Decision, Vec<Opening>) {
    let noise = |salt: u64| Blake3Digest::of(&(part * 31 + salt).to_le_bytes()).0[0];
    let score = |value: f32| Score::new(value).unwrap();
    let base = |salt| f32::from(noise(salt)) / 1000.0;
    let scratch = match part % 23 {
        7 => 0.62 + base(1),
        11 => 0.31 + base(1) / 2.0,
        _ => base(1),
    };
    let dent = base(2) / 2.0;
    let (label, verdict) = if scratch >= 0.6 {
        ("reject:scratch", Verdict::NotOk)
    } else if scratch >= 0.3 {
        ("review:scratch", Verdict::NotDecidable)
    } else {
        ("", Verdict::Ok)
    };
    let record = |label: &str, score_value: f32, review, reject| LabelRecord {
        at: None,
        boxes: None,
        label: label.into(),
        reject: Some(score(reject)),
        review: Some(score(review)),
        score: score(score_value),
    };
    let open = |field, value: String, salt: u8| {
        let mut bytes = [salt; 16];
        bytes[..8].copy_from_slice(&part.to_le_bytes());
        Opening { field, salt: bytes, value }
    };
    let client = open(PrivateField::Client, "line-pc-1".into(), 3);
    let lot = open(PrivateField::Lot, format!("L-{}", 2200 + part / 500), 1);
    let serial = open(PrivateField::Serial, format!("FL-{:06}", 480_000 + part), 2);
    let decision = Decision {
        calibration: Some(Blake3Digest::of(calibration_text().as_bytes())),
        captured: Some(at(part * 3)),
        image: ImageRecord { encoded: Blake3Digest::of(&part.to_le_bytes()), ..decision(counter).image },
        private: Commitments {
            client: Some(client.commitment()),
            lot: Some(lot.commitment()),
            serial: Some(serial.commitment()),
        },
        reasons: if label.is_empty() { Vec::new() } else { vec![label.into()] },
        recipe: recipe_record(),
        scores: ScoresRecord {
            comparator: ">=".into(),
            decision: score(scratch.max(dent)),
            labels: vec![record("scratch", scratch, 0.3, 0.6), record("dent", dent, 0.25, 0.5)],
        },
        time: at(part * 3),
        verdict,
        ..decision(counter)
    };
    (decision, vec![client, lot, serial])
}
