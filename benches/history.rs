//! Searching one million decisions: `cargo bench --bench history`. `-- --entries 200000` makes it shorter.
//!
//! The log is on disk in bundles of 256 entries as tlog-tiles has them, 1.3 GB for a million; what it says is
//! synthetic. Printed: the time of a full reindex, index bytes per decision after it and after growing in small steps,
//! and the latency of a page of 50 rows, entries read and parsed, per kind of filter. "cold" opens the index anew,
//! with its own caches empty, for every page; the operating system's cache stays.

#[path = "../tests/history/synthetic.rs"]
#[allow(dead_code)]
mod synthetic;

use std::{
    fs,
    io::Write as _,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use lineproof::{
    adapters::sled_index::SledIndex,
    core::lineage::entry::Entry,
    ports::{
        index::{Bucket, CountBy, EntryKind, Filter, FrameIndex as _, GroupBy, Order, RecipeFilter},
        lineage::{LogReader, PrivateRecord, ReadError, SignedCheckpoint},
    },
    services::history::{HistoryService, Indexer, ListRequest},
    types::{EntryIndex, Score, Sha256Digest, Verdict},
};
use rayon::prelude::*;

const SEED: u64 = 1;
const KEY: [u8; 32] = [7; 32];
const PAGES_PER_FILTER: u64 = 300;
const COLD_PAGES_PER_FILTER: u64 = 15;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let entries = arguments.iter().position(|argument| argument == "--entries").map_or(1_000_000, |at| {
        arguments.get(at + 1).and_then(|count| count.parse().ok()).expect("--entries takes a number")
    });
    let dir = tempfile::TempDir::new_in("target").expect("a folder for the log");
    let started = Instant::now();
    let log = Arc::new(BundleLog::write(&dir.path().join("log"), entries));
    println!("log: {entries} entries of {} bytes, written in {:.1?}", log.bytes / entries, started.elapsed());

    let path = dir.path().join("index");
    let cpu = cpu_time();
    let took = reindex(&log, &path);
    println!("reindex: {took:.1?}, {:.1?} of processor time", cpu_time() - cpu);
    println!("index after reindex: {} bytes per decision", folder_bytes(&path) / entries);
    let grown = dir.path().join("grown");
    println!("growing by 100 entries at a time, reopened every 50,000: {:.1?}", grow(&log, &grown, entries));
    println!("index after growing: {} bytes per decision", folder_bytes(&grown) / entries);

    let started = Instant::now();
    let (service, index) = open(&log, &path);
    println!("open and read the unsealed rest: {:.1?}", started.elapsed());
    find_frames(&index, entries);
    println!("{:<34} {:>10} {:>10} {:>10}", "page of 50 rows", "p50", "p99", "cold max");
    let mut pages = Vec::new();
    for (name, filter) in filters(entries) {
        pages.push((name, latencies(PAGES_PER_FILTER, |turn| page(&service, &filter(turn), turn))));
    }
    count(&service);
    let started = Instant::now();
    let selected = service.select(&Filter::default(), entries).expect("everything is indexed").count();
    println!("select for an export: {selected} entries in {:.2?}", started.elapsed());
    // The database is locked while it is open.
    drop((service, index));
    for ((name, warm), (_, filter)) in pages.into_iter().zip(filters(entries)) {
        let cold = latencies(COLD_PAGES_PER_FILTER, |turn| cold_page(&log, &path, &filter(turn * 7), turn));
        let cold = cold.last().expect("some cold pages");
        println!("{name:<34} {:>10.2?} {:>10.2?} {cold:>10.2?}", warm[warm.len() / 2], warm[warm.len() * 99 / 100]);
    }
}

/// User and system time of this process so far: what a busy machine does not change.
fn cpu_time() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").expect("Linux tells");
    let fields: Vec<u64> = stat[stat.rfind(')').expect("a name in brackets") + 1..]
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|field| field.parse().expect("ticks"))
        .collect();
    // A tick is 10 ms on every Linux we know.
    Duration::from_millis(fields.iter().sum::<u64>() * 10)
}

fn reindex(log: &Arc<BundleLog>, path: &Path) -> Duration {
    let started = Instant::now();
    let (index, _) = SledIndex::open(path, KEY).expect("an empty index");
    Indexer::new(log.clone(), Arc::new(index)).catch_up(|_| {}).expect("a readable log");
    started.elapsed()
}

/// As in service: small batches, and a restart now and then.
fn grow(log: &Arc<BundleLog>, path: &Path, entries: u64) -> Duration {
    let started = Instant::now();
    for until in (50_000..=entries).step_by(50_000) {
        let (index, _) = SledIndex::open(path, KEY).expect("an index");
        let index = Arc::new(index);
        let indexer = Indexer::new(log.clone(), index.clone());
        for size in (index.indexed_to().0 + 1..=until).step_by(100) {
            log.size.store(size, Ordering::SeqCst);
            indexer.catch_up(|_| {}).expect("a readable log");
        }
    }
    log.size.store(entries, Ordering::SeqCst);
    started.elapsed()
}

fn open(log: &Arc<BundleLog>, path: &Path) -> (HistoryService, Arc<SledIndex>) {
    let (index, _) = SledIndex::open(path, KEY).expect("the index");
    let index = Arc::new(index);
    Indexer::new(log.clone(), index.clone()).catch_up(|_| {}).expect("a readable log");
    (HistoryService::new(log.clone(), index.clone()), index)
}

fn page(service: &HistoryService, filter: &Filter, turn: u64) -> Duration {
    let order = if turn.is_multiple_of(2) { Order::NewestFirst } else { Order::OldestFirst };
    let request = ListRequest { filter: filter.clone(), order, page_rows: 50, ..ListRequest::default() };
    let started = Instant::now();
    std::hint::black_box(service.list(&request).expect("a page"));
    started.elapsed()
}

/// The first page after opening the index, without the opening.
fn cold_page(log: &Arc<BundleLog>, path: &Path, filter: &Filter, turn: u64) -> Duration {
    let (index, _) = SledIndex::open(path, KEY).expect("the index");
    // Only what is sealed, or reading the rest of the log would warm what is measured.
    log.size.store(index.indexed_to().0, Ordering::SeqCst);
    page(&HistoryService::new(log.clone(), Arc::new(index)), filter, turn)
}

fn find_frames(index: &SledIndex, entries: u64) {
    let known = latencies(20_000, |turn| {
        let entry = synthetic::entry(SEED, turn * 7919 % entries);
        let Entry::Decision(decision) = entry else { return Duration::ZERO };
        let key = decision.frame_key().hash16();
        let started = Instant::now();
        assert!(index.find_frame(key).expect("a readable index").is_some());
        started.elapsed()
    });
    let unknown = latencies(20_000, |turn| {
        let key = *blake3::hash(&turn.to_le_bytes()).as_bytes().first_chunk().expect("16 of 32 bytes");
        let started = Instant::now();
        assert!(index.find_frame(key).expect("a readable index").is_none());
        started.elapsed()
    });
    for (name, times) in [("known", known), ("unknown", unknown)] {
        println!("find a frame, {name}: p50 {:.2?}, p99 {:.2?}", times[times.len() / 2], times[times.len() * 99 / 100]);
    }
}

fn count(service: &HistoryService) {
    let count = |name: &str, bucket, group| {
        let started = Instant::now();
        match service.count(&Filter::default(), CountBy { bucket, group }) {
            Ok(cells) => println!("count by {name}: {} cells in {:.2?}", cells.len(), started.elapsed()),
            Err(error) => println!("count by {name}: {error}, after {:.2?}", started.elapsed()),
        }
    };
    count("nothing", None, None);
    count("hour", Some(Bucket::HOUR), None);
    count("minute", Some(Bucket::MINUTE), None);
    count("minute and line", Some(Bucket::MINUTE), Some(GroupBy::Line));
    count("hour and product", Some(Bucket::HOUR), Some(GroupBy::Product));
    count("5 seconds", Some(Bucket { width_nanos: 5_000_000_000, ..Bucket::MINUTE }), None);
}

fn latencies(count: u64, measure: impl FnMut(u64) -> Duration) -> Vec<Duration> {
    let mut times: Vec<Duration> = (0..count).map(measure).collect();
    times.sort_unstable();
    times
}

type MakeFilter = Box<dyn Fn(u64) -> Filter>;

fn filters(entries: u64) -> Vec<(&'static str, MakeFilter)> {
    let somewhere = move |turn: u64| turn * 104_729 % entries;
    let at = move |turn: u64| synthetic::entry(SEED, somewhere(turn)).time().expect("every entry has a time");
    let later = |time: lineproof::types::Instant, seconds: i64| {
        lineproof::types::Instant::from_unix_nanos(time.unix_nanos() + seconds * 1_000_000_000).ok()
    };
    let score = |value: f32| Score::new(value).ok();
    let any = Filter::default;
    let name = |what: &str, n: u64| format!("{what}-{n}");
    vec![
        ("everything", Box::new(move |_| any())),
        ("time: from", Box::new(move |turn| Filter { from: Some(at(turn)), ..any() })),
        ("time: one minute", Box::new(move |turn| Filter { from: Some(at(turn)), to: later(at(turn), 60), ..any() })),
        ("line", Box::new(move |turn| Filter { line: name("line", 1 + turn % 4).parse().ok(), ..any() })),
        ("station", Box::new(move |turn| Filter { station: name("station", 1 + turn % 3).parse().ok(), ..any() })),
        ("camera", Box::new(move |turn| Filter { camera: name("cam", 1 + turn % 3).parse().ok(), ..any() })),
        ("product", Box::new(move |turn| Filter { product: name("product", turn % 6).parse().ok(), ..any() })),
        ("serial", Box::new(move |turn| Filter { serial: synthetic::serial(somewhere(turn)).parse().ok(), ..any() })),
        ("unknown serial", Box::new(move |turn| Filter { serial: name("none", turn).parse().ok(), ..any() })),
        ("lot", Box::new(move |turn| Filter { lot: synthetic::lot(somewhere(turn)).parse().ok(), ..any() })),
        ("verdict NOT_OK", Box::new(move |_| Filter { verdicts: vec![Verdict::NotOk], ..any() })),
        (
            "recipe",
            Box::new(move |turn| {
                let recipe = format!("machined-surface@1.{}.0", turn % 4).parse().map(RecipeFilter::Name).ok();
                Filter { recipe, ..any() }
            }),
        ),
        ("score: top", Box::new(move |_| Filter { score_min: score(0.999_9), ..any() })),
        (
            "score: narrow",
            Box::new(move |turn| {
                let low = 0.2 + turn as f32 * 0.001;
                Filter { score_min: score(low), score_max: score(low + 0.000_01), ..any() }
            }),
        ),
        (
            "score: wide, product, before",
            Box::new(move |turn| Filter {
                score_min: score(0.01),
                score_max: score(0.9),
                product: name("product", turn % 6).parse().ok(),
                to: Some(at(turn)),
                ..any()
            }),
        ),
        (
            "line, camera, verdict, score, time",
            Box::new(move |turn| Filter {
                line: name("line", 1 + turn % 4).parse().ok(),
                camera: name("cam", 1 + turn % 3).parse().ok(),
                verdicts: vec![Verdict::NotOk, Verdict::NotDecidable],
                score_max: score(0.5),
                from: Some(at(turn)),
                ..any()
            }),
        ),
        (
            "no match, everything looked at",
            Box::new(move |_| Filter {
                score_min: score(0.3),
                score_max: score(0.599),
                verdicts: vec![Verdict::NotOk],
                ..any()
            }),
        ),
        (
            "gaps",
            Box::new(move |turn| Filter {
                kinds: vec![EntryKind::Gap],
                line: name("line", 1 + turn % 4).parse().ok(),
                ..any()
            }),
        ),
    ]
}

/// Blocks really taken, so a sparse file is no cheat.
fn folder_bytes(path: &Path) -> u64 {
    let files = fs::read_dir(path).expect("a folder").map(|file| file.expect("a file").path());
    files
        .map(
            |path| {
                if path.is_dir() {
                    folder_bytes(&path)
                } else {
                    fs::metadata(path).map_or(0, |meta| meta.blocks() * 512)
                }
            },
        )
        .sum()
}

/// Bundles of 256 entries, each entry after its length in two bytes, as tlog-tiles has them; private values are made
/// up when asked for.
struct BundleLog {
    path: PathBuf,
    size: AtomicU64,
    bytes: u64,
}

impl BundleLog {
    fn write(path: &Path, entries: u64) -> Self {
        fs::create_dir_all(path).expect("a folder");
        let write = |bundle: u64| {
            let mut bytes = Vec::new();
            for index in bundle * 256..entries.min((bundle + 1) * 256) {
                let entry = synthetic::entry(SEED, index).encode().expect("a short entry");
                bytes.extend_from_slice(&(entry.len() as u16).to_be_bytes());
                bytes.extend_from_slice(&entry);
            }
            let mut file = fs::File::create(path.join(bundle.to_string())).expect("a bundle");
            file.write_all(&bytes).expect("room on the disk");
            bytes.len() as u64
        };
        let bytes = (0..entries.div_ceil(256)).into_par_iter().map(write).sum();
        Self { path: path.to_owned(), size: AtomicU64::new(entries), bytes }
    }

    fn bundle(&self, bundle: u64) -> Vec<u8> {
        let file = fs::File::open(self.path.join(bundle.to_string())).expect("a bundle");
        let mut bytes = vec![0; file.metadata().expect("a length").len() as usize];
        file.read_exact_at(&mut bytes, 0).expect("a whole bundle");
        bytes
    }
}

fn split(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (len, rest) = bytes.split_first_chunk::<2>()?;
        let (entry, rest) = rest.split_at(usize::from(u16::from_be_bytes(*len)));
        bytes = rest;
        Some(entry)
    })
}

impl LogReader for BundleLog {
    fn checkpoint(&self) -> Result<SignedCheckpoint, ReadError> {
        let size = self.size.load(Ordering::SeqCst);
        Ok(SignedCheckpoint { size, root: Sha256Digest::of(b"not looked at"), note: "not looked at".into() })
    }

    fn entry(&self, index: EntryIndex) -> Result<Vec<u8>, ReadError> {
        let bundle = self.bundle(index.0 / 256);
        Ok(split(&bundle).nth((index.0 % 256) as usize).expect("an entry of the bundle").to_vec())
    }

    fn entries(&self, start: EntryIndex, end: EntryIndex) -> Result<Vec<Vec<u8>>, ReadError> {
        let bundle = self.bundle(start.0 / 256);
        let count = (end.0 - start.0) as usize;
        Ok(split(&bundle).skip((start.0 % 256) as usize).take(count).map(<[u8]>::to_vec).collect())
    }

    fn private(&self, index: EntryIndex) -> Result<PrivateRecord, ReadError> {
        Ok(synthetic::private(SEED, index.0))
    }

    fn inclusion_proof(&self, _: EntryIndex, _: u64) -> Result<Vec<Sha256Digest>, ReadError> {
        unimplemented!("searches prove nothing")
    }

    fn consistency_proof(&self, _: u64, _: u64) -> Result<Vec<Sha256Digest>, ReadError> {
        unimplemented!("searches prove nothing")
    }
}
