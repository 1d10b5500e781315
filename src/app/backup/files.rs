//! What of a data directory belongs into a backup.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Component, Path, PathBuf},
};

use anyhow::Context as _;

use crate::{adapters::log::copy::bundle_places, app::config::Config};

/// Top-level names that are not copied, or not as they lie there: keys are kept apart, the index is rebuilt, the
/// write-ahead log, the log and private records are taken as the checkpoint covers them, what witnesses cosigned is
/// taken before the checkpoint; the others belong to a running process.
const APART: &[&str] =
    &["keys", "index", "wal", "log", "private", "witness", "lock", "backup.lock", "witness.lock", "restoring"];
/// How one signing key of the log came after another.
const HANDOVERS: &str = "log/handover";
/// Cosigned checkpoints in `log/`.
const COSIGNED: &[&str] = &["checkpoint.witnessed", "checkpoint.cosigned"];
/// Longest file that is taken into memory at once.
const COSIGNED_BYTES_MAX: u64 = 128 << 10;

/// A file to copy.
#[derive(Debug)]
pub struct Item {
    /// Below the data directory, with slashes.
    pub path: String,
    pub bytes: u64,
    pub mode: u32,
    /// When it was changed last, in nanoseconds since 1970.
    pub modified: i64,
    pub source: Source,
}

#[derive(Debug)]
pub enum Source {
    /// May change while it is copied; then the copy is void.
    File,
    /// A pack of images only grows: its first bytes are what they were.
    Pack,
    /// The full entry bundle of this number.
    Bundle(u64),
    /// Read already.
    Memory(Vec<u8>),
}

/// What witnesses cosigned. Read before the log's checkpoint is: so it never says more than that.
pub fn cosigned(data_dir: &Path) -> anyhow::Result<Vec<Item>> {
    let mut paths: Vec<PathBuf> = COSIGNED.iter().map(|name| Path::new("log").join(name)).collect();
    let folder = data_dir.join("witness");
    if folder.is_dir() {
        for item in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let name = item?.file_name();
            if Path::new(&name).extension().is_some_and(|extension| extension == "checkpoint") {
                paths.push(Path::new("witness").join(name));
            }
        }
    }
    let mut items = Vec::new();
    for relative in paths {
        let path = data_dir.join(&relative);
        let metadata = match fs::metadata(&path) {
            Ok(metadata) if metadata.len() <= COSIGNED_BYTES_MAX => metadata,
            Ok(_) => continue,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error).context(path.display().to_string()),
        };
        let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
        let mut item = item(text_of(&relative), &metadata, Source::File);
        item.bytes = bytes.len() as u64;
        item.source = Source::Memory(bytes);
        items.push(item);
    }
    Ok(items)
}

/// The first `count` full bundles and their private records.
pub fn bundles(data_dir: &Path, count: u64) -> anyhow::Result<Vec<Item>> {
    let mut items = Vec::new();
    for index in 0..count {
        for (place, source) in bundle_places(index).into_iter().zip([Source::Bundle(index), Source::File]) {
            let path = data_dir.join(&place);
            let metadata = fs::metadata(&path).with_context(|| path.display().to_string())?;
            items.push(item(text_of(&place), &metadata, source));
        }
    }
    Ok(items)
}

/// Everything else, and a sentence for each thing that cannot be copied.
pub fn others(data_dir: &Path, anchor: &Path) -> anyhow::Result<(Vec<Item>, Vec<String>)> {
    let (mut items, mut skipped) = (Vec::new(), Vec::new());
    let mut folders = vec![PathBuf::new()];
    // Of the log, what does not follow from its entries: a handover cannot be made again.
    folders.extend(Some(PathBuf::from(HANDOVERS)).filter(|folder| data_dir.join(folder).is_dir()));
    while let Some(folder) = folders.pop() {
        let path = data_dir.join(&folder);
        for found in fs::read_dir(&path).with_context(|| path.display().to_string())? {
            let found = found.with_context(|| path.display().to_string())?;
            let (name, kind) = (found.file_name(), found.file_type()?);
            let relative = folder.join(&name);
            let Some(name) = name.to_str() else {
                skipped.push(format!("{}: its name is no text", found.path().display()));
                continue;
            };
            let is_apart = folder.as_os_str().is_empty()
                && (APART.contains(&name) || name.starts_with("office.sock") || name.starts_with("index."));
            if is_apart || found.path() == anchor || name.ends_with(".tmp") {
                continue;
            }
            if kind.is_dir() {
                folders.push(relative);
            } else if kind.is_file() {
                let is_pack = relative.starts_with("images") && name.ends_with(".pack");
                let metadata = match found.metadata() {
                    Ok(metadata) => metadata,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(error).context(found.path().display().to_string()),
                };
                items.push(item(text_of(&relative), &metadata, if is_pack { Source::Pack } else { Source::File }));
            } else {
                skipped.push(format!("{}: neither a file nor a folder", found.path().display()));
            }
        }
    }
    Ok((items, skipped))
}

fn text_of(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn item(path: String, metadata: &fs::Metadata, source: Source) -> Item {
    Item { path, bytes: metadata.len(), mode: metadata.mode() & 0o7777, modified: modified(metadata), source }
}

/// When a file was changed last, in nanoseconds since 1970.
pub fn modified(metadata: &fs::Metadata) -> i64 {
    metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec())
}

/// Files that the configuration names and that lie elsewhere.
pub fn outside(config: &Config, data_dir: &Path) -> Vec<(&'static str, PathBuf)> {
    let (tls, office) = (config.listen.tls.as_ref(), config.office.tls.as_ref());
    let named = [
        ("models.recipes", Some(&config.models.recipes)),
        ("models.calibrations", Some(&config.models.calibrations)),
        ("witnesses.policy", config.witnesses.policy.as_ref()),
        ("listen.tls.certificate", tls.map(|tls| &tls.certificate)),
        ("listen.tls.key", tls.map(|tls| &tls.key)),
        ("listen.tls.client_ca", tls.and_then(|tls| tls.client_ca.as_ref())),
        ("listen.tls.crl", tls.and_then(|tls| tls.crl.as_ref())),
        ("office.tls.certificate", office.map(|tls| &tls.certificate)),
        ("office.tls.key", office.map(|tls| &tls.key)),
        ("office.tls.client_ca", office.and_then(|tls| tls.client_ca.as_ref())),
        ("office.tls.crl", office.and_then(|tls| tls.crl.as_ref())),
    ];
    let named = named.into_iter().filter_map(|(name, path)| Some((name, path?.clone())));
    named.filter(|(_, path)| !is_below(path, data_dir)).collect()
}

/// Whether a configured path stays in the data directory; `../volume/anchor` does not.
pub fn is_below(path: &Path, data_dir: &Path) -> bool {
    let rest = path.strip_prefix(data_dir);
    rest.is_ok_and(|rest| !rest.components().any(|part| part == Component::ParentDir))
}
