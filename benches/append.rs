//! Durable appends against a bare append and fdatasync of the same bytes in the same groups, and a million entries
//! loaded, reopened and read.
//!
//! `cargo bench --bench append` (arguments: callers, seconds a round, rounds, entries to load). Set `TMPDIR` to the disk
//! to be measured.

use std::{
    fs::File,
    os::unix::fs::FileExt as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use lineproof::{
    adapters::{
        archive::PackArchive,
        keys::Keys,
        log::{LogConfig, LogHandle, LogStore, LogStoreReader, RecoveryReport},
    },
    core::lineage::private::{Opening, PrivateField},
    ports::{
        index::{FrameIndex, IndexError},
        lineage::{Append, Appended, FrameClaim, LogReader as _, LogWriter as _, PrivateRecord},
    },
    types::{Blake3Digest, EntryIndex, FrameKey},
};

// As the service's binary does.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse::<u64>().ok());
    let callers = numbers.next().unwrap_or(64);
    let seconds = Duration::from_secs(numbers.next().unwrap_or(4));
    let rounds = numbers.next().unwrap_or(5);
    let load = numbers.next().unwrap_or(1_000_000);

    let dir = tempfile::tempdir().expect("a directory for the log");
    let (log, _, _) = open(dir.path());
    let next = Arc::new(AtomicU64::new(0));
    let mut ratios = Vec::new();
    println!("{callers} callers, each waiting for its own entry:");
    for _ in 0..rounds {
        let round = append_round(&log, &next, callers, seconds);
        let bare = bare_round(dir.path(), round.group_entries, round.frame_bytes, seconds);
        let ratio = round.per_second / bare;
        println!(
            "  {:.0} entries/s in groups of {:.1} ({} bytes an entry), p50 {:.2} ms, p99 {:.2} ms; bare loop {bare:.0}/s; ratio {ratio:.2}",
            round.per_second, round.group_entries, round.frame_bytes, round.p50_ms, round.p99_ms
        );
        ratios.push(ratio);
    }
    ratios.sort_by(f64::total_cmp);
    println!("  median ratio {:.2}", ratios[ratios.len() / 2]);
    let one = append_round(&log, &next, 1, seconds);
    println!("one caller: {:.0} entries/s, p50 {:.2} ms, p99 {:.2} ms", one.per_second, one.p50_ms, one.p99_ms);
    log.shutdown();
    drop(log);

    let dir = tempfile::tempdir().expect("a directory for the log");
    let (log, _, _) = open(dir.path());
    let begun = Instant::now();
    load_entries(&log, load);
    log.checkpoint_now().expect("the log goes on");
    println!("{load} entries loaded and checkpointed in {:.1} s", begun.elapsed().as_secs_f64());
    log.shutdown();
    drop(log);
    println!("on disk: {:.0} bytes an entry", bytes_below(dir.path()) as f64 / load as f64);
    let begun = Instant::now();
    let (log, reader, report) = open(dir.path());
    println!(
        "opened again in {:.2} s, {} of {} entries checked by then",
        begun.elapsed().as_secs_f64(),
        report.checked,
        report.size
    );
    read_pages(&reader, load);
    drop(log);
}

/// An index that keeps up with the log, so that the log remembers no frames for it.
struct KeepsUp;

impl FrameIndex for KeepsUp {
    fn indexed_to(&self) -> EntryIndex {
        EntryIndex(u64::MAX)
    }

    fn find_frame(&self, _: [u8; 16]) -> Result<Option<EntryIndex>, IndexError> {
        Ok(None)
    }
}

fn open(dir: &Path) -> (LogHandle, LogStoreReader, RecoveryReport) {
    let folder = dir.join("keys");
    let keys = Keys::open(&folder).or_else(|_| Keys::create(&folder, "plant.example/bench")).expect("keys");
    let archive = PackArchive::open(dir.join("images"), keys.image_sealer()).expect("an archive");
    let config = LogConfig { disk_reserve_bytes: 64 << 20, ..LogConfig::new(dir) };
    let signer = Arc::new(keys.log_signer());
    LogStore::open(config, signer, keys.private_sealer(), Arc::new(archive), Arc::new(KeepsUp)).expect("a log")
}

/// A decision of one label as the service writes it, with a serial number filed beside it.
fn append(counter: u64) -> Append {
    let digest = Blake3Digest::of(&counter.to_le_bytes());
    let serial = Opening { field: PrivateField::Serial, salt: [7; 16], value: format!("SN-{counter:010}") };
    let score = r#""0x3f400000 0.75""#;
    let entry = format!(
        concat!(
            r#"{{"camera":"cam-1","clock":"synchronised","frame":{{"counter":{counter},"id":"f{counter}"}},"#,
            r#""image":{{"archive":"none:rule","bytes":262144,"encoded":"{digest}","format":"jpeg","height":1024,"#,
            r#""pfnc":"0x01080001","pixels":"{digest}","width":1280}},"kind":"decision","line":"line-1","#,
            r#""model":{{"digest":"{digest}","version":"1.0.0"}},"private":{{"serial":"{commitment}"}},"#,
            r#""product":"flange","quality":{{"focus":{score},"mean":{score},"saturated":{score}}},"#,
            r#""recipe":{{"digest":"{digest}","name":"machined-surface@1.0.0"}},"runtime":{{"batch":1,"#,
            r#""cpu":"avx2,avx512f,fma","optimisation":"all","provider":"cpu","threads":1,"version":"1.32.0"}},"#,
            r#""scores":{{"comparator":">=","decision":{score},"labels":[{{"label":"scratch","reject":{score},"#,
            r#""review":{score},"score":{score}}}]}},"software":"lineproof 0.1.0","station":"station-1","#,
            r#""time":"2026-11-23T21:43:48.100000000Z","v":1,"verdict":"OK"}}"#
        ),
        counter = counter,
        digest = digest,
        commitment = serial.commitment(),
        score = score,
    );
    let key = FrameKey {
        line: "line-1".parse().expect("a line"),
        camera: "cam-1".parse().expect("a camera"),
        frame: format!("f{counter}").parse().expect("a frame id"),
    };
    Append {
        entry: entry.into_bytes(),
        private: PrivateRecord { openings: vec![serial], image_at: None },
        frame: Some(FrameClaim { key, encoded: digest }),
    }
}

struct Round {
    per_second: f64,
    group_entries: f64,
    frame_bytes: usize,
    p50_ms: f64,
    p99_ms: f64,
}

/// The callers are tasks on a runtime with a thread per core, as the calls of the service are.
fn append_round(log: &LogHandle, next: &Arc<AtomicU64>, callers: u64, time: Duration) -> Round {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_time().build().expect("a runtime");
    let (size, groups, begun) = (log.size(), log.groups(), Instant::now());
    let stop = Arc::new(AtomicBool::new(false));
    let call = |log: LogHandle, next: Arc<AtomicU64>, stop: Arc<AtomicBool>| async move {
        let mut waits = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let append = append(next.fetch_add(1, Ordering::Relaxed));
            let (sender, receiver) = tokio::sync::oneshot::channel();
            let asked = Instant::now();
            log.submit(append, Box::new(move |outcome| drop(sender.send(outcome))));
            assert!(matches!(receiver.await, Ok(Ok(Appended::Written(_)))));
            waits.push(asked.elapsed());
        }
        waits
    };
    let mut waits: Vec<Duration> = runtime.block_on(async {
        let calls: Vec<_> = (0..callers).map(|_| tokio::spawn(call(log.clone(), next.clone(), stop.clone()))).collect();
        tokio::time::sleep(time).await;
        stop.store(true, Ordering::Relaxed);
        let mut waits = Vec::new();
        for call in calls {
            waits.extend(call.await.expect("a caller does not panic"));
        }
        waits
    });
    waits.sort_unstable();
    let entries = (log.size() - size) as f64;
    let millis = |permille: usize| waits[(waits.len() - 1) * permille / 1000].as_secs_f64() * 1e3;
    // Entry, sealed record (JSON of the opening and 40 bytes) and the frame around them.
    let sample = append(next.load(Ordering::Relaxed));
    let private = serde_json::to_vec(&sample.private).expect("three strings").len() + 40;
    Round {
        per_second: entries / begun.elapsed().as_secs_f64(),
        group_entries: entries / (log.groups() - groups) as f64,
        frame_bytes: sample.entry.len() + private + 62,
        p50_ms: millis(500),
        p99_ms: millis(990),
    }
}

/// Entries a second of a loop that writes a group's bytes and syncs them, and does nothing else.
fn bare_round(dir: &Path, group_entries: f64, frame_bytes: usize, time: Duration) -> f64 {
    let path = dir.join("bare");
    let file = File::create(&path).expect("a file");
    let group = vec![0x5a; (group_entries * frame_bytes as f64) as usize];
    let (begun, mut groups) = (Instant::now(), 0_u64);
    while begun.elapsed() < time {
        file.write_all_at(&group, groups * group.len() as u64).expect("the disk takes it");
        file.sync_data().expect("the disk keeps it");
        groups += 1;
    }
    let per_second = groups as f64 * group_entries / begun.elapsed().as_secs_f64();
    std::fs::remove_file(path).expect("the file is there");
    per_second
}

fn load_entries(log: &LogHandle, count: u64) {
    let written = Arc::new(AtomicU64::new(0));
    for counter in 0..count {
        let written = written.clone();
        let done = move |outcome: Result<Appended, _>| {
            assert!(matches!(outcome, Ok(Appended::Written(_))), "{outcome:?}");
            written.fetch_add(1, Ordering::Relaxed);
        };
        log.submit(append(counter), Box::new(done));
    }
    while written.load(Ordering::Relaxed) < count {
        std::thread::yield_now();
    }
}

/// Pages of fifty entries from all over the log, as a search for something rare gives them.
fn read_pages(reader: &LogStoreReader, count: u64) {
    let mut waits = Vec::new();
    let mut place = 1_u64;
    for _ in 0..400 {
        let begun = Instant::now();
        for _ in 0..50 {
            place = place.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let index = EntryIndex((place >> 20) % count);
            reader.entry(index).expect("the entry is there");
        }
        waits.push(begun.elapsed());
    }
    waits.sort_unstable();
    let millis = |permille: usize| waits[(waits.len() - 1) * permille / 1000].as_secs_f64() * 1e3;
    println!("50 entries from anywhere: p50 {:.2} ms, p99 {:.2} ms", millis(500), millis(990));
}

fn bytes_below(dir: &Path) -> u64 {
    let mut bytes = 0;
    for item in std::fs::read_dir(dir).expect("the directory").flatten() {
        let metadata = item.metadata().expect("a file");
        bytes += if metadata.is_dir() { bytes_below(&item.path()) } else { metadata.len() };
    }
    bytes
}
