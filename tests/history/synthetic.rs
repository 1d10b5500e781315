//! A log made of arithmetic: entry `n` is always the same, so a million of them need no fixture. Shared by tests and
//! benches.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use lineproof::{
    core::lineage::{
        entry::{
            Access, AccessEvent, ClockState, Commitments, Decision, ENTRY_VERSION, Entry, FrameRecord, Gap, GapReason,
            ImageRecord, LabelRecord, ModelRecord, QualityRecord, RecipeRecord, RuntimeRecord, ScoresRecord,
        },
        private::{Opening, PrivateField},
    },
    ports::lineage::{LogReader, PrivateRecord, ReadError, SignedCheckpoint},
    types::{Blake3Digest, EntryIndex, FrameId, Instant, Score, Sha256Digest, Verdict},
};

/// The first entry's time, 2026-11-23T00:00:00Z.
pub const START_NANOS: i64 = 1_795_392_000_000_000_000;
/// Four lines with three cameras see 30 frames a second.
const STEP_NANOS: i64 = 33_333_333;

/// A log of which the first `size` entries are published.
pub struct SyntheticLog {
    size: AtomicU64,
    /// Different seeds are different logs.
    seed: u64,
}

impl SyntheticLog {
    pub fn new(seed: u64, size: u64) -> Arc<Self> {
        Arc::new(Self { size: AtomicU64::new(size), seed })
    }

    pub fn grow_to(&self, size: u64) {
        self.size.store(size, Ordering::SeqCst);
    }
}

impl LogReader for SyntheticLog {
    fn checkpoint(&self) -> Result<SignedCheckpoint, ReadError> {
        let size = self.size.load(Ordering::SeqCst);
        Ok(SignedCheckpoint { size, root: Sha256Digest::of(b"not looked at"), note: "not looked at".into() })
    }

    fn entry(&self, index: EntryIndex) -> Result<Vec<u8>, ReadError> {
        let size = self.size.load(Ordering::SeqCst);
        if index.0 >= size {
            return Err(ReadError::NoEntry { index, size });
        }
        Ok(entry(self.seed, index.0).encode().expect("a synthetic entry is short"))
    }

    fn entries(&self, start: EntryIndex, end: EntryIndex) -> Result<Vec<Vec<u8>>, ReadError> {
        let bundle_end = (start.0 / 256 + 1) * 256;
        (start.0..end.0.min(bundle_end)).map(|index| self.entry(EntryIndex(index))).collect()
    }

    fn private(&self, index: EntryIndex) -> Result<PrivateRecord, ReadError> {
        Ok(private(self.seed, index.0))
    }

    fn inclusion_proof(&self, _: EntryIndex, _: u64) -> Result<Vec<Sha256Digest>, ReadError> {
        unimplemented!("searches prove nothing")
    }

    fn consistency_proof(&self, _: u64, _: u64) -> Result<Vec<Sha256Digest>, ReadError> {
        unimplemented!("searches prove nothing")
    }
}

/// SplitMix64: a good number from any number.
fn mix(seed: u64, index: u64) -> u64 {
    let mut x = (seed << 48 ^ index).wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Two neighbouring frames show one part.
pub fn serial(index: u64) -> String {
    format!("SN-{:010}", index / 2)
}

/// A lot has 2,500 parts.
pub fn lot(index: u64) -> String {
    format!("LOT-{:06}", index / 5000)
}

pub fn private(seed: u64, index: u64) -> PrivateRecord {
    if is_gap(index) || is_access(index) {
        return PrivateRecord::default();
    }
    let salt = u128::from(mix(seed, index)).to_le_bytes();
    let openings = vec![
        Opening { field: PrivateField::Lot, salt, value: lot(index) },
        Opening { field: PrivateField::Serial, salt, value: serial(index) },
    ];
    PrivateRecord { openings, image_at: None }
}

pub fn frame_id(index: u64) -> FrameId {
    FrameId::new(format!("frame-{index:012}")).expect("a good frame id")
}

/// Every 509th entry is a gap and every 4,093rd an access; the rest are decisions.
fn is_gap(index: u64) -> bool {
    index % 509 == 508
}

fn is_access(index: u64) -> bool {
    index % 4093 == 4092
}

pub fn entry(seed: u64, index: u64) -> Entry {
    let dice = mix(seed, index);
    let clock = ClockState::Synchronised;
    let v = ENTRY_VERSION;
    // Now and then the clock stands still for a moment.
    let time = START_NANOS + index as i64 * STEP_NANOS - if dice.is_multiple_of(97) { 50_000_000 } else { 0 };
    let time = Instant::from_unix_nanos(time).expect("after 1970");
    let line = 1 + index % 4;
    let camera = 1 + index / 4 % 3;
    let counter = index / 12;
    let name = |what: &str, number: u64| format!("{what}-{number}");
    if is_gap(index) {
        return Entry::Gap(Gap {
            camera: name("cam", camera).parse().expect("a name"),
            clock,
            count: 1,
            first: Some(counter),
            frame: None,
            kind: Default::default(),
            last: Some(counter),
            line: name("line", line).parse().expect("a name"),
            reason: GapReason::CounterJump,
            station: name("station", camera).parse().expect("a name"),
            time,
            v,
        });
    }
    if is_access(index) {
        let index = Some(EntryIndex(index - 1));
        return Entry::Access(Access { index, ..Access::new(AccessEvent::Passport, (time, clock)) });
    }
    let unit = |bits: u64| (bits & 0xff_ffff) as f32 / 16_777_216.0;
    let score = |value: f32| Score::new(value).expect("a finite score");
    let decision = unit(dice).powi(3);
    let verdict = match decision {
        s if s >= 0.6 => Verdict::NotOk,
        s if s >= 0.4 => Verdict::NotDecidable,
        _ => Verdict::Ok,
    };
    // A product is made for a while, then the next.
    let product = index / 40_000 % 5 + index % 2;
    let recipe = format!("machined-surface@1.{}.0", index / 250_000);
    let private = private(seed, index).openings;
    let commitment = |field| private.iter().find(|opening| opening.field == field).map(Opening::commitment);
    Entry::Decision(Box::new(Decision {
        calibration: Some(Blake3Digest::of(b"calibration")),
        camera: name("cam", camera).parse().expect("a name"),
        captured: Some(time),
        clock,
        frame: FrameRecord { counter, id: frame_id(index), trigger: Some(counter) },
        image: ImageRecord {
            archive: if verdict == Verdict::Ok { "none:not sampled".into() } else { "not_ok".into() },
            bytes: 262_144,
            encoded: Blake3Digest::of(&index.to_le_bytes()),
            format: "jpeg".into(),
            height: 1024,
            pfnc: "0x01080001".into(),
            pixels: Blake3Digest::of(&dice.to_le_bytes()),
            width: 1280,
        },
        kind: Default::default(),
        line: name("line", line).parse().expect("a name"),
        model: ModelRecord { digest: Blake3Digest::of(b"model"), version: "1.0.0".into() },
        private: Commitments {
            client: None,
            lot: commitment(PrivateField::Lot),
            serial: commitment(PrivateField::Serial),
        },
        product: name("product", product).parse().expect("a name"),
        quality: QualityRecord { focus: score(0.01), mean: score(0.5), saturated: score(0.0) },
        reasons: if verdict == Verdict::Ok { vec![] } else { vec!["reject:scratch".into()] },
        recipe: RecipeRecord { digest: Blake3Digest::of(recipe.as_bytes()), name: recipe.parse().expect("a recipe") },
        runtime: RuntimeRecord {
            batch: 1,
            cpu: "avx2,fma".into(),
            optimisation: "all".into(),
            provider: "cpu".into(),
            threads: 1,
            version: "1.32.0".into(),
        },
        scores: ScoresRecord {
            comparator: ">=".into(),
            decision: score(decision),
            labels: vec![LabelRecord {
                at: None,
                boxes: None,
                label: "scratch".into(),
                reject: Some(score(0.6)),
                review: Some(score(0.4)),
                score: score(decision),
            }],
        },
        software: "lineproof 0.1.0".into(),
        station: name("station", camera).parse().expect("a name"),
        time,
        v,
        verdict,
    }))
}
