//! Proofs over a log of ten million entries: `cargo bench --bench proofs`, `-- --entries 1000000` makes it smaller.
//!
//! The log is filled by the real store and read by the real reader, without the search index, which proofs do not ask and
//! which takes most of the time that filling takes. Ten million entries need some 10 GB of disk.

mod measure;
#[path = "../tests/history/synthetic.rs"]
#[allow(dead_code)]
mod synthetic;

use std::{
    fs::{self, File},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use lineproof::{
    adapters::{
        archive::PackArchive,
        keys::Keys,
        log::{LogConfig, LogStore},
    },
    core::lineage::tree::{leaf_hash, verify_consistency, verify_inclusion},
    ports::{
        archive::ImageArchive,
        index::{FrameIndex, IndexError},
        lineage::{Append, Appended, LogReader, LogWriter as _, PrivateRecord},
    },
    types::EntryIndex,
};
use measure::{ms, percentile, verdict};
use rayon::prelude::*;
use serde_json::json;

const SEED: u64 = 1;
/// Entries made at a time, on all cores, before they are appended.
const CHUNK: u64 = 16_384;
const PROOFS: u64 = 500;
const PROOF_MAX: Duration = Duration::from_millis(50);

/// Every frame is new.
struct NothingIndexed;

impl FrameIndex for NothingIndexed {
    fn indexed_to(&self) -> EntryIndex {
        EntryIndex(u64::MAX)
    }

    fn find_frame(&self, _key: [u8; 16]) -> Result<Option<EntryIndex>, IndexError> {
        Ok(None)
    }
}

fn main() {
    let entries = measure::argument("--entries", 10_000_000);
    let folder = measure::folder();
    let data = folder.path().join("data");
    fs::create_dir_all(data.join("keys")).expect("a folder");
    let keys = Keys::create(&data.join("keys"), "bench.example/log").expect("keys");
    let archive: Arc<dyn ImageArchive> =
        Arc::new(PackArchive::open(data.join("images"), keys.image_sealer()).expect("an archive"));
    let signer = Arc::new(keys.log_signer());
    let sealer = keys.private_sealer();
    let (log, reader, _) =
        LogStore::open(LogConfig::new(&data), signer, sealer, archive, Arc::new(NothingIndexed)).expect("a log");

    let started = Instant::now();
    let written = Arc::new(AtomicU64::new(0));
    for start in (0..entries).step_by(CHUNK as usize) {
        let chunk: Vec<Append> = (start..entries.min(start + CHUNK)).into_par_iter().map(append).collect();
        for append in chunk {
            let written = written.clone();
            log.submit(
                append,
                Box::new(move |outcome| {
                    assert!(matches!(outcome, Ok(Appended::Written(_))), "{outcome:?}");
                    written.fetch_add(1, Ordering::Relaxed);
                }),
            );
        }
    }
    while written.load(Ordering::Relaxed) < entries {
        assert!(started.elapsed() < Duration::from_secs(3600), "not every append was answered");
        std::thread::sleep(Duration::from_millis(5));
    }
    let took = started.elapsed();
    // What was still in the queue when a checkpoint began is in the next one only.
    while reader.checkpoint().expect("a checkpoint").size < entries {
        log.checkpoint_now().expect("a checkpoint");
    }
    println!(
        "filled: {entries} entries in {took:.1?}, {:.0} durable entries/s without an index",
        entries as f64 / took.as_secs_f64()
    );
    for cold in [false, true] {
        measure_proofs(&reader, &data, entries, cold);
    }
    log.shutdown();
}

fn append(index: u64) -> Append {
    let entry = synthetic::entry(SEED, index).encode().expect("a short entry");
    Append { entry, private: PrivateRecord::default(), frame: None }
}

/// Consistency from random earlier sizes and inclusion of random entries, each proof checked. Cold: the pages of the log's
/// files were dropped from the operating system's cache before.
fn measure_proofs(reader: &impl LogReader, data: &Path, entries: u64, cold: bool) {
    let checkpoint = reader.checkpoint().expect("a checkpoint");
    assert_eq!(checkpoint.size, entries);
    let (mut consistency, mut inclusion, mut hashes) = (Vec::new(), Vec::new(), 0);
    for turn in 1..=PROOFS {
        if cold {
            drop_pages(&data.join("log"));
        }
        let old = 1 + turn.wrapping_mul(0x9E37_79B9_7F4A_7C15) % (entries - 1);
        let started = Instant::now();
        let proof = reader.consistency_proof(old, entries).expect("a proof");
        consistency.push(started.elapsed());
        hashes = hashes.max(proof.len());
        // The old root from the log itself: a proof is worth what it leads to.
        if turn % 50 == 0 {
            let old_root = root_of(reader, old);
            verify_consistency(old, &old_root, entries, &checkpoint.root, &proof).expect("a proof that holds");
        }
        let started = Instant::now();
        let path = reader.inclusion_proof(EntryIndex(old), entries).expect("a proof");
        let entry = reader.entry(EntryIndex(old)).expect("an entry");
        inclusion.push(started.elapsed());
        verify_inclusion(old, entries, &leaf_hash(&entry), &path, &checkpoint.root).expect("a proof that holds");
        if cold && turn == PROOFS / 5 {
            break;
        }
    }
    let state = if cold { "cold" } else { "warm" };
    for (name, times) in [("consistency proof", &consistency), ("entry with its inclusion proof", &inclusion)] {
        let (p50, p99) = (percentile(times, 0.5), percentile(times, 0.99));
        let is_met = p99 < PROOF_MAX;
        println!(
            "{name}, {state}: p50 {:.2} ms, p99 {:.2} ms, target {PROOF_MAX:?}: {}",
            ms(p50),
            ms(p99),
            verdict(is_met)
        );
        measure::result(
            "proofs",
            json!({
                "case": name, "state": state, "entries": entries, "p50_ms": ms(p50), "p99_ms": ms(p99), "target_ms": 50,
                "met": is_met,
            }),
        );
    }
    println!("hashes of a consistency proof: at most {hashes}");
}

/// The root of the first `size` entries, from the proof that all of them lead to it.
fn root_of(reader: &impl LogReader, size: u64) -> lineproof::types::Sha256Digest {
    let path = reader.inclusion_proof(EntryIndex(size - 1), size).expect("a proof");
    let leaf = leaf_hash(&reader.entry(EntryIndex(size - 1)).expect("an entry"));
    lineproof::core::lineage::tree::root_by_inclusion(size - 1, size, &leaf, &path).expect("a path of the right length")
}

fn drop_pages(folder: &Path) {
    for item in fs::read_dir(folder).expect("a folder") {
        let path = item.expect("an item").path();
        if path.is_dir() {
            drop_pages(&path);
        } else if let Ok(file) = File::open(&path) {
            let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
        }
    }
}
