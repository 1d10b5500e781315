//! How long an export of 10,000 decisions takes, and how many entries a second verification checks.
//!
//! `cargo bench --no-default-features --bench audit` (arguments: decisions, entries in the log)

use std::time::Instant as Stopwatch;

use ed25519_dalek::{Signer as _, SigningKey};
use lineproof::{
    core::{
        export::{
            SOFTWARE,
            keys::{Keys, VerifierKey},
            manifest::{CheckpointFacts, Selection},
            verify::{LogFiles, verify_export, verify_log},
            writer::{self, Request, Source, SourceError},
        },
        lineage::{
            checkpoint::{Checkpoint, LogSigner},
            entry::{
                ClockState, Commitments, Decision, DecisionKind, ENTRY_VERSION, Entry, FrameRecord, ImageRecord,
                LabelRecord, ModelRecord, QualityRecord, RecipeRecord, RuntimeRecord, ScoresRecord,
            },
            private::{Opening, PrivateField},
            tiles::{self, RightEdge, Tile, TileKind},
            tree::{self, HashReader, leaf_hash, node_hash},
        },
    },
    types::{Blake3Digest, Instant, Score, Sha256Digest, Verdict},
};

const ORIGIN: &str = "plant.example/line-log";
const START_NANOS: i64 = 1_795_413_600_000_000_000;
const SECRET: [u8; 32] = [42; 32];

fn main() {
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse::<usize>().ok());
    let wanted = numbers.next().unwrap_or(10_000);
    let size = numbers.next().unwrap_or(100_000).max(wanted);
    let plant = Plant::new(size);
    let signer = LogSigner::new(ORIGIN, &SECRET).expect("the name is a key name");
    let checkpoint = Checkpoint::new(ORIGIN, size as u64, plant.root());
    let note = signer.sign(&checkpoint);
    let key = VerifierKey::log(ORIGIN, SigningKey::from_bytes(&SECRET).verifying_key());
    let keys: Keys = key.clone().into();
    println!("log of {size} entries, {} bytes each on average", plant.bytes() / size);

    for (what, indexes) in [
        ("in a row", (size - wanted..size).map(|index| index as u64).collect::<Vec<u64>>()),
        ("spread over the log", (0..wanted).map(|at| (at * size / wanted) as u64).collect()),
    ] {
        let (zip, seconds) = best(3, || plant.export(indexes.clone(), &checkpoint, &note, &key));
        println!("export of {wanted} decisions {what}: {seconds:.2} s, {:.1} MB", zip.len() as f64 / 1e6);
        let (findings, seconds) = best(5, || verify_export(&zip, &keys));
        assert!(findings.is_good(), "{:?}", findings.problem);
        println!("verification of it: {seconds:.3} s, {:.0} entries/s", wanted as f64 / seconds);
        // For the other verifiers, which are timed by hand.
        if let Ok(folder) = std::env::var("LINEPROOF_KEEP") {
            std::fs::write(format!("{folder}/export.zip"), &zip).expect("the folder takes files");
            std::fs::write(format!("{folder}/log.vkey"), key.line() + "\n").expect("the folder takes files");
        }
    }
    let files = plant.files(&note);
    let (findings, seconds) = best(3, || verify_log(&files, &keys, &mut |_, _| {}));
    assert!(findings.is_good(), "{:?}", findings.problem);
    println!("verification of the whole log of {size}: {seconds:.3} s, {:.0} entries/s", size as f64 / seconds);
}

/// The shortest of several runs, which is the one least disturbed by others on the machine.
fn best<T>(runs: usize, mut run: impl FnMut() -> T) -> (T, f64) {
    let mut shortest: Option<(T, f64)> = None;
    for _ in 0..runs {
        let start = Stopwatch::now();
        let value = run();
        let seconds = start.elapsed().as_secs_f64();
        if shortest.as_ref().is_none_or(|(_, best)| seconds < *best) {
            shortest = Some((value, seconds));
        }
    }
    shortest.expect("there is at least one run")
}

struct Plant {
    entries: Vec<Vec<u8>>,
    openings: Vec<Vec<Opening>>,
    /// Hashes of complete subtrees, by level.
    levels: Vec<Vec<Sha256Digest>>,
}

impl HashReader for Plant {
    type Error = SourceError;

    fn hash(&self, level: u32, index: u64) -> Result<Sha256Digest, SourceError> {
        Ok(self.levels[level as usize][index as usize])
    }
}

impl Plant {
    fn new(size: usize) -> Self {
        let (mut entries, mut openings) = (Vec::new(), Vec::new());
        for part in 0..size {
            let (decision, opened) = decision(part as u64);
            entries.push(Entry::Decision(Box::new(decision)).encode().expect("the decision is short"));
            openings.push(opened);
        }
        let mut levels = vec![entries.iter().map(|entry| leaf_hash(entry)).collect::<Vec<_>>()];
        while levels.last().is_some_and(|level| level.len() > 1) {
            let level = levels.last().expect("checked just above");
            levels.push(level.as_chunks::<2>().0.iter().map(|[left, right]| node_hash(left, right)).collect());
        }
        Self { entries, openings, levels }
    }

    fn root(&self) -> Sha256Digest {
        tree::root(self.entries.len() as u64, self).expect("memory does not fail")
    }

    fn bytes(&self) -> usize {
        self.entries.iter().map(Vec::len).sum()
    }

    fn export(&self, indexes: Vec<u64>, checkpoint: &Checkpoint, note: &str, key: &VerifierKey) -> Vec<u8> {
        let signing = SigningKey::from_bytes(&SECRET);
        let request = Request {
            selection: Selection::default(),
            note,
            checkpoint: CheckpointFacts {
                origin: checkpoint.origin.clone(),
                root: checkpoint.root,
                size: checkpoint.size,
            },
            key,
            sign: &mut |message, _| Ok(signing.sign(message).to_bytes()),
        };
        let mut out = Vec::new();
        writer::write(self, indexes, request, &mut out, &mut |_| {}).expect("the log is sound");
        out
    }

    fn files(&self, note: &str) -> Files {
        let mut files = Files::from([("checkpoint".to_owned(), note.as_bytes().to_vec())]);
        let mut edge = RightEdge::default();
        for entry in &self.entries {
            edge.push(leaf_hash(entry), |tile, hashes| {
                files.insert(tile.path(), tiles::encode_hash_tile(&hashes));
            });
        }
        for (tile, hashes) in edge.partials() {
            files.insert(tile.path(), tiles::encode_hash_tile(hashes));
        }
        for (index, bundle) in self.entries.chunks(256).enumerate() {
            let tile = Tile::in_log(TileKind::Entries, index as u64, self.entries.len() as u64);
            let bytes = tiles::encode_bundle(bundle).expect("bundles have 256 short entries");
            files.insert(tile.expect("the bundle is in the log").path(), bytes);
        }
        files
    }
}

/// Files in memory, so that the disk is not what is measured.
type FileMap = std::collections::HashMap<String, Vec<u8>>;

struct Files(FileMap);

impl Files {
    fn from(files: [(String, Vec<u8>); 1]) -> Self {
        Self(files.into())
    }

    fn insert(&mut self, path: String, bytes: Vec<u8>) {
        self.0.insert(path, bytes);
    }
}

impl LogFiles for Files {
    fn read(&self, path: &str, _: u64) -> std::io::Result<Option<Vec<u8>>> {
        Ok(self.0.get(path).cloned())
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
        tree::inclusion_proof(index, self.entries.len() as u64, self)
    }

    fn recipe(&self, _: Blake3Digest) -> Result<Option<Vec<u8>>, SourceError> {
        Ok(None)
    }

    fn calibration(&self, _: Blake3Digest) -> Result<Option<Vec<u8>>, SourceError> {
        Ok(None)
    }

    fn model_card(&self, _: Blake3Digest) -> Result<Option<Vec<u8>>, SourceError> {
        Ok(None)
    }
}

/// A decision of four labels, 1.3 in 100 of them rejected.
fn decision(part: u64) -> (Decision, Vec<Opening>) {
    let noise = Blake3Digest::of(&part.to_le_bytes());
    let score = |value: f32| Score::new(value).expect("the value is finite");
    let time =
        |nanos: i64| Instant::from_unix_nanos(START_NANOS + part as i64 * 50_000_000 + nanos).expect("after 1970");
    let open = |field, value: String| {
        let mut salt = [0; 16];
        salt.copy_from_slice(&noise.0[8..24]);
        salt[0] = field as u8;
        Opening { field, salt, value }
    };
    let openings = vec![
        open(PrivateField::Client, "line-pc-1".into()),
        open(PrivateField::Lot, format!("L-{}", part / 500)),
        open(PrivateField::Serial, format!("FL-{part:08}")),
    ];
    let rejected = part % 75 == 3;
    let labels: Vec<LabelRecord> = ["scratch", "dent", "pit", "stain"]
        .iter()
        .enumerate()
        .map(|(at, label)| LabelRecord {
            at: None,
            boxes: None,
            label: (*label).into(),
            reject: Some(score(0.6)),
            review: Some(score(0.3)),
            score: score(if rejected && at == 0 { 0.7 } else { f32::from(noise.0[at]) / 1000.0 }),
        })
        .collect();
    let largest = labels.iter().map(|label| label.score).max().expect("there are four labels");
    let decision = Decision {
        calibration: Some(Blake3Digest::of(b"calibration")),
        camera: "cam-1".parse().expect("a name"),
        captured: Some(time(0)),
        clock: ClockState::Synchronised,
        frame: FrameRecord { counter: part, id: format!("f{part}").parse().expect("a name"), trigger: Some(part) },
        image: ImageRecord {
            archive: if rejected { "not_ok" } else { "none:not_sampled" }.into(),
            bytes: 262_144,
            encoded: noise,
            format: "jpeg".into(),
            height: 1024,
            pfnc: "0x01080001".into(),
            pixels: Blake3Digest::of(&noise.0),
            width: 1280,
        },
        kind: DecisionKind::Kind,
        line: "line-1".parse().expect("a name"),
        model: ModelRecord { digest: Blake3Digest::of(b"model"), version: "1.0.0".into() },
        private: Commitments {
            client: Some(openings[0].commitment()),
            lot: Some(openings[1].commitment()),
            serial: Some(openings[2].commitment()),
        },
        product: "flange".parse().expect("a name"),
        quality: QualityRecord { focus: score(0.0123), mean: score(0.4821), saturated: score(0.0) },
        reasons: if rejected { vec!["reject:scratch".into()] } else { Vec::new() },
        recipe: RecipeRecord {
            digest: Blake3Digest::of(b"recipe"),
            name: "machined-surface@1.0.0".parse().expect("a name"),
        },
        runtime: RuntimeRecord {
            batch: 1,
            cpu: "avx2,avx512f,fma".into(),
            optimisation: "all".into(),
            provider: "cpu".into(),
            threads: 1,
            version: "1.32.0".into(),
        },
        scores: ScoresRecord { comparator: ">=".into(), decision: largest, labels },
        software: SOFTWARE.into(),
        station: "station-1".parse().expect("a name"),
        time: time(20_000_000),
        v: ENTRY_VERSION,
        verdict: if rejected { Verdict::NotOk } else { Verdict::Ok },
    };
    (decision, openings)
}
