//! What must hold after every fault: the next start needs no hand, and everything acknowledged is there once.

use std::{collections::HashMap, fs, path::Path};

use lineproof::{
    adapters::{archive::PackArchive, keys::Keys, log::fsck::Fsck},
    core::lineage::{checkpoint::VerifierKey, entry::Entry, tree::leaf_hash},
    ports::{
        archive::{ArchiveError, ImageArchive as _},
        lineage::{Appended, LogReader as _, LogWriter as _},
    },
    types::EntryIndex,
};

use crate::{
    forget::{self, Forgotten},
    victim::{self, Ack, Opened},
};

/// A frame that no victim sends.
const AFTERWARDS: u64 = 9_000_000;

/// Starts on `data` without faults and holds it against what was acknowledged.
pub fn check(data: &Path, acks: &[Ack]) -> Result<Forgotten, String> {
    let Opened { log, reader, report, archive } = victim::open(data).map_err(|error| format!("no start: {error}"))?;
    if let Some(reason) = &report.read_only {
        return Err(format!("read-only after a fault: {reason}"));
    }
    let forgotten = forget::finish(data, &log, &reader, &archive)?;
    let frames = frames(&*reader, report.size)?;
    for ack in acks {
        check_place(&frames, ack)?;
        let entry = reader.entry(EntryIndex(ack.index)).map_err(|error| error.to_string())?;
        if leaf_hash(&entry).to_string() != ack.leaf {
            return Err(format!("entry {} has another leaf hash than was acknowledged", ack.index));
        }
    }
    // Acknowledged or not: whoever stands in the log has an image that opens, and the log goes on.
    for (frame, index) in &frames {
        let record = reader.private(EntryIndex(*index)).map_err(|error| error.to_string())?;
        let location = record.image_location().ok_or_else(|| format!("{frame} has no image"))?;
        let number: u64 = frame[1..].parse().expect("a victim's frame");
        let image = archive.get(&location, lineproof::types::Blake3Digest::of(&victim::image(number)));
        match image {
            // `fsck` below counts whether as many are gone as the log says.
            Err(ArchiveError::Missing(_)) if forgotten.packs => Ok(Vec::new()),
            other => other,
        }
        .map_err(|error| format!("the image of {frame}, entry {index}: {error}"))?;
    }
    if let Some(ack) = acks.last() {
        retry(&log, &archive, ack)?;
    }
    let (said, heard) = std::sync::mpsc::channel();
    log.submit(victim::append_later(&archive, AFTERWARDS)?, Box::new(move |outcome| drop(said.send(outcome))));
    heard.recv().expect("every append is answered").map_err(|error| format!("no append after a start: {error}"))?;
    log.shutdown();
    drop((log, reader));
    fsck(data)?;
    Ok(forgotten)
}

/// Starts on `data`, and holds it against the places that were acknowledged and its checkpoint against its entries.
#[cfg(feature = "planted-bugs")]
pub fn check_places(data: &Path, acks: &[Ack]) -> Result<(), String> {
    let Opened { reader, report, .. } = victim::open(data).map_err(|error| format!("no start: {error}"))?;
    if let Some(reason) = &report.read_only {
        return Err(format!("read-only after a fault: {reason}"));
    }
    let frames = frames(&*reader, report.size)?;
    acks.iter().try_for_each(|ack| check_place(&frames, ack))?;
    let entry = |index| reader.entry(EntryIndex(index)).map(|entry| leaf_hash(&entry));
    let leaves: Vec<_> = (0..report.size).map(entry).collect::<Result<_, _>>().map_err(|error| error.to_string())?;
    let checkpoint = reader.checkpoint().map_err(|error| error.to_string())?;
    let good = checkpoint.size == report.size && checkpoint.root == lineproof::core::lineage::tree::root_of(leaves);
    if good { Ok(()) } else { Err("the checkpoint is not over the entries".into()) }
}

fn check_place(frames: &HashMap<String, u64>, ack: &Ack) -> Result<(), String> {
    match frames.get(&victim::frame(ack.number)) {
        Some(index) if *index == ack.index => Ok(()),
        found => Err(format!("frame {} was acknowledged as entry {}, is {found:?}", ack.number, ack.index)),
    }
}

fn retry(log: &impl lineproof::ports::lineage::LogWriter, archive: &PackArchive, ack: &Ack) -> Result<(), String> {
    let (said, heard) = std::sync::mpsc::channel();
    log.submit(victim::append_later(archive, ack.number)?, Box::new(move |outcome| drop(said.send(outcome))));
    match heard.recv().expect("every append is answered") {
        Ok(Appended::Duplicate(receipt)) if receipt.index.0 == ack.index => Ok(()),
        other => Err(format!("frame {} sent again is {other:?}, not entry {}", ack.number, ack.index)),
    }
}

/// Every decided frame with its only entry.
fn frames(reader: &impl lineproof::ports::lineage::LogReader, size: u64) -> Result<HashMap<String, u64>, String> {
    let mut frames = HashMap::new();
    let mut next = 0;
    while next < size {
        let entries = reader.entries(EntryIndex(next), EntryIndex(size)).map_err(|error| error.to_string())?;
        for bytes in entries {
            let entry = Entry::parse(&bytes).map_err(|error| format!("entry {next} is half an entry: {error}"))?;
            if let Entry::Decision(decision) = entry
                && let Some(before) = frames.insert(decision.frame.id.to_string(), next)
            {
                return Err(format!("frame {} has entries {before} and {next}", decision.frame.id));
            }
            next += 1;
        }
    }
    Ok(frames)
}

/// Everything on disk fits together.
pub fn fsck(data: &Path) -> Result<(), String> {
    let keys = Keys::open(&data.join("keys")).expect("the keys are never hurt");
    let archive = PackArchive::open(data.join("images"), keys.image_sealer()).map_err(|error| error.to_string())?;
    let key: VerifierKey = keys.verifier_key().parse().expect("a key");
    let config = victim::config(data);
    let sealer = keys.private_sealer();
    let fsck = Fsck { config: &config, key: &key, sealer: &*sealer, archive: &archive, indexed_to: None };
    let report = fsck.run(|_, _| {}).map_err(|error| error.to_string())?;
    if report.is_clean() { Ok(()) } else { Err(format!("fsck: {}", report.problems.join("; "))) }
}

/// A folder and everything below it.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    fs::set_permissions(to, fs::metadata(from).expect("a folder").permissions()).expect("a folder of ours");
    for item in fs::read_dir(from).expect("a folder") {
        let item = item.expect("an item");
        let target = to.join(item.file_name());
        if item.file_type().expect("a type").is_dir() {
            copy(&item.path(), &target);
        } else {
            fs::copy(item.path(), target).expect("a copy");
        }
    }
}

/// Where many small directories are made and thrown away: in memory if the machine has room for files there.
pub fn workshop() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    tempfile::TempDir::new_in(memory).or_else(|_| tempfile::TempDir::new()).expect("a temporary folder")
}

/// The entries of a bundle.
pub fn split(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut entries = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<2>() {
        let (entry, rest) = rest.split_at(usize::from(u16::from_be_bytes(*length)));
        entries.push(entry.to_vec());
        bytes = rest;
    }
    entries
}

/// The number of a bundle as tlog-tiles writes it.
pub fn tile_path(bundle: u64) -> String {
    let (thousands, rest) = (bundle / 1000, bundle % 1000);
    if thousands == 0 { format!("{rest:03}") } else { format!("x{thousands:03}/{rest:03}") }
}
