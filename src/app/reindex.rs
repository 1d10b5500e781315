//! `lineproof reindex`: a fresh index is built beside the old one and takes its place when it is whole.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;

use crate::{
    adapters::sled_index::SledIndex,
    ports::lineage::LogReader,
    services::history::{Indexer, Progress},
};

/// Builds the index in `path` anew from everything the log's checkpoint covers, and returns the number of entries. The
/// old index serves until the new one is whole; a crash leaves one of them, or none, which the next start rebuilds.
///
/// # Errors
/// When a running service has the index, the log does not read, or the disk refuses. The old index is then untouched.
pub fn reindex(
    path: &Path,
    key: [u8; 32],
    log: Arc<dyn LogReader>,
    progress: impl FnMut(Progress),
) -> anyhow::Result<u64> {
    SledIndex::check_unused(path)?;
    let (fresh, old) = (beside(path, "new"), beside(path, "old"));
    remove(&fresh)?;
    let (index, _) = SledIndex::open(&fresh, key)?;
    let entries = Indexer::new(log, Arc::new(index)).catch_up(progress)?;
    remove(&old)?;
    // A service that started meanwhile keeps what it has open.
    SledIndex::check_unused(path)?;
    match fs::rename(path, &old) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).context(path.display().to_string()),
        _ => {}
    }
    fs::rename(&fresh, path).with_context(|| path.display().to_string())?;
    remove(&old)?;
    Ok(entries)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(suffix);
    path.with_file_name(name)
}

fn remove(path: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).context(path.display().to_string()),
        _ => Ok(()),
    }
}
