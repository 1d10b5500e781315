//! What a victim forgets: one private value on request, and every image of a class whose period is over. And what must
//! hold of it after a cut: what was intended gets done, and what the log says is gone does not open any more.

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use lineproof::{
    adapters::{
        archive::PackArchive,
        clock::SystemClock,
        keys::Keys,
        log::{LogHandle, LogStoreReader},
        sled_index::SledIndex,
    },
    core::lineage::{
        entry::{Entry, Retention},
        private::PrivateField,
    },
    ports::{
        archive::{ImageShredder as _, RetentionClass},
        lineage::{LogReader as _, LogWriter as _, PrivateEraser as _},
    },
    services::{
        history::Indexer,
        retention::{EraseRequest, RetentionBook, RetentionService, rules::ClassRule},
    },
    types::EntryIndex,
};

use crate::victim;

/// Told when an erasure, or a run of retention, has returned.
pub const ERASED: &str = "erased";
pub const DELETED: &str = "deleted";

/// Retention over a victim's log. The index lies outside of what is cut: it is rebuilt from the log whenever it is unusable.
fn office(
    data: &Path,
    index: &Path,
    log: &LogHandle,
    reader: &Arc<LogStoreReader>,
    archive: &Arc<PackArchive>,
) -> Result<RetentionService, String> {
    let keys = Keys::open(&data.join("keys")).expect("the keys are never hurt");
    let index = Arc::new(SledIndex::open(index, keys.index_key()).map_err(|error| error.to_string())?.0);
    Indexer::new(reader.clone(), index.clone()).catch_up(|_| {}).map_err(|error| error.to_string())?;
    let over = ClassRule {
        class: RetentionClass::new("not_ok").expect("a class"),
        verdicts: Vec::new(),
        products: Vec::new(),
        images_days: Some(1),
        private_days: None,
        basis: "contract".into(),
    };
    Ok(RetentionService {
        reader: reader.clone(),
        writer: Arc::new(log.clone()),
        eraser: Arc::new(log.clone()),
        images: archive.clone(),
        index: index.clone(),
        clock: Arc::new(SystemClock::new()),
        book: Arc::new(RetentionBook::new(reader.clone(), index)),
        rules: vec![over],
        turn: Mutex::default(),
    })
}

/// Erases the serial number of one frame, then deletes the images of every day that is over.
pub fn forget(
    data: &Path,
    number: u64,
    log: &LogHandle,
    reader: &Arc<LogStoreReader>,
    archive: &Arc<PackArchive>,
    tell: impl Fn(&str),
) -> Result<(), String> {
    log.checkpoint_now().map_err(|error| error.to_string())?;
    let office = office(data, &data.with_file_name("index"), log, reader, archive)?;
    let request = EraseRequest {
        field: PrivateField::Serial,
        value: victim::serial(number),
        rule: "GDPR Art. 17".into(),
        dry_run: false,
    };
    office.erase(&request).map_err(|error| error.to_string())?;
    tell(ERASED);
    office.run().map_err(|error| error.to_string())?;
    tell(DELETED);
    Ok(())
}

/// What a log says of the forgetting.
#[derive(Default)]
pub struct Forgotten {
    pub erasures: u64,
    /// Whether the images of frames may be gone.
    pub packs: bool,
}

/// Goes on with what a cut interrupted, as every start does, and holds the files against what the log says is gone.
pub fn finish(
    data: &Path,
    log: &LogHandle,
    reader: &Arc<LogStoreReader>,
    archive: &Arc<PackArchive>,
) -> Result<Forgotten, String> {
    if log.intended().map_err(|error| error.to_string())?.is_some() {
        let scratch = tempfile::TempDir::new().expect("a temporary folder");
        let office = office(data, scratch.path(), log, reader, archive)?;
        office.go_on().map_err(|error| format!("an erasure does not go on: {error}"))?;
        if log.intended().map_err(|error| error.to_string())?.is_some() {
            return Err("an erasure that was gone on with is still intended".into());
        }
    }
    let mut forgotten = Forgotten::default();
    let size = reader.checkpoint().map_err(|error| error.to_string())?.size;
    for index in (0..size).map(EntryIndex) {
        let bytes = reader.entry(index).map_err(|error| error.to_string())?;
        if let Ok(Entry::Retention(entry)) = Entry::parse(&bytes) {
            check_gone(&entry, reader, archive)?;
            forgotten.erasures += u64::from(entry.entries.is_some());
            forgotten.packs |= entry.class.is_some();
        }
    }
    Ok(forgotten)
}

fn check_gone(entry: &Retention, reader: &LogStoreReader, archive: &PackArchive) -> Result<(), String> {
    let fields = entry.destroyed.map(|destroyed| destroyed.fields()).unwrap_or_default();
    for index in entry.entries.iter().flat_map(|entries| entries.iter()) {
        let record = reader.private(index).map_err(|error| error.to_string())?;
        if record.openings.iter().any(|opening| fields.contains(&opening.field)) {
            return Err(format!("entry {index} opens what the log says was erased"));
        }
    }
    if let (Some(class), Some(before)) = (&entry.class, entry.before) {
        let class = RetentionClass::new(class.clone())?;
        let left = archive.packs_before(&class, &before.day()).map_err(|error| error.to_string())?;
        if !left.is_empty() {
            return Err(format!("{} packs are there that the log says were deleted", left.len()));
        }
    }
    Ok(())
}
