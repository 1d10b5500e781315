//! Searching: what the index finds is what a look at every entry finds, whatever happens to the index.

#![cfg(feature = "server")]

mod synthetic;

use std::{
    fs,
    path::Path,
    sync::{Arc, LazyLock},
};

use lineproof::{
    adapters::sled_index::{Found, SledIndex},
    app::reindex::reindex,
    core::lineage::private::PrivateField,
    ports::{
        index::{
            Bucket, CountBy, CountCell, DecisionIndex, EntryKind, Facts, Filter, FrameIndex, GroupBy, IndexError,
            Order, RecipeFilter, VerdictCounts,
        },
        lineage::LogReader,
    },
    services::history::{CursorError, HistoryError, HistoryService, Indexer, ListRequest, Progress, facts_of},
    types::{Blake3Digest, EntryIndex, FrameKey, Instant, Score, Verdict},
};
use proptest::prelude::*;
use rayon::prelude::*;
use tempfile::TempDir;

use self::synthetic::{START_NANOS, SyntheticLog, frame_id, lot, serial};

const KEY: [u8; 32] = [7; 32];
const SEED: u64 = 1;
/// Two sealed chunks of 65,536 and a tail.
const SIZE: u64 = 134_000;

/// The facts of every entry, to be looked at one by one.
static FACTS: LazyLock<Vec<Facts>> = LazyLock::new(|| {
    let log = SyntheticLog::new(SEED, SIZE);
    let facts = |index| {
        let index = EntryIndex(index);
        facts_of(&log.entry(index).unwrap(), &log.private(index).unwrap())
    };
    (0..SIZE).into_par_iter().map(facts).collect()
});

/// An index of all of them.
static INDEX: LazyLock<(TempDir, SledIndex)> = LazyLock::new(|| {
    let dir = TempDir::new().unwrap();
    let (index, found) = SledIndex::open(&dir.path().join("index"), KEY).unwrap();
    assert_eq!(found, Found::New);
    for (first, facts) in (0..).step_by(10_000).zip(FACTS.chunks(10_000)) {
        index.apply(EntryIndex(first), facts).unwrap();
    }
    (dir, index)
});

fn matches(facts: &Facts, filter: &Filter) -> bool {
    let same = |wanted: bool| wanted;
    filter.kinds.contains(&facts.kind)
        && filter.from.is_none_or(|from| facts.time.is_some_and(|time| time >= from))
        && filter.to.is_none_or(|to| facts.time.is_some_and(|time| time < to))
        && same(filter.line.is_none() || facts.line == filter.line)
        && same(filter.station.is_none() || facts.station == filter.station)
        && same(filter.camera.is_none() || facts.camera == filter.camera)
        && same(filter.product.is_none() || facts.product == filter.product)
        && same(filter.serial.is_none() || facts.serial == filter.serial)
        && same(filter.lot.is_none() || facts.lot == filter.lot)
        && (filter.verdicts.is_empty() || facts.verdict.is_some_and(|verdict| filter.verdicts.contains(&verdict)))
        && filter.score_min.is_none_or(|min| facts.score.is_some_and(|score| score >= min))
        && filter.score_max.is_none_or(|max| facts.score.is_some_and(|score| score <= max))
        && filter.recipe.as_ref().is_none_or(|wanted| {
            facts.recipe.as_ref().is_some_and(|(name, digest)| match wanted {
                RecipeFilter::Name(wanted) => wanted == name,
                RecipeFilter::Digest(wanted) => wanted == digest,
            })
        })
}

fn any_filter() -> impl Strategy<Value = Filter> {
    let sometimes = |range: std::ops::Range<u64>| prop::option::weighted(0.25, range);
    let place = (sometimes(0..6), sometimes(0..4), sometimes(0..4), sometimes(0..8));
    let part = (prop::option::weighted(0.1, 0..SIZE + 9), prop::option::weighted(0.15, 0..SIZE + 9_000));
    let time = (sometimes(0..SIZE + 500), sometimes(0..SIZE + 500));
    let kinds = prop::sample::subsequence(EntryKind::ALL.to_vec(), 1..=7);
    let kinds = prop_oneof![4 => Just(vec![EntryKind::Decision]), 1 => kinds];
    let verdicts = prop_oneof![3 => Just(vec![]), 1 => prop::sample::subsequence(Verdict::ALL.to_vec(), 1..=3)];
    let score = prop::option::weighted(0.2, -0.1_f32..1.1);
    (place, part, time, kinds, verdicts, (sometimes(0..2), sometimes(0..2)), (score.clone(), score)).prop_map(
        |((line, station, camera, product), (part, in_lot), (from, to), kinds, verdicts, recipe, (min, max))| {
            let at = |entry: u64| Instant::from_unix_nanos(START_NANOS + entry as i64 * 33_333_333).unwrap();
            let name = |what: &str, n: u64| format!("{what}-{n}");
            let recipe = match recipe {
                (Some(n), _) => {
                    Some(RecipeFilter::Name(name("machined-surface@1", n).replace("1-", "1.").parse().unwrap()))
                }
                (None, Some(n)) => Some(RecipeFilter::Digest(
                    FACTS
                        .iter()
                        .find_map(|facts| facts.recipe.clone())
                        .map(|(_, digest)| digest)
                        .filter(|_| n == 0)
                        .unwrap_or(Blake3Digest::of(b"no recipe")),
                )),
                _ => None,
            };
            Filter {
                kinds,
                from: from.map(at),
                to: to.map(at),
                line: line.map(|n| name("line", n).parse().unwrap()),
                station: station.map(|n| name("station", n).parse().unwrap()),
                camera: camera.map(|n| name("cam", n).parse().unwrap()),
                product: product.map(|n| name("product", n).parse().unwrap()),
                serial: part.map(|n| serial(n).parse().unwrap()),
                lot: in_lot.map(|n| lot(n).parse().unwrap()),
                verdicts,
                recipe,
                score_min: min.map(|score| Score::new(score).unwrap()),
                score_max: max.map(|score| Score::new(score).unwrap()),
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_page_is_what_a_look_at_every_entry_finds(
        filter in any_filter(),
        newest in any::<bool>(),
        (start, end) in (0..SIZE, 0..SIZE + 10),
        limit in 1_usize..600,
    ) {
        let hits = (start..end.min(SIZE)).filter(|index| matches(&FACTS[*index as usize], &filter)).map(EntryIndex);
        let (order, expected): (_, Vec<EntryIndex>) = if newest {
            (Order::NewestFirst, hits.rev().take(limit).collect())
        } else {
            (Order::OldestFirst, hits.take(limit).collect())
        };
        prop_assert_eq!(INDEX.1.page(&filter, start..end, order, limit).unwrap(), expected);
    }

    #[test]
    fn a_count_is_what_counting_every_decision_gives(
        filter in any_filter(),
        width in prop::option::of(1_i64..5000),
        origin in 0..90_000_i64,
        group in prop::option::of(prop::sample::select(vec![GroupBy::Line, GroupBy::Product, GroupBy::Recipe])),
    ) {
        let nanos = |seconds: i64| seconds * 1_000_000_000;
        let origin = Instant::from_unix_nanos(START_NANOS + nanos(origin - 45_000)).unwrap();
        let bucket = width.map(|width| Bucket { width_nanos: nanos(width), origin });
        let mut expected = std::collections::BTreeMap::<_, VerdictCounts>::new();
        let filter = Filter { kinds: vec![EntryKind::Decision], ..filter };
        for facts in FACTS.iter().filter(|facts| matches(facts, &filter)) {
            let start = bucket.map(|bucket| {
                let since = facts.time.unwrap().unix_nanos() - origin.unix_nanos();
                origin.unix_nanos() + since.div_euclid(bucket.width_nanos) * bucket.width_nanos
            });
            let group = group.map(|group| match group {
                GroupBy::Line => facts.line.as_ref().unwrap().to_string(),
                GroupBy::Product => facts.product.as_ref().unwrap().to_string(),
                GroupBy::Recipe => facts.recipe.as_ref().unwrap().0.to_string(),
            });
            expected.entry((start, group)).or_default().add(facts.verdict.unwrap(), 1);
        }
        match INDEX.1.count(&filter, CountBy { bucket, group }) {
            Ok(cells) => {
                let expected: Vec<CountCell> =
                    expected.into_iter().map(|((start, group), counts)| CountCell { start, group, counts }).collect();
                prop_assert_eq!(cells, expected);
            }
            Err(IndexError::Query(_)) => prop_assert!(expected.len() > 10_000),
            Err(error) => panic!("{error}"),
        }
    }
}

/// A log, its index in a folder, and the service over both.
struct Bench {
    dir: TempDir,
    log: Arc<SyntheticLog>,
    index: Arc<SledIndex>,
    service: HistoryService,
}

impl Bench {
    fn new(size: u64) -> Self {
        let dir = TempDir::new().unwrap();
        let log = SyntheticLog::new(SEED, size);
        let (index, _) = SledIndex::open(&dir.path().join("index"), KEY).unwrap();
        let index = Arc::new(index);
        let service = HistoryService::new(log.clone(), index.clone());
        let bench = Self { dir, log, index, service };
        bench.catch_up();
        bench
    }

    fn catch_up(&self) {
        Indexer::new(self.log.clone(), self.index.clone()).catch_up(|_| {}).unwrap();
    }

    fn page_all(&self, request: &ListRequest, mut between: impl FnMut()) -> Vec<u64> {
        let mut request = request.clone();
        let mut seen = Vec::new();
        loop {
            let page = self.service.list(&request).unwrap();
            seen.extend(page.rows.iter().map(|row| row.index.0));
            if page.next_cursor.is_empty() {
                return seen;
            }
            request.cursor = page.next_cursor;
            between();
        }
    }

    fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("index")
    }
}

fn open(path: &Path) -> (Arc<SledIndex>, Found) {
    let (index, found) = SledIndex::open(path, KEY).unwrap();
    (Arc::new(index), found)
}

#[test]
fn pages_neither_repeat_nor_miss_a_row_while_the_log_grows_and_the_index_is_rebuilt() {
    let bench = Bench::new(3_000);
    let filter = Filter { line: Some("line-2".parse().unwrap()), ..Filter::default() };
    let expected: Vec<u64> = (0..3_000).filter(|n| matches(&FACTS[*n as usize], &filter)).collect();
    let mut size = 3_000;
    let mut turns = 0;
    let grow = || {
        size += 100;
        bench.log.grow_to(size);
        turns += 1;
        if turns == 3 {
            bench.index.start_over("for this test").unwrap();
        }
        bench.catch_up();
    };
    let request = ListRequest { filter: filter.clone(), page_rows: 70, ..ListRequest::default() };
    let mut seen = bench.page_all(&request, grow);
    seen.reverse();
    assert_eq!(seen, expected);
    let request = ListRequest { order: Order::OldestFirst, ..request };
    let seen = bench.page_all(&request, || {});
    assert_eq!(seen, (0..size).filter(|n| matches(&FACTS[*n as usize], &filter)).collect::<Vec<_>>());
}

#[test]
fn a_cursor_is_refused_by_another_search_and_a_page_has_a_limit() {
    let bench = Bench::new(300);
    let request = ListRequest { page_rows: 10, ..ListRequest::default() };
    let cursor = bench.service.list(&request).unwrap().next_cursor;
    let filter = Filter { line: Some("line-1".parse().unwrap()), ..Filter::default() };
    let other = ListRequest { filter, cursor, ..request.clone() };
    assert!(matches!(bench.service.list(&other), Err(HistoryError::Cursor(CursorError::OtherFilter))));
    let garbage = ListRequest { cursor: "AAAA".repeat(1000), ..request.clone() };
    assert!(matches!(bench.service.list(&garbage), Err(HistoryError::Cursor(CursorError::Unknown))));
    assert!(matches!(bench.service.list(&ListRequest { page_rows: 501, ..request }), Err(HistoryError::PageSize(501))));
}

#[test]
fn a_decision_is_found_by_frame_and_by_part_and_opens_its_part_only_when_asked() {
    let bench = Bench::new(2_000);
    let frame = |n: u64| FrameKey {
        line: FACTS[n as usize].line.clone().unwrap(),
        camera: FACTS[n as usize].camera.clone().unwrap(),
        frame: frame_id(n),
    };
    let row = bench.service.decision_of(&frame(1_234), false).unwrap();
    assert_eq!((row.index, row.opened(PrivateField::Serial)), (EntryIndex(1_234), None));
    let row = bench.service.decision(EntryIndex(1_234), true).unwrap();
    assert_eq!(row.opened(PrivateField::Serial), Some(serial(1_234).as_str()));
    let unknown = FrameKey { frame: frame_id(9_999_999), ..frame(1_234) };
    assert!(matches!(bench.service.decision_of(&unknown, false), Err(HistoryError::NoFrame(_))));
    assert!(matches!(bench.service.decision(EntryIndex(508), false), Err(HistoryError::NoDecision { .. })));
    let filter = Filter { serial: Some(serial(1_000).parse().unwrap()), ..Filter::default() };
    let page = bench.service.list(&ListRequest { filter, ..ListRequest::default() }).unwrap();
    assert_eq!(page.rows.iter().map(|row| row.index.0).collect::<Vec<_>>(), [1_001, 1_000]);
}

#[test]
fn an_export_selects_what_its_checkpoint_covers_and_gaps_when_asked() {
    let bench = Bench::new(12_000);
    let filter = Filter { kinds: vec![EntryKind::Gap], ..Filter::default() };
    let gaps: Vec<u64> = bench.service.select(&filter, 10_000).unwrap().map(|index| index.unwrap().0).collect();
    assert_eq!(gaps, (0..10_000).filter(|n| n % 509 == 508).collect::<Vec<u64>>());
    let all = bench.service.select(&Filter::default(), 12_000).unwrap().count();
    assert_eq!(all, FACTS[..12_000].iter().filter(|facts| facts.kind == EntryKind::Decision).count());
    assert!(matches!(
        bench.service.select(&filter, 12_001).map(|_| ()),
        Err(HistoryError::Rebuilding { done: 12_000, total: 12_001, .. })
    ));
}

#[test]
fn a_restart_keeps_sealed_chunks_and_reads_the_rest_of_the_log_again() {
    let dir = TempDir::new().unwrap();
    copy_folder(CLOSED.path(), dir.path());
    let (index, found) = open(dir.path());
    assert_eq!((found, index.indexed_to()), (Found::Whole, EntryIndex(65_536)));
    let last = &FACTS[65_535];
    let (line, camera) = (last.line.as_ref().unwrap(), last.camera.as_ref().unwrap());
    assert_eq!(index.last_counter(line, camera).unwrap(), last.counter);
    assert_eq!(index.last_counter(line, &"no-such".parse().unwrap()).unwrap(), None);
    let log = SyntheticLog::new(SEED, 67_000);
    Indexer::new(log, index.clone()).catch_up(|_| {}).unwrap();
    assert_eq!(index.indexed_to(), EntryIndex(67_000));
    for n in [0_u64, 65_535, 65_536, 66_999] {
        assert_eq!(index.find_frame(FACTS[n as usize].frame.unwrap()).unwrap(), Some(EntryIndex(n)));
    }
    let last = &FACTS[66_999];
    let (line, camera) = (last.line.as_ref().unwrap(), last.camera.as_ref().unwrap());
    assert_eq!(index.last_counter(line, camera).unwrap(), last.counter);
    assert_eq!(index.last_time(), FACTS[..67_000].iter().filter_map(|facts| facts.time).max());
}

#[test]
fn forgotten_parts_are_found_in_no_chunk_sealed_growing_or_yet_to_come() {
    const CHUNK: u64 = 65_536;
    // Sixteen chunks are merged: more than a million entries, which take a minute and a half.
    let chunks = if std::env::var_os("LINEPROOF_MERGED").is_some() { 17 } else { 1 };
    let rows = chunks * CHUNK + 100;
    let facts = |n: u64| Facts {
        serial: Some(format!("S{n}").parse().unwrap()),
        lot: Some("L".parse().unwrap()),
        frame: None,
        ..FACTS[0].clone()
    };
    let apply = |index: &SledIndex, to: u64| {
        let mut next = index.indexed_to().0;
        while next < to {
            let end = to.min(next + 10_000);
            index.apply(EntryIndex(next), &(next..end).map(facts).collect::<Vec<_>>()).unwrap();
            next = end;
        }
    };
    let dir = TempDir::new().unwrap();
    let (index, _) = open(dir.path());
    apply(&index, rows);
    let gone = [5, CHUNK - 2, (chunks - 1) * CHUNK + 9, rows - 2, rows + 3];
    index.forget(&gone.map(EntryIndex), &[PrivateField::Serial]).unwrap();
    let found = |index: &SledIndex, filter: Filter, n: u64| {
        !index.page(&filter, n..n + 1, Order::OldestFirst, 10).unwrap().is_empty()
    };
    let by_serial = |n: u64| Filter { serial: Some(format!("S{n}").parse().unwrap()), ..Filter::default() };
    let by_lot = || Filter { lot: Some("L".parse().unwrap()), ..Filter::default() };
    let check = |index: &SledIndex| {
        for n in gone {
            assert!(!found(index, by_serial(n), n), "row {n} is still found");
            assert!(found(index, by_lot(), n), "the lot of row {n} was not to be forgotten");
            assert!(found(index, by_serial(n + 1), n + 1) && (n == 0 || found(index, by_serial(n - 1), n - 1)));
        }
    };
    apply(&index, rows + 10);
    check(&index);
    drop(index);
    let (index, found) = open(dir.path());
    assert_eq!((found, index.indexed_to().0), (Found::Whole, chunks * CHUNK));
    index.forget(&gone.map(EntryIndex), &[PrivateField::Serial]).unwrap();
    apply(&index, rows + 10);
    check(&index);
}

/// A closed index of one sealed chunk; `apply_rest` brings it to this size.
static CLOSED: LazyLock<TempDir> = LazyLock::new(|| {
    let dir = TempDir::new().unwrap();
    let (index, _) = open(dir.path());
    apply_rest(&index, 65_536);
    dir
});

/// What the indexer does, from facts that are parsed already.
fn apply_rest(index: &SledIndex, size: usize) {
    if let Some(reason) = index.damaged() {
        index.start_over(&reason).unwrap();
    }
    let done = index.indexed_to();
    index.apply(done, &FACTS[done.0 as usize..size]).unwrap();
}

/// Does something bad to a closed index, and expects it to be replaced and to answer again.
fn is_rebuilt_after(harm: impl FnOnce(&Path)) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("index");
    copy_folder(CLOSED.path(), &path);
    harm(&path);
    let (index, found) = open(&path);
    if found == Found::Whole {
        // Damage that opening does not see shows itself in reading, and the next round starts over.
        let _ = index.page(&Filter::default(), 0..66_000, Order::OldestFirst, 8192);
        let _ = FACTS[..65_536].iter().filter_map(|facts| facts.frame).find(|frame| index.find_frame(*frame).is_err());
    }
    apply_rest(&index, 66_000);
    assert_eq!((index.indexed_to(), index.damaged()), (EntryIndex(66_000), None));
    for n in (0..66_000).step_by(999) {
        if let Some(frame) = FACTS[n].frame {
            assert_eq!(index.find_frame(frame).unwrap(), Some(EntryIndex(n as u64)));
        }
    }
}

#[test]
fn a_truncated_database_is_rebuilt() {
    is_rebuilt_after(|path| {
        let db = fs::OpenOptions::new().write(true).open(path.join("db")).unwrap();
        db.set_len(db.metadata().unwrap().len() / 3).unwrap();
    });
}

#[test]
fn an_overwritten_database_is_rebuilt() {
    is_rebuilt_after(|path| {
        let mut bytes = fs::read(path.join("db")).unwrap();
        let middle = bytes.len() / 4..bytes.len() / 2;
        bytes[middle].fill(0x5a);
        fs::write(path.join("db"), bytes).unwrap();
    });
}

#[test]
fn garbage_instead_of_a_database_is_rebuilt() {
    is_rebuilt_after(|path| {
        for file in fs::read_dir(path).unwrap() {
            let file = file.unwrap().path();
            if file.is_file() {
                fs::write(file, b"this is no database").unwrap();
            }
        }
    });
}

#[test]
fn a_half_written_snapshot_of_the_database_does_not_keep_it_shut() {
    is_rebuilt_after(|path| fs::write(path.join("snap.0000000000001234.generating"), b"half").unwrap());
}

#[test]
fn a_copy_taken_while_the_index_grows_opens_and_catches_up() {
    let dir = TempDir::new().unwrap();
    let (index, _) = open(dir.path());
    let growing = std::thread::spawn(move || apply_rest(&index, FACTS.len()));
    let mut copies = 0;
    while copies == 0 || (copies < 3 && !growing.is_finished()) {
        let copy = TempDir::new().unwrap();
        copy_folder(dir.path(), copy.path());
        let (index, _) = open(copy.path());
        apply_rest(&index, FACTS.len());
        for n in (0..FACTS.len()).step_by(4_999) {
            if let Some(frame) = FACTS[n].frame {
                assert_eq!(index.find_frame(frame).unwrap(), Some(EntryIndex(n as u64)), "copy {copies}");
            }
        }
        copies += 1;
    }
    growing.join().unwrap();
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        if file.path().is_dir() {
            copy_folder(&file.path(), &to.join(file.file_name()));
        } else {
            // A file may be gone again by now, as it may be in a crash.
            let _ = fs::copy(file.path(), to.join(file.file_name()));
        }
    }
}

#[test]
fn an_index_of_another_log_another_key_or_more_entries_than_the_log_is_rebuilt() {
    let bench = Bench::new(4_000);
    let other = SyntheticLog::new(SEED + 1, 4_100);
    Indexer::new(other.clone(), bench.index.clone()).catch_up(|_| {}).unwrap();
    assert_eq!(bench.index.tip().unwrap().1, Blake3Digest::of(&other.entry(EntryIndex(4_099)).unwrap()));
    assert_eq!(bench.index.indexed_to(), EntryIndex(4_100));
    let shorter = SyntheticLog::new(SEED, 500);
    Indexer::new(shorter, bench.index.clone()).catch_up(|_| {}).unwrap();
    assert_eq!(bench.index.indexed_to(), EntryIndex(500));
    // It once said it knew 4,100 entries: that a frame is not among 500 does not say that it is new.
    let gone = FACTS[3_000].frame.unwrap();
    assert!(matches!(bench.index.find_frame(gone), Err(IndexError::Rebuilding { done: 500, total: 4_100 })));
    assert_eq!(bench.index.find_frame(FACTS[100].frame.unwrap()).unwrap(), Some(EntryIndex(100)));
    let path = bench.path();
    drop((bench.service, bench.index));
    let (_, found) = SledIndex::open(&path, [8; 32]).unwrap();
    assert_eq!(found, Found::OtherKey);
}

#[test]
fn searches_are_refused_with_a_percentage_while_the_index_is_far_behind() {
    let bench = Bench::new(5_000);
    bench.log.grow_to(20_000);
    let error = bench.service.list(&ListRequest::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the index is being rebuilt from the log: 25 % (5000 of 20000 entries); try again shortly"
    );
    assert_eq!(bench.service.decision(EntryIndex(19_999), false).unwrap().index, EntryIndex(19_999));
    bench.catch_up();
    assert_eq!(bench.service.list(&ListRequest::default()).unwrap().rows[0].index, EntryIndex(19_999));
}

#[test]
fn the_indexer_follows_new_checkpoints_by_itself() {
    let bench = Bench::new(10);
    let handle = Indexer::new(bench.log.clone(), bench.index.clone()).spawn();
    bench.log.grow_to(2_000);
    let give_up = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while bench.index.indexed_to() < EntryIndex(2_000) {
        assert!(std::time::Instant::now() < give_up, "indexed only {}", bench.index.indexed_to());
        std::thread::yield_now();
    }
    drop(handle);
}

#[test]
fn serial_numbers_and_lots_never_stand_in_the_index_files() {
    fn files(path: &Path) -> Vec<Vec<u8>> {
        let read = |file: fs::DirEntry| match file.path() {
            path if path.is_dir() => files(&path),
            path => vec![fs::read(path).unwrap()],
        };
        fs::read_dir(path).unwrap().flat_map(|file| read(file.unwrap())).collect()
    }
    let files = files(CLOSED.path());
    let holds = |text: &[u8]| files.iter().any(|bytes| bytes.windows(text.len()).any(|window| window == text));
    assert!(holds(b"product-1"), "the search itself works");
    assert!(!holds(b"SN-0"));
    assert!(!holds(b"LOT-0"));
}

#[test]
fn an_index_in_use_is_left_alone() {
    let bench = Bench::new(100);
    assert!(matches!(SledIndex::open(&bench.path(), KEY), Err(IndexError::InUse { .. })));
}

#[test]
fn reindexing_puts_a_fresh_index_in_the_place_of_one_that_nobody_has_open() {
    let bench = Bench::new(2_000);
    let path = bench.path();
    let log = bench.log.clone();
    let refused = reindex(&path, KEY, log.clone(), |_| {}).unwrap_err();
    assert!(refused.to_string().contains("in use"), "{refused}");
    let dir = bench.dir;
    drop((bench.service, bench.index));
    let mut last = None;
    assert_eq!(reindex(&path, [8; 32], log.clone(), |progress| last = Some(progress)).unwrap(), 2_000);
    assert_eq!(last, Some(Progress { done: 2_000, total: 2_000 }));
    let (_, found) = SledIndex::open(&path, [8; 32]).unwrap();
    assert_eq!(found, Found::Whole);
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(left, ["index"]);
}
