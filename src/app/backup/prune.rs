//! Removing older backups, and what no backup names.

use std::collections::HashSet;

use anyhow::Context as _;

use super::fetch::{Backup, names};
use crate::{
    core::{
        backup::{BLOBS, Blob, MANIFESTS, Manifest},
        lineage::checkpoint::VerifierKey,
    },
    ports::backup::BlobStore,
};

/// What was removed.
#[derive(Debug, Default)]
pub struct Pruned {
    pub backups: u64,
    pub blobs: u64,
}

/// Removes all but the newest `keep` backups, if it says how many, and then every blob that none of the others names: also
/// those that an interrupted backup left. Files of any other name stay.
///
/// # Errors
/// When a backup that is kept cannot be read: then nobody knows what it needs, and no blob is removed.
pub fn prune(store: &dyn BlobStore, key: &VerifierKey, keep: Option<u32>) -> anyhow::Result<Pruned> {
    let mut pruned = Pruned::default();
    let mut kept = names(store)?;
    let surplus = keep.map_or(0, |keep| kept.len().saturating_sub(keep as usize));
    for name in kept.drain(..surplus) {
        // The manifest first: a backup is whole as long as it has one.
        store.remove(&Manifest::place(&name))?;
        store.settle()?;
        store.remove(&Manifest::list_place(&name))?;
        pruned.backups += 1;
    }
    let mut needed = HashSet::new();
    for name in &kept {
        let backup = Backup::open(store, name, key).with_context(|| format!("backup {name}"))?;
        needed.extend(backup.blobs.into_values());
    }
    for stored in store.list(BLOBS)? {
        let whole = stored.place.strip_suffix(".tmp").unwrap_or(&stored.place);
        let Some(blob) = Blob::at(whole, stored.bytes) else { continue };
        if whole != stored.place || !needed.contains(&blob) {
            store.remove(&stored.place)?;
            pruned.blobs += 1;
        }
    }
    for stored in store.list(MANIFESTS)? {
        let whole = stored.place.strip_suffix(".tmp").unwrap_or(&stored.place);
        let Some(name) = Manifest::name_at(whole) else { continue };
        if whole != stored.place || !kept.iter().any(|kept| kept == name) {
            store.remove(&stored.place)?;
        }
    }
    Ok(pruned)
}
