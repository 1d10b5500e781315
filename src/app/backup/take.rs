//! Making a backup: what is new is sealed and put, then the list, then the manifest, which alone makes it one.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::Path,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};

use super::{
    fetch::{Backup, names},
    files::{self, Item, Source},
    in_parallel,
};
use crate::{
    adapters::{
        keys::Keys,
        log::{
            LogConfig,
            copy::{LogCopy, check_bundle, is_erasing},
        },
    },
    app::config::Config,
    core::{
        backup::{
            BACKUP_VERSION, BLOB_BYTES_MAX, BLOBS, Blob, BlobId, FileRecord, Manifest, PART_BYTES, Table, TailRecord,
            recipients_digest, write_list,
        },
        lineage::{checkpoint::VerifierKey, entry::Entry},
    },
    ports::{
        backup::{BlobSealer, BlobStore},
        clock::Clock,
    },
    types::Blake3Digest,
};

/// A file this young may change again without a new time of change; its blobs are never taken for those of a later backup.
const SETTLED_NANOS: i64 = 2_000_000_000;

#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    #[error("{0} keeps changing or going away while it is copied; try again when it is quiet")]
    Moved(String),
    #[error(
        "values are being erased, and a backup would hold half of that; back up again when it is done. If no service runs, an \
         erasure was interrupted: the next `lineproof serve` finishes it"
    )]
    Erasing,
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

/// What a backup is made of and with.
pub struct Take<'a> {
    pub data_dir: &'a Path,
    pub config: &'a Config,
    pub keys: &'a Keys,
    pub key: &'a VerifierKey,
    pub clock: &'a dyn Clock,
    pub store: &'a dyn BlobStore,
    pub sealer: &'a dyn BlobSealer,
}

/// What was made.
pub struct Taken {
    pub name: String,
    /// Entries.
    pub size: u64,
    pub blobs: u64,
    pub bytes: u64,
    pub new_blobs: u64,
    pub new_bytes: u64,
}

/// One part of one file that the store does not have.
struct Part<'a> {
    item: &'a Item,
    number: u64,
    id: BlobId,
}

impl Take<'_> {
    /// Looks whether there is a log to back up.
    ///
    /// # Errors
    /// Why there is none.
    pub fn look(&self) -> anyhow::Result<LogCopy> {
        Ok(LogCopy::look(&self.log(), self.key)?)
    }

    fn log(&self) -> LogConfig {
        LogConfig { anchor: self.config.log.anchor.clone(), ..LogConfig::new(self.data_dir) }
    }

    /// # Errors
    /// [`TakeError`]; the store then has some blobs that no backup names, and every earlier backup is whole.
    pub fn run(&self) -> Result<Taken, TakeError> {
        // 1. What there is, in this order: nothing that is copied then says more than the checkpoint.
        let mut items = files::cosigned(self.data_dir)?;
        let (earlier, _) = files::others(self.data_dir, &self.config.log.anchor)?;
        let copy = self.look()?;
        // What the checkpoint says was erased is gone from here on, but for the tail, which was read already.
        if is_erasing(&self.log()) {
            return Err(TakeError::Erasing);
        }
        items.extend(files::bundles(self.data_dir, copy.bundles())?);
        let (others, skipped) = files::others(self.data_dir, &self.config.log.anchor)?;
        if let Some(gone) = gone(&earlier, &others) {
            return Err(TakeError::Moved(gone));
        }
        items.extend(others);
        self.refuse_erased(&copy)?;
        skipped.iter().for_each(|what| eprintln!("not in the backup: {what}"));
        // 2. What of it the store has not.
        let ids = self.ids(&items);
        let known = self.known(&ids.iter().flatten().copied().collect())?;
        let (mut blobs, mut parts, mut records) = (BTreeSet::new(), Vec::new(), Vec::new());
        for (item, ids) in items.iter().zip(ids) {
            for (number, id) in (0..).zip(&ids) {
                match known.get(id) {
                    Some(blob) => {
                        blobs.insert(*blob);
                    }
                    None => parts.push(Part { item, number, id: *id }),
                }
            }
            let Item { path, bytes, mode, modified, .. } = item;
            records.push(FileRecord {
                blobs: ids,
                bytes: *bytes,
                mode: *mode,
                modified: *modified,
                path: path.clone(),
            });
        }
        // 3. Seal and put that, and the table of all files.
        let put = in_parallel(self.store, &parts, Part::bytes, |part| self.put_part(part))?;
        let table = self.table(&copy, records)?;
        let (new_blobs, new_bytes) =
            put.iter().chain(&table).fold((0, 0), |(count, bytes), blob| (count + 1, bytes + blob.bytes));
        blobs.extend(put);
        blobs.extend(&table);
        // 4. Durable before it is named.
        let (created, _) = self.clock.now();
        let list = write_list(&blobs);
        let manifest = Manifest {
            origin: self.key.name().to_owned(),
            created,
            size: copy.checkpoint.size,
            root: copy.checkpoint.root,
            blobs: blobs.len() as u64,
            bytes: blobs.iter().map(|blob| blob.bytes).sum(),
            list: Blake3Digest::of(list.as_bytes()),
            table: table.iter().map(|blob| blob.id).collect(),
        };
        let name = manifest.name();
        let note = manifest.sign(&self.keys.log_signer());
        let finish = || {
            self.store.put(&Manifest::list_place(&name), list.as_bytes())?;
            self.store.settle()?;
            self.store.put(&Manifest::place(&name), note.as_bytes())?;
            self.store.settle()
        };
        finish().map_err(anyhow::Error::from)?;
        let Manifest { size, blobs, bytes, .. } = manifest;
        Ok(Taken { name, size, blobs, bytes, new_blobs, new_bytes })
    }

    /// After the last listing: refuses what an erasure changed since the checkpoint was read.
    fn refuse_erased(&self, copy: &LogCopy) -> Result<(), TakeError> {
        let log = self.log();
        if !copy.tail_is_unchanged(&log) {
            return Err(TakeError::Moved("the last bundle in wal/".into()));
        }
        // Nothing is destroyed before a checkpoint covers the entry that says so.
        let later = copy.later_entries(&log, self.key).map_err(|_| TakeError::Moved("log/checkpoint".into()))?;
        let is_retention = |bytes: &Vec<u8>| matches!(Entry::parse(bytes), Ok(Entry::Retention(_)));
        if later.iter().any(is_retention) { Err(TakeError::Erasing) } else { Ok(()) }
    }

    /// What the parts of each file are called.
    fn ids(&self, items: &[Item]) -> Vec<Vec<BlobId>> {
        let (now, _) = self.clock.now();
        let (key, recipients) = (self.keys.backup_key(), recipients_digest(&self.sealer.recipients()));
        let of_item = |item: &Item| -> Vec<BlobId> {
            let is_settled =
                !matches!(item.source, Source::Memory(_)) && item.modified < now.unix_nanos() - SETTLED_NANOS;
            let id = |number| match is_settled {
                true => BlobId::of_part(&key, &recipients, &item.path, item.bytes, item.modified, number),
                false => random_id(),
            };
            (0..item.bytes.div_ceil(PART_BYTES)).map(id).collect()
        };
        items.iter().map(of_item).collect()
    }

    /// The blobs of these names that the store has whole: those that the newest backup names, as long as it says, and
    /// others, such as an interrupted backup leaves, if their bytes are what their place says.
    fn known(&self, wanted: &HashSet<BlobId>) -> anyhow::Result<HashMap<BlobId, Blob>> {
        let newest = names(self.store)?.iter().rev().find_map(|name| Backup::open(self.store, name, self.key).ok());
        let listed = newest.map(|newest| newest.blobs).unwrap_or_default();
        let stored = self.store.list(BLOBS)?.into_iter().filter_map(|it| Blob::at(&it.place, it.bytes));
        let (mut known, doubtful): (Vec<Blob>, Vec<Blob>) = stored
            .filter(|blob| wanted.contains(&blob.id))
            .partition(|blob| listed.get(&blob.id).is_some_and(|listed| listed == blob));
        let check = |blob: &Blob| {
            let sealed = self.store.get(&blob.place(), BLOB_BYTES_MAX)?;
            let is_whole = sealed.is_some_and(|sealed| Blake3Digest::of(&sealed) == blob.digest);
            anyhow::Ok(is_whole.then_some(*blob))
        };
        let checked = in_parallel(self.store, &doubtful, |blob| blob.bytes, check)?;
        known.extend(checked.into_iter().flatten());
        Ok(known.into_iter().map(|blob| (blob.id, blob)).collect())
    }

    fn put_part(&self, part: &Part<'_>) -> Result<Blob, TakeError> {
        Ok(self.put(part.id, &part.read(self.data_dir)?)?)
    }

    fn put(&self, id: BlobId, plain: &[u8]) -> anyhow::Result<Blob> {
        let sealed = self.sealer.seal(plain).map_err(anyhow::Error::msg)?;
        let blob = Blob { id, bytes: sealed.len() as u64, digest: Blake3Digest::of(&sealed) };
        self.store.put(&blob.place(), &sealed)?;
        Ok(blob)
    }

    fn table(&self, copy: &LogCopy, files: Vec<FileRecord>) -> anyhow::Result<Vec<Blob>> {
        let tail = copy.tail.iter().map(|entry| TailRecord {
            entry: BASE64_STANDARD.encode(&entry.entry),
            sealed: BASE64_STANDARD.encode(&entry.sealed),
        });
        let table = Table { checkpoint: copy.note.clone(), files, tail: tail.collect(), v: BACKUP_VERSION };
        let bytes = serde_json::to_vec(&table)?;
        bytes.chunks(PART_BYTES as usize).map(|part| self.put(random_id(), part)).collect()
    }
}

/// A pack that was removed around the moment of the checkpoint: nobody knows whether its entries say so already.
fn gone(earlier: &[Item], later: &[Item]) -> Option<String> {
    let there: HashSet<&str> = later.iter().map(|item| item.path.as_str()).collect();
    let packs = earlier.iter().filter(|item| matches!(item.source, Source::Pack));
    packs.map(|item| &item.path).find(|path| !there.contains(path.as_str())).cloned()
}

impl Part<'_> {
    fn bytes(&self) -> u64 {
        (self.item.bytes - self.number * PART_BYTES).min(PART_BYTES)
    }

    fn read(&self, data_dir: &Path) -> Result<Vec<u8>, TakeError> {
        let start = self.number * PART_BYTES;
        if let Source::Memory(bytes) = &self.item.source {
            let start = usize::try_from(start).expect("it is in memory");
            return Ok(bytes[start..start + self.bytes() as usize].to_vec());
        }
        let path = data_dir.join(&self.item.path);
        let moved = || TakeError::Moved(self.item.path.clone());
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof => moved(),
            _ => anyhow::Error::from(error).context(path.display().to_string()).into(),
        };
        let mut bytes = vec![0; self.bytes() as usize];
        let file = File::open(&path).map_err(failed)?;
        file.read_exact_at(&mut bytes, start).map_err(failed)?;
        match self.item.source {
            Source::Bundle(index) => check_bundle(data_dir, index, &bytes).map_err(anyhow::Error::from)?,
            Source::File => {
                let metadata = file.metadata().map_err(failed)?;
                if metadata.len() != self.item.bytes || files::modified(&metadata) != self.item.modified {
                    return Err(moved());
                }
            }
            Source::Pack | Source::Memory(_) => {}
        }
        Ok(bytes)
    }
}

fn random_id() -> BlobId {
    let mut id = [0; 16];
    getrandom::fill(&mut id).expect("the operating system gives random bytes");
    BlobId(id)
}
