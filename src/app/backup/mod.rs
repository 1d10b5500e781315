//! `lineproof backup` and `lineproof restore`. Format and crash story: `docs/spec/backup.md`; for operators:
//! `docs/backup.md`.
//!
//! A backup reads files only, in a process of its own: the service that runs meanwhile is not asked, does not wait, and
//! would not notice if the backup were killed.

mod fetch;
mod files;
mod prune;
mod restore;
mod take;

use std::{
    fs::{self, File, TryLockError},
    path::{Component, Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, bail};
use clap::Args;

pub use self::restore::{RestoreArgs, run as restore};
use super::{camera::progress::Progress, cli::DataArgs, config::Config, keys, witness::plant::log_keys};
use crate::{
    adapters::{
        backup::{AgeSealer, DirectoryStore, S3Settings, S3Store, create_identity},
        clock::SystemClock,
    },
    core::{
        backup::{MANIFEST_BYTES_MAX, Manifest, Restored, STORE_FILE, store_origin, store_text},
        lineage::checkpoint::VerifierKey,
    },
    ports::backup::BlobStore,
};

/// Held while a backup is made of this data directory.
const LOCK_FILE: &str = "backup.lock";
/// How often a backup begins again because a file went away or changed under its hands.
const TRIES_MAX: u32 = 5;
/// How long a backup waits for an erasure before it begins again.
const ERASING_PAUSE: Duration = Duration::from_secs(1);
/// Added to the process's niceness: verdicts come first.
const NICENESS: i32 = 10;

/// Copy the data directory, encrypted and only what is new, while the service runs.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "The keys in keys/ are not copied: keep them apart. Exit status: 0 done, 1 not done; earlier backups are whole either way."
)]
pub struct BackupArgs {
    #[command(flatten)]
    pub data: DataArgs,
    /// Folder, or s3://BUCKET/PREFIX; otherwise `to` of [backup] in lineproof.toml
    #[arg(long, value_name = "STORE")]
    pub to: Option<String>,
    /// Public key to encrypt to; may be given several times; otherwise `recipients` of [backup]
    #[arg(long, value_name = "AGE1…")]
    pub recipient: Vec<String>,
    /// Remove all but the newest backups when this one is whole; otherwise `keep` of [backup]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub keep: Option<u32>,
    /// Begin a store here; without this a store must be there, so that a share that is not mounted is noticed
    #[arg(long)]
    pub new_store: bool,
    /// List the backups in the store instead
    #[arg(long)]
    pub list: bool,
    /// Make a key to open backups with, in this file, and print its public key instead
    #[arg(long, value_name = "FILE")]
    pub new_key: Option<PathBuf>,
}

/// # Errors
/// With what to do about it.
pub fn run(args: &BackupArgs) -> anyhow::Result<ExitCode> {
    match &args.new_key {
        Some(path) => new_key(path)?,
        None => backup(args)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn new_key(path: &Path) -> anyhow::Result<()> {
    let public = create_identity(path)?;
    println!("made {}: it opens every backup that is encrypted to it", path.display());
    println!("keep it off this machine, where two people find it in five years; nothing else opens the backups");
    println!("public key, for `recipients` of [backup] in lineproof.toml:");
    println!("  {public}");
    Ok(())
}

fn backup(args: &BackupArgs) -> anyhow::Result<()> {
    let data_dir = &args.data.data;
    let config = Config::load(data_dir)?;
    let keys = keys::open(data_dir)?;
    let earlier: Vec<VerifierKey> =
        log_keys(data_dir)?.iter().map(|key| key.line().parse()).collect::<Result<_, _>>()?;
    // Older backups in the store may be signed by a key that this one took the place of.
    let key = keys.verifier_key().parse::<VerifierKey>()?.with_earlier(&earlier);
    // A path in the configuration is relative to the data directory, one on the command line to where it is typed.
    let (to, relative_to) = match (&args.to, &config.backup.to) {
        (Some(to), _) => (to, Path::new("")),
        (None, Some(to)) => (to, data_dir.as_path()),
        (None, None) => bail!("no store: give --to, or set `to` of [backup] in lineproof.toml"),
    };
    let store = open_store(to, relative_to, Some(data_dir))?;
    if args.list {
        require_store(&*store, to, key.name())?;
        return list(&*store, &key);
    }
    let _lock = lock(data_dir)?;
    let recipients = if args.recipient.is_empty() { &config.backup.recipients } else { &args.recipient };
    let sealer = AgeSealer::new(recipients)?;
    // Whoever may not lower it is not kept from a backup.
    let _ = rustix::process::nice(NICENESS);
    for (name, path) in files::outside(&config, data_dir) {
        eprintln!("not in the backup, because it lies outside of {}: {} ({name})", data_dir.display(), path.display());
    }
    let clock = SystemClock::new();
    let take = take::Take {
        data_dir,
        config: &config,
        keys: &keys,
        key: &key,
        clock: &clock,
        store: &*store,
        sealer: &sealer,
    };
    match (has_store(&*store, to, key.name())?, args.new_store) {
        (true, _) => {}
        (false, false) => bail!("{}; `--new-store` begins one", no_store(to)),
        (false, true) => {
            // A store is begun when nothing is in the way of its first backup.
            take.look()?;
            store.put(STORE_FILE, store_text(key.name()).as_bytes())?;
            store.settle()?;
        }
    }
    let mut tries = 1;
    let taken = loop {
        match take.run() {
            Err(take::TakeError::Moved(path)) if tries < TRIES_MAX => {
                tracing::debug!(path, "it changed while it was copied; from the beginning");
            }
            Err(take::TakeError::Erasing) if tries < TRIES_MAX => std::thread::sleep(ERASING_PAUSE),
            taken => break taken?,
        }
        tries += 1;
    };
    let keep = args.keep.or(config.backup.keep);
    let pruned =
        prune::prune(&*store, &key, keep).context("the new backup is whole, but older ones were not removed")?;
    println!("backed up {} entries as {}", taken.size, taken.name);
    println!(
        "  {} blobs, {}; new of them {}, {}",
        taken.blobs,
        bytes(taken.bytes),
        taken.new_blobs,
        bytes(taken.new_bytes)
    );
    if pruned.backups > 0 || pruned.blobs > 0 {
        println!("  removed {} older backups and {} blobs that no backup needs", pruned.backups, pruned.blobs);
    }
    Ok(())
}

fn list(store: &dyn BlobStore, key: &VerifierKey) -> anyhow::Result<()> {
    for name in fetch::names(store)? {
        let note = store.get(&Manifest::place(&name), MANIFEST_BYTES_MAX)?.unwrap_or_default();
        match Manifest::open(&String::from_utf8_lossy(&note), key) {
            Ok(manifest) => println!("{name}  {} entries, {}", manifest.size, bytes(manifest.bytes)),
            Err(error) => println!("{name}  NOT USABLE: {error}"),
        }
    }
    Ok(())
}

/// Lies in a restored data directory until the log says that it was restored.
const RESTORED_FILE: &str = "restored";
/// Longest such file.
const RESTORED_BYTES_MAX: u64 = 4096;

/// What a restore left to be written into the log, if that was not done yet.
///
/// # Errors
/// When the file cannot be read.
pub fn restored(data_dir: &Path) -> anyhow::Result<Option<Restored>> {
    let path = data_dir.join(RESTORED_FILE);
    match fs::metadata(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Ok(metadata) if metadata.len() > RESTORED_BYTES_MAX => bail!("{}: no restore wrote this", path.display()),
        _ => {}
    }
    let text = fs::read(&path).with_context(|| path.display().to_string())?;
    serde_json::from_slice(&text).map(Some).with_context(|| path.display().to_string())
}

/// Called when the log says it. A crash before leaves it to be said twice.
///
/// # Errors
/// When the file cannot be removed.
pub fn forget_restored(data_dir: &Path) -> anyhow::Result<()> {
    let path = data_dir.join(RESTORED_FILE);
    fs::remove_file(&path).with_context(|| path.display().to_string())
}

/// A folder or a bucket. A folder within the data directory would go with it.
fn open_store(to: &str, relative_to: &Path, data_dir: Option<&Path>) -> anyhow::Result<Box<dyn BlobStore>> {
    if let Some(place) = to.strip_prefix("s3://") {
        return Ok(Box::new(S3Store::new(s3_settings(place)).map_err(anyhow::Error::msg)?));
    }
    let folder = real(&relative_to.join(to))?;
    if let Some(data_dir) = data_dir
        && folder.starts_with(real(data_dir)?)
    {
        bail!("{} lies in the data directory: what takes one takes both", folder.display());
    }
    Ok(Box::new(DirectoryStore::new(&folder)))
}

/// A path without links, also of a folder that is not there yet: as far as it is, and then as it is written.
fn real(path: &Path) -> anyhow::Result<PathBuf> {
    let path = std::path::absolute(path).with_context(|| format!("{:?}", path.display().to_string()))?;
    let there = path.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    let mut real = fs::canonicalize(there).with_context(|| there.display().to_string())?;
    for part in path.strip_prefix(there).unwrap_or(Path::new("")).components() {
        match part {
            Component::ParentDir => {
                real.pop();
            }
            part => real.push(part),
        }
    }
    Ok(real)
}

/// `BUCKET` or `BUCKET/PREFIX`; the rest stands where other S3 tools look for it, too.
fn s3_settings(place: &str) -> S3Settings {
    let set = |names: &[&str]| names.iter().find_map(|name| std::env::var(name).ok().filter(|text| !text.is_empty()));
    let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
    S3Settings {
        endpoint: set(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]),
        region: set(&["AWS_REGION", "AWS_DEFAULT_REGION"]).unwrap_or_else(|| "us-east-1".into()),
        bucket: bucket.to_owned(),
        prefix: prefix.trim_end_matches('/').to_owned(),
    }
}

/// Whether a store is there, which must be this log's then.
fn has_store(store: &dyn BlobStore, to: &str, origin: &str) -> anyhow::Result<bool> {
    let Some(text) = store.get(STORE_FILE, MANIFEST_BYTES_MAX)? else { return Ok(false) };
    let text = String::from_utf8_lossy(&text).into_owned();
    match store_origin(&text) {
        Ok(found) if found == origin => Ok(true),
        Ok(found) => bail!("{to} holds backups of the log {found}; every log needs a store of its own"),
        Err(reason) => bail!("{to}: {reason}"),
    }
}

fn require_store(store: &dyn BlobStore, to: &str, origin: &str) -> anyhow::Result<()> {
    if has_store(store, to, origin)? { Ok(()) } else { bail!("{}", no_store(to)) }
}

fn no_store(to: &str) -> String {
    format!("there is no backup store in {to}; is it mounted?")
}

/// Held while a backup is made, or while its files must not be.
///
/// # Errors
/// When somebody else holds it.
pub fn lock(data_dir: &Path) -> anyhow::Result<File> {
    let path = data_dir.join(LOCK_FILE);
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.with_context(|| path.display().to_string())?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!("another backup of {} is under way", data_dir.display()),
        Err(TryLockError::Error(error)) => Err(error).context(path.display().to_string()),
    }
}

/// Runs `work` over `items` on as many threads as the store wants, and tells a bar how many bytes are done.
fn in_parallel<T: Sync, R: Send, E: Send>(
    store: &dyn BlobStore,
    items: &[T],
    bytes_of: impl Fn(&T) -> u64 + Sync,
    work: impl Fn(&T) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    use std::sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    };

    let total = items.iter().map(&bytes_of).sum::<u64>() >> 10;
    let progress = Progress::new(Some(total), "KiB");
    let (next, results) = (AtomicUsize::new(0), Mutex::new(Vec::with_capacity(items.len())));
    let (said, heard) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..store.calls_at_once().min(items.len()) {
            let (said, next, results, bytes_of, work) = (said.clone(), &next, &results, &bytes_of, &work);
            scope.spawn(move || {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let result = work(item);
                    // Nobody takes another item once one has failed.
                    if result.is_err() {
                        next.store(items.len(), Ordering::Relaxed);
                    }
                    results.lock().unwrap_or_else(PoisonError::into_inner).push(result);
                    let _ = said.send(bytes_of(item));
                }
            });
        }
        drop(said);
        let mut done = 0;
        for bytes in heard {
            done += bytes;
            progress.at(done >> 10);
        }
    });
    progress.finish();
    results.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().collect()
}

/// For people.
fn bytes(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}
