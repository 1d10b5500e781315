//! Stories of the log on a real disk.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
};

use aes_gcm::{
    Aes256Gcm, KeyInit as _,
    aead::{Aead as _, Payload},
};
use tempfile::TempDir;

mod erase;

use super::{wal::SEGMENT_ENTRIES, *};
use crate::{
    core::lineage::{
        checkpoint::Checkpoint,
        entry::{Entry, tests::decision},
        private::{Opening, PrivateField},
        tiles::Tile,
        tree::{leaf_hash, root_of, verify_consistency, verify_inclusion},
    },
    ports::{
        archive::{ArchiveError, ImageLocation, RetentionClass},
        index::IndexError,
        lineage::{Appended, FrameClaim, LogReader as _, PrivateRecord},
        sealer::SealError,
    },
    types::{EntryIndex, Instant},
};

struct TestSealer(AtomicU64);

impl Sealer for TestSealer {
    fn seal(&self, aad: &[u8], plain: &[u8]) -> Vec<u8> {
        let mut nonce = [0; 12];
        nonce[..8].copy_from_slice(&self.0.fetch_add(1, Ordering::Relaxed).to_le_bytes());
        let sealed = Aes256Gcm::new(&[1; 32].into()).encrypt(&nonce.into(), Payload { msg: plain, aad }).unwrap();
        [&nonce[..], &sealed].concat()
    }

    fn open(&self, aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let (nonce, msg) = sealed.split_at_checked(12).ok_or(SealError::Changed)?;
        Aes256Gcm::new(&[1; 32].into()).decrypt(nonce.into(), Payload { msg, aad }).map_err(|_| SealError::Changed)
    }
}

/// An archive that only counts its syncs, and fails them when told to.
#[derive(Default)]
struct TestArchive {
    syncs: AtomicU64,
    broken: AtomicBool,
}

impl ImageArchive for TestArchive {
    fn put(&self, _: &RetentionClass, _: Instant, _: Blake3Digest, _: &[u8]) -> Result<ImageLocation, ArchiveError> {
        unreachable!("the log puts no images")
    }

    fn sync(&self) -> Result<(), ArchiveError> {
        self.syncs.fetch_add(1, Ordering::Relaxed);
        let source = std::io::Error::from_raw_os_error(5);
        if self.broken.load(Ordering::Relaxed) {
            Err(ArchiveError::Io { path: "packs".into(), source })
        } else {
            Ok(())
        }
    }

    fn get(&self, _: &ImageLocation, _: Blake3Digest) -> Result<Vec<u8>, ArchiveError> {
        unreachable!("the log gets no images")
    }
}

/// An index that knows what the test tells it.
#[derive(Default)]
struct TestIndex {
    known: Mutex<(u64, std::collections::HashMap<[u8; 16], EntryIndex>)>,
}

impl FrameIndex for TestIndex {
    fn indexed_to(&self) -> EntryIndex {
        EntryIndex(self.known.lock().unwrap().0)
    }

    fn find_frame(&self, key: [u8; 16]) -> Result<Option<EntryIndex>, IndexError> {
        Ok(self.known.lock().unwrap().1.get(&key).copied())
    }
}

/// One data directory and what is plugged into its log.
struct Plant {
    /// Removed with the last of its users.
    _dir: Arc<TempDir>,
    config: LogConfig,
    archive: Arc<TestArchive>,
    index: Arc<TestIndex>,
}

type Open = (LogHandle, LogStoreReader, RecoveryReport);

impl Plant {
    fn new() -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let config = LogConfig { disk_reserve_bytes: 0, ..LogConfig::new(&dir.path().join("data")) };
        Self { _dir: dir, config, archive: Arc::default(), index: Arc::default() }
    }

    fn signer() -> Arc<LogSigner> {
        Arc::new(LogSigner::new("plant.example/log", &[7; 32]).unwrap())
    }

    fn try_open(&self) -> Result<Open, OpenError> {
        let sealer = Arc::new(TestSealer(AtomicU64::new(0)));
        LogStore::open(self.config.clone(), Self::signer(), sealer, self.archive.clone(), self.index.clone())
    }

    fn open(&self) -> Open {
        self.try_open().unwrap()
    }

    /// Everything on disk as it is now, as a killed process would leave it.
    fn copy(&self) -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        copy_tree(&self.config.data_dir, &dir.path().join("data"));
        let config = LogConfig { disk_reserve_bytes: 0, ..LogConfig::new(&dir.path().join("data")) };
        Self { _dir: dir, config, archive: Arc::default(), index: Arc::default() }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.config.data_dir.join(name)
    }
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for item in fs::read_dir(from).unwrap() {
        let item = item.unwrap();
        let target = to.join(item.file_name());
        if item.file_type().unwrap().is_dir() {
            copy_tree(&item.path(), &target);
        } else {
            fs::copy(item.path(), target).unwrap();
        }
    }
}

fn serial(counter: u64) -> Opening {
    Opening { field: PrivateField::Serial, salt: [5; 16], value: format!("SERIAL-{counter}") }
}

fn append(counter: u64) -> Append {
    let mut decision = decision(counter);
    decision.image.archive = "none:rule".into();
    decision.private.serial = Some(serial(counter).commitment());
    let frame = Some(FrameClaim { key: decision.frame_key(), encoded: decision.image.encoded });
    let private = PrivateRecord { openings: vec![serial(counter)], image_at: None };
    Append { entry: Entry::Decision(Box::new(decision)).encode().unwrap(), private, frame }
}

/// An entry that is cheap to make.
fn small(counter: u64) -> Append {
    Append { entry: format!("{{\"n\":{counter}}}").into_bytes(), private: PrivateRecord::default(), frame: None }
}

fn submit(log: &LogHandle, append: Append) -> Result<Appended, AppendError> {
    let (sender, receiver) = mpsc::channel();
    log.submit(append, Box::new(move |outcome| sender.send(outcome).unwrap()));
    receiver.recv().unwrap()
}

/// Appends many without waiting for each, then waits for all.
fn submit_all(log: &LogHandle, appends: impl Iterator<Item = Append>) -> Vec<Result<Appended, AppendError>> {
    let (sender, receiver) = mpsc::channel();
    for append in appends {
        let sender = sender.clone();
        log.submit(append, Box::new(move |outcome| sender.send(outcome).unwrap()));
    }
    drop(sender);
    receiver.iter().collect()
}

fn written(outcome: Result<Appended, AppendError>) -> Receipt {
    match outcome {
        Ok(Appended::Written(receipt)) => receipt,
        other => panic!("{other:?}"),
    }
}

/// Checks the whole published log with nothing but its files and the public key.
fn verify_published(plant: &Plant, reader: &LogStoreReader) -> Checkpoint {
    let note = fs::read_to_string(plant.file("log/checkpoint")).unwrap();
    let checkpoint = Checkpoint::open(&note, Plant::signer().verifier_key()).unwrap();
    assert_eq!(*note, *reader.checkpoint().unwrap().note);
    let entries = all_entries(reader, checkpoint.size);
    assert_eq!(root_of(entries.iter().map(|entry| leaf_hash(entry))), checkpoint.root);
    checkpoint
}

fn all_entries(reader: &LogStoreReader, size: u64) -> Vec<Vec<u8>> {
    let mut entries = Vec::new();
    while (entries.len() as u64) < size {
        let more = reader.entries(EntryIndex(entries.len() as u64), EntryIndex(size)).unwrap();
        assert!(!more.is_empty());
        entries.extend(more);
    }
    entries
}

#[test]
fn an_acknowledged_entry_is_read_proven_and_signed() {
    let plant = Plant::new();
    let (log, reader, report) = plant.open();
    assert!(report.created && report.read_only.is_none());
    let outcomes = submit_all(&log, (0..600).map(append));
    let receipts: Vec<Receipt> = outcomes.into_iter().map(written).collect();
    assert_eq!(receipts.iter().map(|r| r.index.0).collect::<Vec<_>>(), (0..600).collect::<Vec<_>>());
    assert_eq!(reader.entry(EntryIndex(599)).unwrap(), append(599).entry, "readable before its checkpoint");
    log.checkpoint_now().unwrap();
    let checkpoint = verify_published(&plant, &reader);
    assert_eq!(checkpoint.size, 600);
    for index in [0, 255, 256, 511, 512, 599] {
        let proof = reader.inclusion_proof(EntryIndex(index), 600).unwrap();
        let leaf = receipts[usize::try_from(index).unwrap()].leaf_hash;
        verify_inclusion(index, 600, &leaf, &proof, &checkpoint.root).unwrap();
        assert_eq!(reader.private(EntryIndex(index)).unwrap().openings, [serial(index)]);
    }
    for old in [1, 255, 256, 300, 600] {
        let old_root = root_of(receipts[..usize::try_from(old).unwrap()].iter().map(|receipt| receipt.leaf_hash));
        let proof = reader.consistency_proof(old, 600).unwrap();
        verify_consistency(old, &old_root, 600, &checkpoint.root, &proof).unwrap();
        let proof = reader.inclusion_proof(EntryIndex(0), old).unwrap();
        verify_inclusion(0, old, &receipts[0].leaf_hash, &proof, &old_root).unwrap();
    }
    assert!(reader.inclusion_proof(EntryIndex(600), 601).is_err());
    assert!(matches!(reader.entry(EntryIndex(600)), Err(ReadError::NoEntry { size: 600, .. })));
}

#[test]
fn a_checkpoint_follows_within_a_second_without_being_asked() {
    let plant = Plant::new();
    let (log, reader, _) = plant.open();
    let begun = std::time::Instant::now();
    written(submit(&log, append(0)));
    let mut signal = lock_mutex(&log.shared.signal);
    while signal.published < 1 {
        signal = log.shared.changed.wait(signal).unwrap();
    }
    drop(signal);
    assert!(begun.elapsed().as_secs_f32() < 5.0, "a second, with patience for a busy test machine");
    assert_eq!(reader.checkpoint().unwrap().size, 1);
}

#[test]
fn a_retry_gets_the_same_entry_in_the_group_later_and_after_a_restart() {
    let plant = Plant::new();
    let (log, _, _) = plant.open();
    let outcomes = submit_all(&log, [append(0), append(0), append(1)].into_iter());
    let first = written(outcomes[0].clone());
    assert_eq!(outcomes[1].clone().unwrap(), Appended::Duplicate(first));
    assert_eq!(submit(&log, append(0)).unwrap(), Appended::Duplicate(first));
    let mut other = append(0);
    other.frame.as_mut().unwrap().encoded = Blake3Digest::of(b"another picture");
    assert_eq!(submit(&log, other.clone()).unwrap(), Appended::Conflict(first));
    log.shutdown();
    drop(log);
    let (log, _, report) = plant.open();
    assert_eq!((report.size, report.recovered), (2, 0));
    assert_eq!(submit(&log, append(0)).unwrap(), Appended::Duplicate(first));
    assert_eq!(submit(&log, other.clone()).unwrap(), Appended::Conflict(first));
    let key = append(0).frame.unwrap().key;
    assert_eq!(log.find_frame(&key).unwrap(), Some((first, append(0).frame.unwrap().encoded)));
    // Once the index knows the entry, memory forgets it and the index answers.
    *plant.index.known.lock().unwrap() = (2, [(key.hash16(), first.index)].into());
    assert_eq!(submit(&log, other).unwrap(), Appended::Conflict(first));
    assert!(lock_read(&log.shared.frames).get(&key.hash16()).is_none());
    assert_eq!(submit(&log, append(0)).unwrap(), Appended::Duplicate(first));
}

#[test]
fn a_killed_process_loses_nothing_that_was_acknowledged() {
    let plant = Plant::new();
    let (log, _, _) = plant.open();
    submit_all(&log, (0..300).map(append)).into_iter().for_each(|outcome| {
        written(outcome);
    });
    log.checkpoint_now().unwrap();
    submit_all(&log, (300..310).map(append)).into_iter().for_each(|outcome| {
        written(outcome);
    });
    drop(log);
    let (log, reader, report) = plant.open();
    assert_eq!(report.size, 310);
    assert_eq!(report.torn_bytes, 0);
    assert_eq!(verify_published(&plant, &reader).size, 310);
    assert!(matches!(submit(&log, append(305)), Ok(Appended::Duplicate(_))));
    assert_eq!(written(submit(&log, append(310))).index.0, 310);
}

/// The log after a checkpoint over three entries, with the write-ahead log of six: the last group is not acknowledged.
fn with_unacknowledged_group() -> (Plant, Vec<u8>, usize) {
    let plant = Plant::new();
    let (log, _, _) = plant.open();
    submit_all(&log, (0..3).map(append));
    log.checkpoint_now().unwrap();
    let copy = plant.copy();
    let before = fs::metadata(copy.file("wal/00000000000000000000.wal")).unwrap().len();
    let dir = plant.config.wal_dir();
    let mut segment = wal::Segment::resume(&dir, &wal::scan(&dir, 0, "plant.example/log").unwrap()).unwrap();
    let mut group = Vec::new();
    for index in 3..6 {
        let record = wal::Record { index, entry: append(index).entry.into(), sealed: Vec::new().into() };
        segment.encode_entry(3, &record, &mut group);
    }
    segment.commit(&group, 6).unwrap();
    let whole = fs::read(plant.file("wal/00000000000000000000.wal")).unwrap();
    // Without the commit frame, which is written after the sync.
    let whole = whole[..whole.len() - 60].to_vec();
    (copy, whole, usize::try_from(before).unwrap())
}

#[test]
fn a_group_torn_at_any_byte_is_cut_and_the_log_goes_on() {
    let (plant, whole, before) = with_unacknowledged_group();
    let path = plant.file("wal/00000000000000000000.wal");
    let mut kept_seen = [0; 4];
    for cut in before..=whole.len() {
        fs::write(&path, &whole[..cut]).unwrap();
        let scan = wal::scan(&plant.config.wal_dir(), 0, "plant.example/log").unwrap();
        assert_eq!(scan.damage, None, "cut at {cut}");
        assert_eq!(scan.torn_bytes, cut as u64 - scan.end, "cut at {cut}");
        kept_seen[scan.records.len() - 3] += 1;
        if cut % 211 == 0 || cut == whole.len() {
            let copy = plant.copy();
            let (log, reader, report) = copy.open();
            assert_eq!(report.read_only, None, "cut at {cut}");
            assert_eq!(report.size, scan.records.len() as u64);
            let next = written(submit(&log, append(900)));
            assert_eq!(next.index.0, report.size);
            log.checkpoint_now().unwrap();
            assert_eq!(verify_published(&copy, &reader).size, report.size + 1);
        }
    }
    assert!(kept_seen.iter().all(|count| *count > 0), "{kept_seen:?}");
}

#[test]
fn pages_of_the_last_group_may_be_lost_in_any_order() {
    let (plant, whole, before) = with_unacknowledged_group();
    let path = plant.file("wal/00000000000000000000.wal");
    // The first page of the group never reached the disk, its last frame did.
    let mut holed = whole.clone();
    holed[before..before + 512].fill(0);
    fs::write(&path, &holed).unwrap();
    let (log, _, report) = plant.open();
    assert_eq!((report.read_only, report.size), (None, 3));
    assert_eq!(report.torn_bytes, (whole.len() - before) as u64);
    assert_eq!(written(submit(&log, append(3))).index.0, 3);
}

#[test]
fn damage_before_an_acknowledged_group_makes_the_log_read_only() {
    let plant = Plant::new();
    let (log, _, _) = plant.open();
    submit_all(&log, (0..3).map(append));
    log.checkpoint_now().unwrap();
    for counter in 3..8 {
        written(submit(&log, append(counter)));
    }
    drop(log);
    let copy = plant.copy();
    let path = copy.file("wal/00000000000000000000.wal");
    let bytes = fs::read(&path).unwrap();
    // Entry 7, the last one: its commit frame says that it was acknowledged.
    let mut last = bytes.clone();
    let at = last.len() - 60 - 100;
    last[at] ^= 1;
    fs::write(&path, &last).unwrap();
    let (log, reader, report) = copy.open();
    let reason = report.read_only.unwrap();
    assert!(reason.contains("acknowledged"), "{reason}");
    assert!(matches!(submit(&log, append(9)), Err(AppendError::ReadOnly(_))));
    assert!(matches!(log.checkpoint_now(), Err(AppendError::ReadOnly(_))));
    assert_eq!(reader.entry(EntryIndex(6)).unwrap(), append(6).entry, "reading goes on");
    assert_eq!(reader.inclusion_proof(EntryIndex(0), 3).unwrap().len(), 2);
    assert_eq!(fs::read(&path).unwrap(), last, "nothing is cut or repaired");
}

/// Every file below a directory, by its path relative to it.
fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for item in fs::read_dir(dir).unwrap() {
        let path = item.unwrap().path();
        if path.is_dir() { found.extend(files_below(&path)) } else { found.push(path) }
    }
    found
}

#[test]
fn a_flipped_bit_in_any_file_is_detected_or_healed_from_the_write_ahead_log() {
    let plant = Plant::new();
    let (log, _, _) = plant.open();
    let count = SEGMENT_ENTRIES + 300;
    submit_all(&log, (0..count).map(|counter| if counter < 2 { append(counter) } else { small(counter) }));
    log.shutdown();
    drop(log);
    // Opening retires the first segment: its tiles stand alone now.
    let (log, reader, report) = plant.open();
    submit(&log, small(count)).unwrap();
    log.shutdown();
    assert_eq!(reader.private(EntryIndex(1)).unwrap().openings, [serial(1)]);
    drop((log, reader, report));
    assert!(!plant.file("wal/00000000000000000000.wal").exists(), "its entries are durable in tiles");
    let data = plant.config.data_dir.clone();
    let mut kinds = std::collections::BTreeMap::new();
    for path in files_below(&data) {
        let name = path.strip_prefix(&data).unwrap().to_string_lossy().into_owned();
        let tile = name.strip_prefix("log/").and_then(Tile::parse);
        if tile.is_some_and(|tile| Tile::in_log(tile.kind, tile.index, count + 1) != Some(tile)) {
            // A partial tile of an earlier checkpoint: nothing reads it any more, `fsck` looks at it.
            continue;
        }
        // One or two files of each kind: the first and the last of a folder.
        let kind = name.rsplit_once('/').map_or(name.clone(), |(folder, _)| folder.to_owned());
        kinds.entry(kind).or_insert_with(Vec::new).push(name);
    }
    for (kind, mut names) in kinds {
        names.sort();
        names.dedup();
        for name in [names.first().unwrap(), names.last().unwrap()] {
            let copy = plant.copy();
            let path = copy.file(name);
            let mut bytes = fs::read(&path).unwrap();
            if bytes.is_empty() {
                assert_eq!(name, "lock");
                continue;
            }
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(&path, &bytes).unwrap();
            let private = name.starts_with("private/");
            match copy.try_open() {
                Err(error) => {
                    assert!(matches!(name.as_str(), "format" | "anchor" | "log/checkpoint"), "{name}: {error}")
                }
                Ok((_, reader, report)) if private => {
                    assert_eq!(report.read_only, None, "{name}");
                    let bundle: u64 = name.trim_start_matches("private/").parse().unwrap();
                    let read = (bundle * 256..(bundle + 1) * 256)
                        .try_for_each(|index| reader.private(EntryIndex(index)).map(drop));
                    assert!(read.is_err() || report.rewritten_files > 0, "{name}");
                }
                Ok((_, _, report)) => {
                    let healed = report.rewritten_files > 0 && kind.starts_with("log/");
                    assert!(report.read_only.is_some() || healed, "{name}: {report:?}");
                }
            }
        }
    }
}

#[test]
fn partial_tiles_of_earlier_checkpoints_are_checked_whole_and_healed_at_the_next_start() {
    let plant = Plant::new();
    let (log, _, _) = plant.open();
    for count in [0..5, 5..9] {
        submit_all(&log, count.map(append));
        log.checkpoint_now().unwrap();
    }
    log.shutdown();
    drop(log);
    for name in ["log/tile/0/000.p/5", "log/tile/entries/000.p/5"] {
        let good = fs::read(plant.file(name)).unwrap();
        for torn in [&good[..good.len() / 2], &[], &vec![0; good.len()]] {
            fs::write(plant.file(name), torn).unwrap();
            assert_eq!(fsck(&plant, 0).problem_count, 1, "{name}");
            let (_, _, report) = plant.open();
            assert_eq!((report.read_only, report.rewritten_files), (None, 1), "{name}");
            assert_eq!(fs::read(plant.file(name)).unwrap(), good);
            assert!(fsck(&plant, 0).is_clean());
        }
    }
}

#[test]
fn an_older_copy_of_the_log_is_recognised_by_the_anchor() {
    let plant = Plant::new();
    let (log, _, _) = plant.open();
    submit_all(&log, (0..300).map(append));
    log.checkpoint_now().unwrap();
    let older = plant.copy();
    submit_all(&log, (300..400).map(append));
    log.shutdown();
    fs::copy(plant.file("anchor"), older.file("anchor")).unwrap();
    let (log, reader, report) = older.open();
    let reason = report.read_only.unwrap();
    assert!(reason.contains("rolled back") && reason.contains("400"), "{reason}");
    assert!(matches!(submit(&log, append(400)), Err(AppendError::ReadOnly(_))));
    assert_eq!(verify_published(&older, &reader).size, 300);
}

#[test]
fn an_older_anchor_or_another_history_is_refused() {
    let plant = Plant::new();
    let (log, _, _) = plant.open();
    submit_all(&log, (0..3).map(append));
    log.checkpoint_now().unwrap();
    let (mine, theirs) = (plant.copy(), plant.copy());
    submit_all(&log, (3..5).map(append));
    log.shutdown();
    // The anchor's volume came back from a backup.
    let copy = plant.copy();
    fs::copy(mine.file("anchor"), copy.file("anchor")).unwrap();
    let reason = copy.open().2.read_only.unwrap();
    assert!(reason.contains("anchor was rolled back"), "{reason}");
    // Another copy went another way with the same key.
    let (log, _, _) = theirs.open();
    submit_all(&log, (13..15).map(append));
    log.shutdown();
    fs::copy(plant.file("anchor"), theirs.file("anchor")).unwrap();
    drop(log);
    let reason = theirs.open().2.read_only.unwrap();
    assert!(reason.contains("fork"), "{reason}");
}

#[test]
fn two_copies_that_share_an_anchor_do_not_both_go_on() {
    let plant = Plant::new();
    let (log, _, _) = plant.open();
    submit_all(&log, (0..3).map(append));
    log.shutdown();
    drop(log);
    let mut twin = plant.copy();
    twin.config.anchor = plant.config.anchor.clone();
    let (log, _, _) = plant.open();
    let (twin_log, twin_reader, _) = twin.open();
    written(submit(&log, append(3)));
    log.checkpoint_now().unwrap();
    written(submit(&twin_log, append(4)));
    let error = twin_log.checkpoint_now().unwrap_err();
    assert!(matches!(&error, AppendError::Stopped(reason) if reason.contains("anchor")), "{error}");
    assert_eq!(twin_reader.checkpoint().unwrap().size, 3, "no contradicting checkpoint was published");
}

#[test]
fn what_must_not_be_opened_is_refused_with_what_to_do() {
    let plant = Plant::new();
    let (log, _, _) = plant.open();
    assert!(matches!(plant.try_open(), Err(OpenError::InUse { .. })));
    submit_all(&log, (0..3).map(append));
    log.shutdown();
    drop(log);
    let copy = plant.copy();
    fs::remove_file(copy.file("anchor")).unwrap();
    let error = copy.try_open().map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("copy") && error.contains("checkpoint"), "{error}");
    let copy = plant.copy();
    fs::write(copy.file("format"), "lineproof-data 2\n").unwrap();
    assert!(matches!(copy.try_open(), Err(OpenError::Newer { .. })));
    let copy = plant.copy();
    let path = copy.file("wal/00000000000000000000.wal");
    let mut bytes = fs::read(&path).unwrap();
    bytes[11] = 2;
    fs::write(&path, bytes).unwrap();
    assert!(matches!(copy.try_open(), Err(OpenError::Newer { .. })));
    let copy = plant.copy();
    let other = Arc::new(LogSigner::new("plant.example/log", &[8; 32]).unwrap());
    let sealer = Arc::new(TestSealer(AtomicU64::new(0)));
    let opened = LogStore::open(copy.config.clone(), other, sealer, copy.archive.clone(), copy.index.clone());
    assert!(matches!(opened.map(|_| ()), Err(OpenError::OtherLog { .. })));
}

#[test]
fn a_full_disk_refuses_and_resumes_by_itself() {
    let mut plant = Plant::new();
    plant.config.disk_reserve_bytes = u64::MAX;
    let (log, _, _) = plant.open();
    let error = submit(&log, append(0)).unwrap_err();
    assert!(matches!(error, AppendError::DiskReserve { reserve_bytes: u64::MAX, .. }), "{error}");
    assert_eq!(log.state(), LogState::Serving);
    log.checkpoint_now().unwrap();
}

#[test]
fn after_a_failed_sync_nothing_is_acknowledged_any_more() {
    let mut plant = Plant::new();
    let (sender, receiver) = mpsc::channel();
    let sender = Mutex::new(sender);
    plant.config.on_stop = Some(Arc::new(move |reason: &str| sender.lock().unwrap().send(reason.to_owned()).unwrap()));
    let (log, reader, _) = plant.open();
    let with_image = |counter| {
        let mut append = append(counter);
        append.private.image_at = Some("ok/2026-11-23/00000000:64".into());
        append
    };
    written(submit(&log, append(0)));
    assert_eq!(plant.archive.syncs.load(Ordering::Relaxed), 0, "no image, no sync");
    written(submit(&log, with_image(1)));
    assert_eq!(plant.archive.syncs.load(Ordering::Relaxed), 1);
    plant.archive.broken.store(true, Ordering::Relaxed);
    assert!(matches!(submit(&log, with_image(2)), Err(AppendError::Stopped(_))));
    assert!(receiver.recv().unwrap().contains("packs"));
    assert!(matches!(submit(&log, append(3)), Err(AppendError::Stopped(_))), "not retried");
    assert!(matches!(log.checkpoint_now(), Err(AppendError::Stopped(_))));
    assert_eq!(reader.entry(EntryIndex(1)).unwrap(), append(1).entry);
    drop((log, reader));
    plant.archive.broken.store(false, Ordering::Relaxed);
    let (log, _, report) = plant.open();
    assert_eq!(report.size, 2, "verified again at the next start");
    assert_eq!(written(submit(&log, append(3))).index.0, 2);
}

#[test]
fn many_callers_share_groups_and_each_gets_its_own_answer() {
    let plant = Plant::new();
    let (log, reader, _) = plant.open();
    let start = Arc::new(Barrier::new(16));
    let callers: Vec<_> = (0..16_u64)
        .map(|caller| {
            let (log, start) = (log.clone(), start.clone());
            std::thread::spawn(move || {
                start.wait();
                (0..40).map(|n| written(submit(&log, append(caller * 1000 + n))).index.0).collect::<Vec<_>>()
            })
        })
        .collect();
    let mut all = Vec::new();
    for (caller, join) in (0..).zip(callers) {
        let indexes = join.join().unwrap();
        assert!(indexes.is_sorted(), "one caller's entries keep their order");
        for (n, index) in (0..).zip(&indexes) {
            assert_eq!(reader.entry(EntryIndex(*index)).unwrap(), append(caller * 1000 + n).entry);
        }
        all.extend(indexes);
    }
    all.sort_unstable();
    assert_eq!(all, (0..640).collect::<Vec<_>>());
    log.shutdown();
    assert_eq!(verify_published(&plant, &reader).size, 640);
    assert!(matches!(submit(&log, append(9999)), Err(AppendError::Closed)));
}

#[test]
fn every_append_is_answered_once_however_the_log_ends() {
    for shut in [true, false] {
        let plant = Plant::new();
        let (log, _, _) = plant.open();
        let (sender, receiver) = mpsc::channel();
        let callers: Vec<_> = (0..4_u64)
            .map(|caller| {
                let (log, sender) = (log.clone(), sender.clone());
                std::thread::spawn(move || {
                    for n in 0..200 {
                        let (sender, last) = (sender.clone(), log.clone());
                        // The answer keeps a handle: it may be the last one, on the writer's own thread.
                        let done = move |outcome| {
                            sender.send((caller * 1000 + n, outcome)).unwrap();
                            drop(last);
                        };
                        log.submit(small(caller * 1000 + n), Box::new(done));
                    }
                })
            })
            .collect();
        drop(sender);
        if shut {
            log.shutdown();
        }
        drop(log);
        callers.into_iter().for_each(|join| join.join().unwrap());
        let mut answers: Vec<(u64, Result<Appended, AppendError>)> = receiver.iter().collect();
        assert!(answers.iter().all(|(_, outcome)| matches!(outcome, Ok(_) | Err(AppendError::Closed))));
        assert_eq!(answers.len(), 800);
        answers.sort_by_key(|(n, _)| *n);
        answers.dedup_by_key(|(n, _)| *n);
        assert_eq!(answers.len(), 800);
    }
}

#[test]
fn private_values_are_on_no_disk_in_the_clear_and_outlive_their_segment() {
    let plant = Plant::new();
    let (log, _, _) = plant.open();
    written(submit(&log, append(1)));
    submit_all(&log, (2..SEGMENT_ENTRIES + 2).map(small));
    log.shutdown();
    drop(log);
    let (log, reader, _) = plant.open();
    assert_eq!(reader.private(EntryIndex(0)).unwrap().openings, [serial(1)]);
    assert_eq!(reader.private(EntryIndex(1)).unwrap(), PrivateRecord::default());
    for path in files_below(&plant.config.data_dir) {
        let bytes = fs::read(&path).unwrap();
        assert!(!bytes.windows(7).any(|window| window == b"SERIAL-"), "{}", path.display());
    }
    drop(log);
}

#[test]
fn entries_that_are_no_single_line_objects_are_refused() {
    let plant = Plant::new();
    let (log, _, _) = plant.open();
    for wrong in [&b""[..], b"[]", b"{\n}", b"{\xff}", &[b'{'; 9000]] {
        let append = Append { entry: wrong.to_vec(), private: PrivateRecord::default(), frame: None };
        assert!(matches!(submit(&log, append), Err(AppendError::Invalid(_))), "{wrong:?}");
    }
    assert_eq!(log.size(), 0);
}

fn fsck(plant: &Plant, indexed_to: u64) -> fsck::FsckReport {
    let (signer, sealer) = (Plant::signer(), TestSealer(AtomicU64::new(0)));
    let key = signer.verifier_key();
    let (config, archive) = (&plant.config, &*plant.archive);
    fsck::Fsck { config, key, sealer: &sealer, archive, indexed_to: Some(indexed_to) }.run(|_, _| {}).unwrap()
}

#[test]
fn fsck_passes_a_good_log_and_finds_a_flipped_bit_in_any_file() {
    let plant = Plant::new();
    let (log, _, _) = plant.open();
    submit_all(
        &log,
        (0..SEGMENT_ENTRIES).map(|counter| Append { private: PrivateRecord::default(), ..small_entry(counter) }),
    );
    log.checkpoint_now().unwrap();
    for counter in 0..3 {
        submit(&log, append(counter)).unwrap();
        log.checkpoint_now().unwrap();
    }
    drop(log);
    let report = fsck(&plant, SEGMENT_ENTRIES + 3);
    assert!(report.is_clean(), "{:?}", report.problems);
    assert_eq!((report.published, report.waiting, report.private_values), (SEGMENT_ENTRIES + 3, 0, 3));
    assert_eq!(fsck(&plant, SEGMENT_ENTRIES + 4).problem_count, 1, "the index of another log");
    let data = plant.config.data_dir.clone();
    let mut names: Vec<String> = files_below(&data)
        .iter()
        .map(|path| path.strip_prefix(&data).unwrap().to_string_lossy().into_owned())
        .filter(|name| name != "lock" && name != "format")
        .collect();
    names.sort();
    // Of the 64 alike in one folder one is enough.
    names.retain(|name| {
        !name.rsplit('/').next().unwrap().starts_with('0') || name.ends_with("000") || name.ends_with("wal")
    });
    assert!(names.iter().any(|name| name == "log/tile/0/064.p/1"), "an earlier partial tile is looked at: {names:?}");
    for name in names {
        let path = plant.file(&name);
        let good = fs::read(&path).unwrap();
        let mut bytes = good.clone();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert!(!fsck(&plant, 0).is_clean(), "{name}");
        fs::write(&path, good).unwrap();
    }
    assert!(fsck(&plant, 0).is_clean());
}

/// An entry of a kind this release does not know.
fn small_entry(counter: u64) -> Append {
    let entry = format!("{{\"kind\":\"later\",\"n\":{counter},\"v\":1}}").into_bytes();
    Append { entry, ..small(counter) }
}

mod model {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Append(u16),
        Checkpoint,
        Kill,
        Restart,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (1_u16..700).prop_map(Step::Append),
            2 => Just(Step::Checkpoint),
            1 => Just(Step::Kill),
            1 => Just(Step::Restart),
        ];
        proptest::collection::vec(step, 1..8)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 30, ..ProptestConfig::default() })]

        #[test]
        fn whatever_happens_the_log_is_the_list_of_what_was_acknowledged(steps in steps(), at in any::<prop::sample::Index>()) {
            let plant = Plant::new();
            let (mut log, mut reader, _) = plant.open();
            let mut model: Vec<Vec<u8>> = Vec::new();
            for step in steps {
                match step {
                    Step::Append(count) => {
                        let next = model.len() as u64;
                        let appends: Vec<_> = (next..next + u64::from(count)).map(small).collect();
                        model.extend(appends.iter().map(|append| append.entry.clone()));
                        submit_all(&log, appends.into_iter()).into_iter().for_each(|outcome| {
        written(outcome);
    });
                    }
                    Step::Checkpoint => log.checkpoint_now().unwrap(),
                    Step::Kill => {
                        // The last handle goes without a word: no last checkpoint.
                        drop((log, reader));
                        (log, reader, _) = plant.open();
                    }
                    Step::Restart => {
                        log.shutdown();
                        drop((log, reader));
                        (log, reader, _) = plant.open();
                    }
                }
                prop_assert_eq!(log.size(), model.len() as u64);
            }
            log.checkpoint_now().unwrap();
            let checkpoint = verify_published(&plant, &reader);
            prop_assert_eq!(all_entries(&reader, checkpoint.size), model.clone());
            if !model.is_empty() {
                let index = at.index(model.len()) as u64;
                let proof = reader.inclusion_proof(EntryIndex(index), checkpoint.size).unwrap();
                let leaf = leaf_hash(&model[at.index(model.len())]);
                prop_assert_eq!(verify_inclusion(index, checkpoint.size, &leaf, &proof, &checkpoint.root), Ok(()));
            }
        }
    }
}
