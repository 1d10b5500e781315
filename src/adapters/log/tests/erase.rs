//! Stories of erasing private values.

use super::*;
use crate::{
    adapters::log::copy::LogCopy,
    core::lineage::index_ranges::IndexRanges,
    ports::lineage::{Doomed, EraseError, Intention, PrivateEraser as _},
};

fn doomed(indexes: &[u64]) -> Vec<Doomed> {
    let entries = IndexRanges::of(indexes.iter().copied().map(EntryIndex)).unwrap();
    vec![Doomed { entries, fields: vec![PrivateField::Serial] }]
}

/// A private record as some file has it now.
fn sealed(log: &LogHandle, index: u64) -> Vec<u8> {
    match lock_read(&log.shared.tail).get(index) {
        Some(entry) => entry.sealed.to_vec(),
        None => private::read(&log.shared.config.private_dir(), index).unwrap(),
    }
}

/// Every file below a folder.
fn files_below(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for item in fs::read_dir(folder).unwrap() {
        let path = item.unwrap().path();
        if path.is_dir() {
            found.extend(files_below(&path));
        } else {
            found.push((path.clone(), fs::read(path).unwrap()));
        }
    }
    found
}

fn assert_nowhere(plant: &Plant, secrets: &[Vec<u8>]) {
    for (path, bytes) in files_below(&plant.config.data_dir) {
        for secret in secrets {
            assert!(!bytes.windows(secret.len()).any(|part| part == secret), "{} has it", path.display());
        }
    }
}

#[test]
fn a_copy_notices_an_erasure_in_its_tail_and_every_entry_that_was_published_later() {
    let plant = Plant::new();
    let (log, reader, _) = plant.open();
    submit_all(&log, (0..300).map(append)).into_iter().map(written).for_each(|_| {});
    log.checkpoint_now().unwrap();
    let signer = Plant::signer();
    let copy = LogCopy::look(&plant.config, signer.verifier_key()).unwrap();
    assert_eq!(copy.tail.len(), 300 - 256);
    let later = || copy.later_entries(&plant.config, signer.verifier_key()).unwrap();
    assert!(copy.tail_is_unchanged(&plant.config) && later().is_empty());
    log.destroy(&doomed(&[3])).unwrap();
    assert!(copy.tail_is_unchanged(&plant.config), "what lies in a full bundle is none of the tail's");
    log.destroy(&doomed(&[299])).unwrap();
    assert!(!copy.tail_is_unchanged(&plant.config));
    for size in [301, 512, 600] {
        let next = 300 + later().len() as u64;
        submit_all(&log, (next..size).map(append)).into_iter().map(written).for_each(|_| {});
        log.checkpoint_now().unwrap();
        assert_eq!(later(), all_entries(&reader, size)[300..]);
    }
    log.shutdown();
}

#[test]
fn an_erased_value_is_in_no_file_of_the_log_and_all_else_stays() {
    let plant = Plant::new();
    let (log, reader, _) = plant.open();
    submit_all(&log, (0..600).map(append)).into_iter().map(written).for_each(|_| {});
    log.checkpoint_now().unwrap();
    // Of a full bundle, of a full one that is still in memory, and of one that is only in the write-ahead log.
    let targets = [3, 300, 599];
    let before: Vec<Vec<u8>> = targets.iter().map(|index| sealed(&log, *index)).collect();
    let checkpoint = verify_published(&plant, &reader);
    assert!(
        files_below(&plant.config.data_dir)
            .iter()
            .any(|(_, bytes)| { bytes.windows(before[0].len()).any(|part| part == before[0]) })
    );

    log.destroy(&doomed(&targets)).unwrap();
    assert_nowhere(&plant, &before);
    let check = |reader: &LogStoreReader| {
        for index in 0..600 {
            let openings = reader.private(EntryIndex(index)).unwrap().openings;
            let expected = if targets.contains(&index) { vec![] } else { vec![serial(index)] };
            assert_eq!(openings, expected, "entry {index}");
        }
    };
    check(&reader);
    assert_eq!(verify_published(&plant, &reader).root, checkpoint.root);
    // The write-ahead log goes on behind what was written again.
    written(submit(&log, append(600)));
    log.destroy(&doomed(&targets)).unwrap();
    log.shutdown();
    drop((log, reader));

    let (log, reader, report) = plant.open();
    assert!(report.read_only.is_none(), "{:?}", report.read_only);
    assert_eq!((report.size, report.rewritten_files, report.torn_bytes), (601, 0, 0));
    check(&reader);
    assert_eq!(reader.private(EntryIndex(600)).unwrap().openings, [serial(600)]);
    assert_nowhere(&plant, &before);
    log.shutdown();
}

#[test]
fn erasing_goes_along_with_appends_and_integrations() {
    let plant = Plant::new();
    let (log, reader, _) = plant.open();
    submit_all(&log, (0..300).map(append)).into_iter().map(written).for_each(|_| {});
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for counter in 300..1500 {
                written(submit(&log, append(counter)));
                if counter % 50 == 0 {
                    log.checkpoint_now().unwrap();
                }
            }
        });
        for index in (0..300).step_by(7) {
            log.destroy(&doomed(&[index])).unwrap();
            assert_eq!(reader.private(EntryIndex(index)).unwrap().openings, []);
        }
        writer.join().unwrap();
    });
    drop((log, reader));
    // As if it had been killed.
    let (log, reader, report) = plant.open();
    assert_eq!((report.read_only, report.size), (None, 1500));
    for index in 0..1500 {
        let is_erased = index < 300 && index % 7 == 0;
        assert_eq!(reader.private(EntryIndex(index)).unwrap().openings.is_empty(), is_erased, "entry {index}");
    }
    log.shutdown();
}

#[test]
fn a_segment_that_is_rewritten_half_way_is_the_old_one() {
    let plant = Plant::new();
    let (log, _reader, _) = plant.open();
    submit_all(&log, (0..20).map(append)).into_iter().map(written).for_each(|_| {});
    log.checkpoint_now().unwrap();
    let before = plant.copy();
    log.destroy(&doomed(&[4])).unwrap();
    // A crash may leave part of the new segment beside the old one.
    let wal = "wal/00000000000000000000.wal";
    let rewritten = fs::read(plant.file(wal)).unwrap();
    fs::write(before.file(&format!("{wal}.tmp")), &rewritten[..rewritten.len() / 2]).unwrap();
    let (log, reader, report) = before.open();
    assert_eq!((report.read_only, report.size), (None, 20));
    assert_eq!(reader.private(EntryIndex(4)).unwrap().openings, [serial(4)]);
    log.destroy(&doomed(&[4])).unwrap();
    assert_eq!(reader.private(EntryIndex(4)).unwrap().openings, []);
    assert!(!before.file(&format!("{wal}.tmp")).exists());
    log.shutdown();
}

#[test]
fn an_intention_lasts_until_it_is_fulfilled() {
    let plant = Plant::new();
    let (log, reader, _) = plant.open();
    assert_eq!(log.intended().unwrap(), None);
    let intention = Intention { size: 17, entries: vec![b"{\"a\":1}".to_vec(), b"{}".to_vec()] };
    log.intend(&intention).unwrap();
    drop((log, reader));
    let (log, reader, _) = plant.open();
    assert_eq!(log.intended().unwrap(), Some(intention));
    log.fulfilled().unwrap();
    log.fulfilled().unwrap();
    assert_eq!(log.intended().unwrap(), None);
    log.shutdown();
    assert!(matches!(log.destroy(&doomed(&[0])), Err(EraseError::Log(AppendError::Closed))));
    fs::write(plant.file("erasing"), "lineproof-erasing 2\n0\n").unwrap();
    assert!(log.intended().unwrap_err().to_string().contains("no erasure"));
    drop((log, reader));
}
