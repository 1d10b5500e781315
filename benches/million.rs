//! One million decisions in a data directory as the service keeps it: their bytes, restarts, reindexing, searching,
//! proofs.
//!
//! `cargo bench --bench million`; `-- --entries 200000` makes it shorter, `scripts/bench-growth.sh` shows how cost grows. The decisions are synthetic and go through the real
//! log store with the index behind it; restarts, reindexing and searches are the real binary's. "cold" means that the
//! files' pages were dropped from the operating system's cache before.

#[path = "../tests/it/harness.rs"]
#[allow(dead_code)]
mod harness;
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

use harness::Service;
use lineproof::{
    adapters::{
        archive::PackArchive,
        keys::Keys,
        log::{LogConfig, LogStore},
        sled_index::SledIndex,
    },
    core::lineage::{entry::Entry, passport::Passport},
    edge::pb::{self, history_service_client::HistoryServiceClient},
    ports::{
        archive::ImageArchive,
        index::FrameIndex as _,
        lineage::{Append, Appended, FrameClaim, LogReader as _, LogWriter as _, PrivateRecord},
    },
    services::history::Indexer,
};
use measure::{Stretch, ms, percentile, verdict};
use rayon::prelude::*;
use serde_json::json;
use tonic::transport::Channel;

const SEED: u64 = 1;
/// Entries made at a time, on all cores, before they are appended.
const CHUNK: u64 = 16_384;
const BYTES_MAX: u64 = 2048;
const RESTART_MAX: Duration = Duration::from_secs(5);
const REINDEX_MAX: Duration = Duration::from_secs(60);
const PAGE_MAX: Duration = Duration::from_millis(10);
const PROOF_MAX: Duration = Duration::from_millis(50);
/// Bytes of a passport beside its entry.
const PASSPORT_BYTES_MAX: usize = 4096;
const RESTARTS: u64 = 3;

fn main() {
    let entries = measure::argument("--entries", 1_000_000);
    let pages = measure::argument("--pages", 200);
    let folder = measure::folder();
    let data = folder.path().join("data");
    let init = harness::lineproof().arg("init").arg(&data).output().expect("the binary runs");
    assert!(init.status.success(), "{}", harness::text(&init));
    let config = data.join("lineproof.toml");
    let text = fs::read_to_string(&config)
        .expect("the configuration")
        .replace("127.0.0.1:7443", "127.0.0.1:0")
        .replace("127.0.0.1:7444", "127.0.0.1:0");
    fs::write(&config, text).expect("the configuration");

    fill(&data, entries);
    sizes(&data, entries);
    reindex(&data, entries);
    restarts(&data);
    search(&data, entries, pages);
    proofs(&data, entries, pages);
}

/// Appends `entries` decisions with 64 to thousands waiting, as fast as the log takes them, the index following.
fn fill(data: &Path, entries: u64) {
    let keys = Keys::open(&data.join("keys")).expect("keys");
    let archive: Arc<dyn ImageArchive> =
        Arc::new(PackArchive::open(data.join("images"), keys.image_sealer()).expect("an archive"));
    let index = Arc::new(SledIndex::open(&data.join("index"), keys.index_key()).expect("an index").0);
    let signer = Arc::new(keys.log_signer());
    let (log, reader, _) =
        LogStore::open(LogConfig::new(data), signer, keys.private_sealer(), archive, index.clone()).expect("a log");
    let reader = Arc::new(reader);
    let indexer = Indexer::new(reader.clone(), index.clone()).spawn();
    let stretch = Stretch::start(&[std::process::id()]);
    let written = Arc::new(AtomicU64::new(0));
    let mut bytes = 0_u64;
    for start in (0..entries).step_by(CHUNK as usize) {
        let chunk: Vec<Append> = (start..entries.min(start + CHUNK)).into_par_iter().map(append).collect();
        for append in chunk {
            bytes += append.entry.len() as u64;
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
    log.checkpoint_now().expect("a checkpoint");
    let used = stretch.end();
    let started = Instant::now();
    while index.indexed_to().0 < entries {
        assert!(started.elapsed() < Duration::from_secs(300), "the index does not follow");
        std::thread::sleep(Duration::from_millis(20));
    }
    log.shutdown();
    assert_eq!(written.load(Ordering::Relaxed), entries, "every append was answered");
    assert_eq!(reader.checkpoint().expect("a checkpoint").size, entries);
    drop(indexer);
    let per_second = entries as f64 / used.wall.as_secs_f64();
    println!(
        "filled: {entries} entries of {} bytes in {:.1?}, {per_second:.0} durable entries/s with the index following; \
         it was {:.1?} behind at the end; others used {:.0} % of the machine",
        bytes / entries,
        used.wall,
        started.elapsed(),
        used.others * 100.0
    );
}

fn append(index: u64) -> Append {
    let entry = synthetic::entry(SEED, index);
    let (frame, private) = match &entry {
        Entry::Decision(decision) => {
            let claim = FrameClaim { key: decision.frame_key(), encoded: decision.image.encoded };
            (Some(claim), synthetic::private(SEED, index))
        }
        _ => (None, PrivateRecord::default()),
    };
    Append { entry: entry.encode().expect("a short entry"), private, frame }
}

fn sizes(data: &Path, entries: u64) {
    let parts = ["log", "wal", "private", "index", "texts"];
    let bytes: Vec<u64> = parts.iter().map(|part| measure::disk_bytes(&data.join(part))).collect();
    let total = bytes.iter().sum::<u64>() / entries;
    let each: Vec<String> =
        parts.iter().zip(&bytes).map(|(part, bytes)| format!("{part} {}", bytes / entries)).collect();
    let is_met = total <= BYTES_MAX;
    println!("bytes per decision: {total} ({}), target {BYTES_MAX}: {}", each.join(", "), verdict(is_met));
    measure::result(
        "million",
        json!({
            "case": "bytes per decision", "entries": entries, "bytes": total, "log": bytes[0] / entries,
            "wal": bytes[1] / entries, "private": bytes[2] / entries, "index": bytes[3] / entries,
            "target": BYTES_MAX, "met": is_met,
        }),
    );
}

fn reindex(data: &Path, entries: u64) {
    let stretch = Stretch::start(&[]);
    let cpu_before = measure::ended_children_cpu_time();
    let started = Instant::now();
    let output = harness::lineproof().arg("reindex").arg("--data").arg(data).output().expect("the binary runs");
    let took = started.elapsed();
    let cpu = measure::ended_children_cpu_time() - cpu_before;
    let busy = stretch.end().others;
    assert!(output.status.success(), "{}", harness::text(&output));
    let is_met = took < REINDEX_MAX;
    println!(
        "reindex: {took:.1?} and {cpu:.1?} of CPU time, target {REINDEX_MAX:?}: {}; the machine was {:.0} % busy; index after \
         it {} bytes per decision",
        verdict(is_met),
        busy * 100.0,
        measure::disk_bytes(&data.join("index")) / entries
    );
    measure::result(
        "million",
        json!({ "case": "reindex", "entries": entries, "seconds": took.as_secs_f64(), "cpu_s": cpu.as_secs_f64(), "target": 60, "met": is_met }),
    );
}

/// From starting the process to the first verdict in a client's hands, stopped in order and killed in turn.
fn restarts(data: &Path) {
    let client = tokio::runtime::Runtime::new().expect("a runtime");
    // Drawn before the clock starts.
    let parts: Vec<pb::InspectRequest> = (1..=RESTARTS * 4).map(harness::part).collect();
    let mut parts = parts.into_iter();
    for (name, is_cold, is_killed) in [
        ("after a stop, warm", false, false),
        ("after kill -9, warm", false, true),
        ("after a stop, cold", true, false),
        ("after kill -9, cold", true, true),
    ] {
        let (mut listening, mut verdicts) = (Vec::new(), Vec::new());
        for _ in 0..RESTARTS {
            end(serve(data), is_killed);
            if is_cold {
                forget_pages(data);
            }
            let part = parts.next().expect("enough parts");
            let started = Instant::now();
            let service = serve(data);
            listening.push(started.elapsed());
            client.block_on(async {
                let answer = service.inspection().await.inspect(part).await.expect("a verdict").into_inner();
                assert!(!answer.duplicate, "a new part");
            });
            verdicts.push(started.elapsed());
            end(service, false);
        }
        let worst = percentile(&verdicts, 1.0);
        let is_met = worst < RESTART_MAX;
        println!(
            "first verdict {name}: {:.2?} at worst of {RESTARTS} (listening after {:.2?}), target {RESTART_MAX:?}: {}",
            worst,
            percentile(&listening, 1.0),
            verdict(is_met)
        );
        measure::result(
            "million",
            json!({
                "case": format!("first verdict {name}"), "seconds": worst.as_secs_f64(),
                "median_s": percentile(&verdicts, 0.5).as_secs_f64(), "target": 5, "met": is_met,
            }),
        );
    }
}

fn serve(data: &Path) -> Service {
    Service::spawn(harness::lineproof().arg("serve").arg("--data").arg(data))
        .unwrap_or_else(|ended| panic!("the service ended with {:?}: {}", ended.code, ended.log))
}

fn end(service: Service, is_killed: bool) {
    if is_killed {
        service.kill();
    } else {
        let ended = service.stop();
        assert_eq!(ended.code, Some(0), "{}", ended.log);
    }
}

/// Drops the pages of every file below `path` from the operating system's cache.
fn forget_pages(path: &Path) {
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("a folder") {
            forget_pages(&entry.expect("an entry").path());
        }
    } else if let Ok(file) = File::open(path) {
        // Only clean pages are dropped.
        file.sync_all().expect("a synced file");
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("advice is taken");
    }
}

type MakeFilter = Box<dyn Fn(u64) -> pb::DecisionFilter>;

/// Pages of 50 rows through the real socket, all filters in turn.
fn search(data: &Path, entries: u64, pages: u64) {
    let service = serve(data);
    let client = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let stretch = Stretch::start(&[]);
    let mut all = Vec::new();
    println!("{:<36} {:>6} {:>9} {:>9}", "page of 50 rows over gRPC", "rows", "p50 ms", "p99 ms");
    client.block_on(async {
        let mut history = service.history().await;
        for (name, filter) in filters(entries) {
            let (mut times, mut rows) = (Vec::new(), 0);
            for turn in 0..pages + 3 {
                let (took, found) = page(&mut history, filter(turn), turn).await;
                // The first pages connect and fill the index's caches.
                if turn >= 3 {
                    times.push(took);
                    rows += found as u64;
                }
            }
            let (p50, p99) = (percentile(&times, 0.5), percentile(&times, 0.99));
            println!("{name:<36} {:>6} {:>9.2} {:>9.2}", rows / pages, ms(p50), ms(p99));
            all.push((name, p99, times));
        }
    });
    let busy = stretch.end().others;
    let times: Vec<Duration> = all.iter().flat_map(|(_, _, times)| times.iter().copied()).collect();
    let (worst, worst_p99, _) = all.iter().max_by_key(|(_, p99, _)| *p99).expect("some filters");
    let is_met = *worst_p99 < PAGE_MAX;
    println!(
        "all filters: p50 {:.2} ms, p99 {:.2} ms; worst p99 {:.2} ms ({worst}), target {PAGE_MAX:?} for each: {}; \
         the machine was {:.0} % busy",
        ms(percentile(&times, 0.5)),
        ms(percentile(&times, 0.99)),
        ms(*worst_p99),
        verdict(is_met),
        busy * 100.0
    );
    measure::result(
        "million",
        json!({
            "case": "history page", "entries": entries, "p50_ms": ms(percentile(&times, 0.5)),
            "p99_ms": ms(percentile(&times, 0.99)), "worst_filter": worst, "worst_p99_ms": ms(*worst_p99),
            "target_ms": 10, "met": is_met,
        }),
    );
    assert_eq!(service.stop().code, Some(0));
}

/// Passports of parts and consistency proofs from all over the log, through the real socket.
fn proofs(data: &Path, entries: u64, turns: u64) {
    let service = serve(data);
    let client = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let key = fs::read_to_string(data.join("log.vkey")).expect("the log's key").parse().expect("a verifier key");
    let (mut passports, mut consistency, mut beside, mut hashes) = (Vec::new(), Vec::new(), 0, 0);
    client.block_on(async {
        let mut audit = service.audit().await;
        for turn in 0..turns + 3 {
            let somewhere = turn * 104_729 % entries;
            let started = Instant::now();
            let old_size = somewhere.max(1);
            let request = pb::GetConsistencyProofRequest { old_size, new_size: entries };
            let proof = audit.get_consistency_proof(request).await.expect("a proof").into_inner();
            let took_proof = started.elapsed();
            let serial = pb::get_passport_request::Of::Serial(synthetic::serial(somewhere));
            let started = Instant::now();
            let answer = audit.get_passport(pb::GetPassportRequest { of: Some(serial) }).await;
            let took_passport = started.elapsed();
            if turn < 3 {
                continue;
            }
            consistency.push(took_proof);
            hashes = hashes.max(proof.hashes.len());
            // Entries that are no decisions have no part.
            let Ok(answer) = answer else { continue };
            passports.push(took_passport);
            for text in answer.into_inner().passports {
                let passport = Passport::parse(&text.text).expect("a passport");
                passport.verify(&key).expect("a passport that proves its part");
                beside = beside.max(text.text.len() - passport.entry.len().div_ceil(3) * 4);
            }
        }
    });
    assert!(passports.len() as u64 * 2 > turns, "most entries are decisions of a part");
    for (name, times) in [("passport of one part", &passports), ("consistency proof", &consistency)] {
        let (p50, p99) = (percentile(times, 0.5), percentile(times, 0.99));
        let is_met = p99 < PROOF_MAX;
        println!("{name}: p50 {:.2} ms, p99 {:.2} ms, target {PROOF_MAX:?}: {}", ms(p50), ms(p99), verdict(is_met));
        measure::result(
            "million",
            json!({
                "case": name, "entries": entries, "p50_ms": ms(p50), "p99_ms": ms(p99), "target_ms": 50, "met": is_met,
            }),
        );
    }
    let is_met = beside <= PASSPORT_BYTES_MAX;
    println!(
        "bytes of a passport beside its entry: at most {beside}, target {PASSPORT_BYTES_MAX}: {}",
        verdict(is_met)
    );
    println!("hashes of a consistency proof: at most {hashes}");
    assert_eq!(service.stop().code, Some(0));
}

async fn page(history: &mut HistoryServiceClient<Channel>, filter: pb::DecisionFilter, turn: u64) -> (Duration, usize) {
    let request = pb::ListDecisionsRequest {
        filter: Some(filter),
        page_size: 50,
        oldest_first: turn % 2 == 1,
        ..pb::ListDecisionsRequest::default()
    };
    let started = Instant::now();
    let response = history.list_decisions(request).await.expect("a page");
    (started.elapsed(), response.into_inner().decisions.len())
}

/// One filter of each kind, and some together.
fn filters(entries: u64) -> Vec<(&'static str, MakeFilter)> {
    use pb::Verdict::{NotDecidable, NotOk};
    let any = pb::DecisionFilter::default;
    let somewhere = move |turn: u64| turn * 104_729 % entries;
    let at = move |turn: u64, later_s: i64| {
        let nanos = synthetic::START_NANOS + somewhere(turn) as i64 * 33_333_333;
        Some(prost_types::Timestamp { seconds: nanos / 1_000_000_000 + later_s, nanos: 0 })
    };
    let name = |what: &str, number: u64| format!("{what}-{number}");
    vec![
        ("everything", Box::new(move |_| any())),
        ("time: from", Box::new(move |turn| pb::DecisionFilter { from: at(turn, 0), ..any() })),
        ("time: one minute", Box::new(move |turn| pb::DecisionFilter { from: at(turn, 0), to: at(turn, 60), ..any() })),
        ("line", Box::new(move |turn| pb::DecisionFilter { line: name("line", 1 + turn % 4), ..any() })),
        ("station", Box::new(move |turn| pb::DecisionFilter { station: name("station", 1 + turn % 3), ..any() })),
        ("camera", Box::new(move |turn| pb::DecisionFilter { camera: name("cam", 1 + turn % 3), ..any() })),
        ("product", Box::new(move |turn| pb::DecisionFilter { product: name("product", turn % 6), ..any() })),
        ("serial", Box::new(move |turn| pb::DecisionFilter { serial: synthetic::serial(somewhere(turn)), ..any() })),
        ("unknown serial", Box::new(move |turn| pb::DecisionFilter { serial: name("none", turn), ..any() })),
        ("lot", Box::new(move |turn| pb::DecisionFilter { lot: synthetic::lot(somewhere(turn)), ..any() })),
        ("verdict NOT_OK", Box::new(move |_| pb::DecisionFilter { verdicts: vec![NotOk as i32], ..any() })),
        (
            "recipe",
            Box::new(move |turn| pb::DecisionFilter { recipe: format!("machined-surface@1.{}.0", turn % 4), ..any() }),
        ),
        ("score: top", Box::new(move |_| pb::DecisionFilter { score_min: Some(0.999_9), ..any() })),
        (
            "score: narrow",
            Box::new(move |turn| {
                let low = 0.2 + turn as f32 * 0.001;
                pb::DecisionFilter { score_min: Some(low), score_max: Some(low + 0.000_01), ..any() }
            }),
        ),
        (
            "score: wide, product, before",
            Box::new(move |turn| pb::DecisionFilter {
                score_min: Some(0.01),
                score_max: Some(0.9),
                product: name("product", turn % 6),
                to: at(turn, 0),
                ..any()
            }),
        ),
        (
            "line, camera, verdict, score, time",
            Box::new(move |turn| pb::DecisionFilter {
                line: name("line", 1 + turn % 4),
                camera: name("cam", 1 + turn % 3),
                verdicts: vec![NotOk as i32, NotDecidable as i32],
                score_max: Some(0.5),
                from: at(turn, 0),
                ..any()
            }),
        ),
        (
            "no match, everything looked at",
            Box::new(move |_| pb::DecisionFilter {
                score_min: Some(0.3),
                score_max: Some(0.599),
                verdicts: vec![NotOk as i32],
                ..any()
            }),
        ),
    ]
}
