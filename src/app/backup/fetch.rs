//! Reading a backup: its manifest, its table, its files, each checked before it is believed.

use std::{
    collections::HashMap,
    fs::{self, File, Permissions},
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, bail};

use super::in_parallel;
use crate::{
    core::{
        backup::{
            BLOB_BYTES_MAX, BLOBS, Blob, BlobId, FileRecord, LIST_BYTES_MAX, MANIFEST_BYTES_MAX, MANIFESTS, Manifest,
            TABLE_BYTES_MAX, Table,
        },
        lineage::checkpoint::VerifierKey,
    },
    ports::backup::{BlobOpener, BlobStore},
    types::Blake3Digest,
};

/// The backups in a store, the one that holds least of the log first.
///
/// # Errors
/// When the store does not answer.
pub fn names(store: &dyn BlobStore) -> anyhow::Result<Vec<String>> {
    let stored = store.list(MANIFESTS)?;
    let manifests = stored.iter().filter(|it| it.place.ends_with(".manifest"));
    let mut names: Vec<String> = manifests.filter_map(|it| Manifest::name_at(&it.place)).map(str::to_owned).collect();
    names.sort_unstable();
    Ok(names)
}

/// A backup whose manifest and list are genuine.
pub struct Backup {
    pub manifest: Manifest,
    pub blobs: HashMap<BlobId, Blob>,
}

impl Backup {
    /// # Errors
    /// When it is not there, or the log's key did not sign it as it is.
    pub fn open(store: &dyn BlobStore, name: &str, key: &VerifierKey) -> anyhow::Result<Self> {
        let text = |place: String, max| -> anyhow::Result<String> {
            let bytes = store.get(&place, max)?.with_context(|| format!("{place} is not in the store"))?;
            String::from_utf8(bytes).with_context(|| format!("{place} is no text"))
        };
        let place = Manifest::place(name);
        let manifest = Manifest::open(&text(place.clone(), MANIFEST_BYTES_MAX)?, key).with_context(|| place.clone())?;
        if manifest.name() != name {
            bail!("{place} is the manifest of {}: it was renamed", manifest.name());
        }
        let blobs = manifest.blobs_of(&text(Manifest::list_place(name), LIST_BYTES_MAX)?).context(place)?;
        Ok(Self { manifest, blobs: blobs.into_iter().map(|blob| (blob.id, blob)).collect() })
    }

    /// Looks whether every blob is there and as long as it was, which costs no more than a listing.
    ///
    /// # Errors
    /// With the first one that is not.
    pub fn check_presence(&self, store: &dyn BlobStore) -> anyhow::Result<()> {
        let stored: HashMap<String, u64> = store.list(BLOBS)?.into_iter().map(|it| (it.place, it.bytes)).collect();
        for blob in self.blobs.values() {
            match stored.get(&blob.place()) {
                None => bail!("{} is missing from the store; {ADVICE}", blob.place()),
                Some(bytes) if *bytes != blob.bytes => {
                    bail!("{} has {bytes} bytes, it should have {}; {ADVICE}", blob.place(), blob.bytes)
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    fn blob(&self, store: &dyn BlobStore, opener: &dyn BlobOpener, id: &BlobId) -> anyhow::Result<Vec<u8>> {
        let blob = self.blobs.get(id).with_context(|| format!("the manifest names no blob {id}"))?;
        let place = blob.place();
        let sealed = store.get(&place, BLOB_BYTES_MAX)?;
        let sealed = sealed.with_context(|| format!("{place} is missing from the store; {ADVICE}"))?;
        if Blake3Digest::of(&sealed) != blob.digest {
            bail!("{place} is not what was put there: it was damaged, cut or exchanged; {ADVICE}");
        }
        opener.open(&sealed).map_err(|reason| anyhow::anyhow!("{place} does not open: {reason}"))
    }

    /// The table of files.
    ///
    /// # Errors
    /// When it cannot be had or read.
    pub fn table(&self, store: &dyn BlobStore, opener: &dyn BlobOpener) -> anyhow::Result<Table> {
        let mut bytes = Vec::new();
        for id in &self.manifest.table {
            bytes.extend(self.blob(store, opener, id)?);
            if bytes.len() as u64 > TABLE_BYTES_MAX {
                bail!("the table of files has more than {TABLE_BYTES_MAX} bytes");
            }
        }
        Ok(Table::parse(&bytes)?)
    }

    /// Writes files below `folder`, with their permissions and times; nothing is overwritten.
    ///
    /// # Errors
    /// With the file, and which blob does not fit.
    pub fn fetch(
        &self,
        store: &dyn BlobStore,
        opener: &dyn BlobOpener,
        files: &[&FileRecord],
        folder: &Path,
    ) -> anyhow::Result<()> {
        let fetch = |file: &&FileRecord| {
            self.fetch_one(store, opener, file, &folder.join(&file.path)).with_context(|| file.path.clone())
        };
        in_parallel(store, files, |file| file.bytes, fetch).map(|_| ())
    }

    fn fetch_one(
        &self,
        store: &dyn BlobStore,
        opener: &dyn BlobOpener,
        record: &FileRecord,
        path: &Path,
    ) -> anyhow::Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut file = File::create_new(path)?;
        let mut written = 0;
        for id in &record.blobs {
            let part = self.blob(store, opener, id)?;
            written += part.len() as u64;
            file.write_all(&part)?;
        }
        if written != record.bytes {
            bail!("its parts have {written} bytes, the table says {}", record.bytes);
        }
        file.set_permissions(Permissions::from_mode(record.mode & 0o777))?;
        // So that the next backup finds it unchanged.
        let modified = u64::try_from(record.modified).map(|nanos| SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos));
        if let Ok(modified) = modified {
            file.set_modified(modified)?;
        }
        Ok(())
    }
}

const ADVICE: &str = "restore an older backup with `--backup`; while the original still is there, remove that file \
                      and back up again";
