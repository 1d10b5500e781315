//! Searching one million decisions: `cargo bench --bench history`. `-- --entries 200000` makes it shorter.
//!
//! The log, the private values and the index are the real ones; what they say is synthetic. Printed: bytes per decision
//! of each part, the time of a restart and of a full reindex, and the latency of a page of 50 rows, entries read,
//! parsed and private values opened, per kind of filter. "cold" opens the index anew, with its own caches empty, for every page; the log's and the
//! operating system's caches stay.

#[path = "../tests/history/synthetic.rs"]
#[allow(dead_code)]
mod synthetic;

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use lineproof::{
    adapters::{
        archive::PackArchive,
        keys::Keys,
        log::{LogConfig, LogHandle, LogStore, LogStoreReader},
        sled_index::SledIndex,
    },
    app::reindex::reindex,
    core::lineage::entry::Entry,
    ports::{
        index::{Bucket, CountBy, EntryKind, Filter, FrameIndex as _, GroupBy, Order, RecipeFilter},
        lineage::{Append, FrameClaim, LogWriter as _},
    },
    services::history::{HistoryService, Indexer, ListRequest},
    types::{Score, Verdict},
};

const SEED: u64 = 1;
const PAGES_PER_FILTER: u64 = 300;
const COLD_PAGES_PER_FILTER: u64 = 15;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let entries = arguments.iter().position(|argument| argument == "--entries").map_or(1_000_000, |at| {
        arguments.get(at + 1).and_then(|count| count.parse().ok()).expect("--entries takes a number")
    });
    let dir = tempfile::TempDir::new_in("target").expect("a folder for the log");
    let plant = Plant { keys: Keys::create(&dir.path().join("keys"), "bench.example/log").expect("new keys"), dir };

    let (log, reader, index) = plant.open();
    let following = Indexer::new(reader.clone(), index.clone()).spawn();
    let started = Instant::now();
    append(&log, entries);
    log.checkpoint_now().expect("a serving log");
    println!("append {entries} decisions, followed by the index: {:.1?}", started.elapsed());
    drop(following);
    Indexer::new(reader.clone(), index.clone()).catch_up(|_| {}).expect("a readable log");
    log.shutdown();
    drop((log, reader, index));
    let parts = ["log", "private", "wal", "index"].map(|part| (part, folder_bytes(&plant.data().join(part))));
    let all: u64 = parts.iter().map(|(_, bytes)| bytes).sum();
    let per_decision = parts.map(|(part, bytes)| format!("{part} {}", bytes / entries)).join(", ");
    println!("bytes per decision: {per_decision}, together {}", all / entries);

    let started = Instant::now();
    let (log, reader, index) = plant.open();
    println!("restart, until the index knows every entry: {:.1?}", started.elapsed());
    drop(index);
    let (started, cpu) = (Instant::now(), cpu_time());
    reindex(&plant.index(), plant.keys.index_key(), reader.clone(), |_| {}).expect("a readable log");
    println!("reindex: {:.1?}, {:.1?} of processor time", started.elapsed(), cpu_time() - cpu);
    println!("index after reindex: {} bytes per decision", folder_bytes(&plant.index()) / entries);

    let index = plant.open_index();
    Indexer::new(reader.clone(), index.clone()).catch_up(|_| {}).expect("a readable log");
    let service = HistoryService::new(reader.clone(), index.clone());
    find_frames(&index, entries);
    count(&service);
    let started = Instant::now();
    let selected = service.select(&Filter::default(), entries).expect("everything is indexed").count();
    println!("select for an export: {selected} entries in {:.2?}", started.elapsed());
    println!("{:<34} {:>10} {:>10} {:>10}", "page of 50 rows", "p50", "p99", "cold max");
    let mut pages = Vec::new();
    for (name, filter) in filters(entries) {
        pages.push((name, latencies(PAGES_PER_FILTER, |turn| page(&service, &filter(turn), turn))));
    }
    // The database is locked while it is open.
    drop((service, index));
    for ((name, warm), (_, filter)) in pages.into_iter().zip(filters(entries)) {
        let cold = latencies(COLD_PAGES_PER_FILTER, |turn| plant.cold_page(&reader, &filter(turn * 7), turn));
        let cold = cold.last().expect("some cold pages");
        println!("{name:<34} {:>10.2?} {:>10.2?} {cold:>10.2?}", warm[warm.len() / 2], warm[warm.len() * 99 / 100]);
    }
    log.shutdown();
}

/// A data directory with its keys.
struct Plant {
    keys: Keys,
    dir: tempfile::TempDir,
}

impl Plant {
    fn data(&self) -> std::path::PathBuf {
        self.dir.path().join("data")
    }

    fn index(&self) -> std::path::PathBuf {
        self.data().join("index")
    }

    fn open_index(&self) -> Arc<SledIndex> {
        fs::create_dir_all(self.data()).expect("a folder");
        Arc::new(SledIndex::open(&self.index(), self.keys.index_key()).expect("the index").0)
    }

    /// The log and the index with everything the log has.
    fn open(&self) -> (LogHandle, Arc<LogStoreReader>, Arc<SledIndex>) {
        let index = self.open_index();
        let archive = PackArchive::open(self.data().join("images"), self.keys.image_sealer()).expect("an archive");
        let (log, reader, _) = LogStore::open(
            LogConfig::new(&self.data()),
            Arc::new(self.keys.log_signer()),
            self.keys.private_sealer(),
            Arc::new(archive),
            index.clone(),
        )
        .expect("a log");
        let reader = Arc::new(reader);
        Indexer::new(reader.clone(), index.clone()).catch_up(|_| {}).expect("a readable log");
        (log, reader, index)
    }

    /// The first page after opening the index, without the opening.
    fn cold_page(&self, reader: &Arc<LogStoreReader>, filter: &Filter, turn: u64) -> Duration {
        let index = self.open_index();
        // The rest that is not sealed is read from the log here and warms nothing but the log.
        Indexer::new(reader.clone(), index.clone()).catch_up(|_| {}).expect("a readable log");
        page(&HistoryService::new(reader.clone(), index), filter, turn)
    }
}

fn append(log: &LogHandle, entries: u64) {
    let (done, answers) = mpsc::channel::<()>();
    for index in 0..entries {
        let entry = synthetic::entry(SEED, index);
        let frame = match &entry {
            Entry::Decision(decision) => {
                Some(FrameClaim { key: decision.frame_key(), encoded: decision.image.encoded })
            }
            _ => None,
        };
        let bytes = entry.encode().expect("a short entry");
        let append = Append { entry: bytes, private: synthetic::private(SEED, index), frame };
        let done = done.clone();
        log.submit(
            append,
            Box::new(move |outcome| {
                outcome.expect("a durable entry");
                done.send(()).expect("the answers are counted");
            }),
        );
        while answers.try_recv().is_ok() {}
    }
    drop(done);
    while answers.recv().is_ok() {}
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

fn page(service: &HistoryService, filter: &Filter, turn: u64) -> Duration {
    let order = if turn.is_multiple_of(2) { Order::NewestFirst } else { Order::OldestFirst };
    let request = ListRequest { filter: filter.clone(), order, page_rows: 50, reveal: true, ..ListRequest::default() };
    let started = Instant::now();
    std::hint::black_box(service.list(&request).expect("a page"));
    started.elapsed()
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
