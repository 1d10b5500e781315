//! `lineproof restore`: a data directory out of a backup, after proof that it goes on from what was witnessed; and the
//! drill, which does all of it to a folder that is then removed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use anyhow::{Context as _, bail};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use clap::Args;

use super::{
    RESTORED_FILE,
    fetch::{Backup, names},
    files::is_below,
    open_store, require_store,
};
use crate::{
    adapters::{
        archive::PackArchive,
        backup::AgeOpener,
        keys::Keys,
        log::{
            LogConfig,
            copy::{self, CopiedEntry, LogCopy},
            fsck::Fsck,
        },
    },
    app::{
        cli::DataArgs,
        config::{self, Config},
        fsck,
        keys::{log_key, set_pending},
        verify,
    },
    core::{
        backup::{FileRecord, Manifest, Restored, Table},
        export::keys::Keys as AuditorKeys,
        lineage::{
            checkpoint::{CHECKPOINT_BYTES_MAX, Checkpoint, VerifierKey},
            passport::{PASSPORT_BYTES_MAX, Passport},
            rotation::{RotatedKey, RotationEvent},
        },
    },
    ports::backup::{BlobOpener, BlobStore},
    services::witness::place,
};

/// Make a data directory out of a backup, once it is proven to go on from what was witnessed.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Exit status: 0 restored and checked, 1 refused or something is wrong. Nothing is left of a restore that was refused."
)]
pub struct RestoreArgs {
    /// Where the backups are: a folder, or s3://BUCKET/PREFIX
    #[arg(value_name = "STORE")]
    pub from: String,
    #[command(flatten)]
    pub data: DataArgs,
    /// File with the log's public key, from another place than the backup
    #[arg(long, value_name = "VKEYFILE")]
    pub key: PathBuf,
    /// File with the private key that opens the backup, as `lineproof backup --new-key` or `age-keygen` made it
    #[arg(long, value_name = "FILE")]
    pub identity: PathBuf,
    /// The copy of keys/ that was kept apart
    #[arg(long, value_name = "DIR")]
    pub keys: PathBuf,
    /// Checkpoint, or passport, of this log that a witness, or anybody outside, was given last; may be given several times
    #[arg(long, value_name = "FILE")]
    pub witnessed: Vec<PathBuf>,
    /// Nobody outside was ever given a checkpoint, passport or export of this log
    #[arg(long, conflicts_with = "witnessed")]
    pub unwitnessed: bool,
    /// Restore also what is behind: everything can be read, nothing can be appended
    #[arg(long, conflicts_with = "drill")]
    pub read_only: bool,
    /// Which backup, by its name in `lineproof backup --list`; otherwise the newest
    #[arg(long, value_name = "NAME")]
    pub backup: Option<String>,
    /// Restore to a scratch folder, check everything, say how long it took, and remove it
    #[arg(long)]
    pub drill: bool,
    /// Folder for the drill; it needs as much room as the data
    #[arg(long, value_name = "DIR", requires = "drill")]
    pub scratch: Option<PathBuf>,
}

/// Lies in a folder while it is restored to: one that a killed restore left may be removed.
const RESTORING: &str = "restoring";

/// A checkpoint that was signed and shown, and who says so.
struct Shown {
    who: String,
    note: String,
    checkpoint: Checkpoint,
}

/// # Errors
/// Why nothing was restored, and what to do.
pub fn run(args: &RestoreArgs) -> anyhow::Result<ExitCode> {
    let begun = Instant::now();
    let part = Part::new(args)?;
    let restored = restore(args, &part)?;
    let seconds = begun.elapsed().as_secs_f64();
    if args.drill {
        let scratch = part.path.clone();
        drop(part);
        println!("drill: {restored} restored and checked in {seconds:.1} s; {} is removed again", scratch.display());
        return Ok(ExitCode::SUCCESS);
    }
    let data_dir = part.keep(&args.data.data)?;
    println!("restored {restored} to {} in {seconds:.1} s", data_dir.display());
    if args.read_only {
        println!(
            "it is for reading: a service on it answers questions and appends nothing. `lineproof fsck` names one problem, \
             which keeps it so: the anchor covers more than is on disk. If it names others, do not start the service on it"
        );
    } else {
        println!(
            "make sure that no other copy of this log runs anywhere, then `lineproof serve --data {}`",
            data_dir.display()
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn restore(args: &RestoreArgs, part: &Part) -> anyhow::Result<String> {
    // 1. What is trusted: the log's key, and the keys that were kept apart.
    let given = read(&args.key, CHECKPOINT_BYTES_MAX as u64)?;
    let keys = Keys::open(&args.keys)?;
    let key = log_key(&given, &keys).with_context(|| args.key.display().to_string())?;
    if ![Some(keys.verifier_key()), keys.announced_key()].contains(&Some(key.to_string())) {
        bail!("{} holds the keys of {}, not of {key}", args.keys.display(), keys.verifier_key());
    }
    let opener = AgeOpener::read(&args.identity)?;
    // 2. Which backup, and that the log's key signed it.
    let store = open_store(&args.from, Path::new(""), None)?;
    require_store(&*store, &args.from, key.name())?;
    let all = names(&*store)?;
    let name = args.backup.as_ref().or(all.last()).with_context(|| format!("there is no backup in {}", args.from))?;
    let backup = Backup::open(&*store, name, &key)?;
    let size = backup.manifest.size;
    println!("backup {name}: {size} entries of {}", key.name());
    ok(&format!("its manifest is signed by {key}"));
    // 3. How far the log is known to have been, before anything is fetched.
    let mut shown = shown(args, &key, &*store, &opener, &all)?;
    refuse_behind(args, size, &shown)?;
    backup.check_presence(&*store)?;
    ok(&format!("its {} blobs are there, each as long as it was", backup.blobs.len()));
    let table = backup.table(&*store, &opener)?;
    let copy = log_copy(&table, &backup.manifest, &key)?;
    // A copy of the keys may be from before the log's key had changed, a backup as well.
    let keys = keys.as_of(&copy.note);
    Checkpoint::open(&copy.note, keys.log_signer().verifier_key()).with_context(|| {
        format!(
            "this backup needs the keys of its time: its log is not signed by {}, which {} holds",
            keys.verifier_key(),
            args.keys.display()
        )
    })?;
    let key = log_key(&given, &keys)?;
    let signed = given.parse::<AuditorKeys>()?.open_checkpoint(copy.note.as_bytes())?.key.line();
    // 4. The log, and the proof that it goes on from there.
    let (config_files, other_files): (Vec<&FileRecord>, Vec<&FileRecord>) =
        table.files.iter().partition(|file| file.path == config::FILE_NAME);
    let (log_files, other_files): (Vec<&FileRecord>, Vec<&FileRecord>) =
        other_files.into_iter().partition(|file| ["log/", "private/"].iter().any(|start| file.path.starts_with(start)));
    backup.fetch(&*store, &opener, &log_files, &part.path)?;
    let log = LogConfig::new(&part.path);
    copy::lay_out(&log, &copy, |_| {})?;
    ok(&format!("its {size} entries lead to the signed root {}", copy.checkpoint.root));
    for shown in &shown {
        prove(args, &log, &copy.checkpoint, shown)?;
    }
    // 5. Everything else; the configuration last, without which it is no data directory. A drill that is killed leaves no
    //    keys in a scratch folder.
    if !args.drill {
        keys.write(&part.path.join("keys"))?;
    }
    backup.fetch(&*store, &opener, &other_files, &part.path)?;
    backup.fetch(&*store, &opener, &config_files, &part.path)?;
    // 6. An anchor on another volume outlived the data, and knows how far the log was.
    let config = Config::load(&part.path)?;
    let anchor_outside = (!is_below(&config.log.anchor, &part.path) && !args.drill).then_some(&config.log.anchor);
    if let Some(anchor) = anchor_outside.filter(|anchor| anchor.exists()) {
        let anchor = Shown::read(anchor, &key, format!("the anchor {}", anchor.display()))?;
        refuse_behind(args, size, std::slice::from_ref(&anchor))?;
        prove(args, &log, &copy.checkpoint, &anchor)?;
        shown.push(anchor);
    }
    let furthest = shown.iter().filter(|shown| shown.checkpoint.size > size).max_by_key(|shown| shown.checkpoint.size);
    if args.read_only && furthest.is_none() {
        bail!("nothing shows that the log was longer than this backup: restore it without --read-only");
    }
    if !args.read_only {
        let furthest = shown.iter().map(|shown| shown.checkpoint.size).max();
        let restored = Restored { backup: name.clone(), shown: furthest, size };
        fs::write(part.path.join(RESTORED_FILE), serde_json::to_vec(&restored)?)?;
    }
    if signed != keys.verifier_key() && !args.read_only {
        // The backup is from the overlap, and the key that was current then is not here any more.
        set_pending(&part.path, RotationEvent::Retired, RotatedKey::Log(signed))?;
    }
    check(&part.path, &log, &copy, &keys, &key, &args.key)?;
    // 7. The anchor: what this log must never fall behind. One that is ahead keeps the log from being appended to.
    let anchor = furthest.map_or(&copy.note, |shown| &shown.note);
    if !args.drill && config.log.anchor != log.anchor {
        fs::remove_file(&log.anchor)?;
    }
    if !args.drill {
        copy::put_anchor(&config.log.anchor, anchor).context("putting the anchor; is its volume mounted?")?;
    }
    Ok(format!("{size} entries, {} files", table.files.len()))
}

/// The checkpoints that were shown to others: what was given, and what newer backups in the same store say.
fn shown(
    args: &RestoreArgs,
    key: &VerifierKey,
    store: &dyn BlobStore,
    opener: &dyn BlobOpener,
    all: &[String],
) -> anyhow::Result<Vec<Shown>> {
    if args.witnessed.is_empty() && !args.unwitnessed && !args.drill {
        bail!(
            "refused: nothing says how far this log was witnessed. Ask each witness for the checkpoint it cosigned last \
             (a witness serves it at its URL, followed by /{}/checkpoint; by files, it is what was imported from it last) \
             and give it with --witnessed; the newest passport that a customer holds says it, too. If nobody outside was \
             ever shown anything of this log: --unwitnessed",
            place(key.name())
        );
    }
    let given = |path: &PathBuf| Shown::read(path, key, path.display().to_string());
    let mut shown: Vec<Shown> = args.witnessed.iter().map(given).collect::<anyhow::Result<_>>()?;
    // A newer backup in the store was signed by the same key: it shows how far the log was.
    let newer = all.last().filter(|newest| args.backup.as_ref().is_some_and(|name| name < *newest) && !args.drill);
    if let Some(newest) = newer {
        let open = || -> anyhow::Result<Shown> {
            let note = Backup::open(store, newest, key)?.table(store, opener)?.checkpoint;
            Ok(Shown { who: format!("the newer backup {newest}"), checkpoint: Checkpoint::open(&note, key)?, note })
        };
        shown.push(open().with_context(|| {
            format!(
                "the newer backup {newest} cannot be read. If the log's key has changed since, give --key a file with all its \
                 keys, such as log.vkey. Only if that backup is really lost, remove {}",
                Manifest::place(newest)
            )
        })?);
    }
    shown.sort_by_key(|shown| shown.checkpoint.size);
    Ok(shown)
}

fn refuse_behind(args: &RestoreArgs, size: u64, shown: &[Shown]) -> anyhow::Result<()> {
    let Some(ahead) = shown.iter().filter(|shown| shown.checkpoint.size > size).max_by_key(|s| s.checkpoint.size)
    else {
        return Ok(());
    };
    if args.read_only {
        println!("  {} covers {} entries, the backup {size}: for reading only", ahead.who, ahead.checkpoint.size);
        return Ok(());
    }
    bail!(
        "refused: the backup holds {size} entries, but {} shows that {} were signed. To go on from the backup would be a \
         second history: a witness refuses it, and everybody who holds that checkpoint can prove it. Look for a newer \
         backup, or the old disk. If there is none, this log has ended: --read-only restores it for reading, and \
         production goes on in a new log (`lineproof init` with another --origin)",
        ahead.who,
        ahead.checkpoint.size
    )
}

/// Proves that the log contains everything that was shown.
fn prove(args: &RestoreArgs, log: &LogConfig, restored: &Checkpoint, shown: &Shown) -> anyhow::Result<()> {
    let Shown { who, checkpoint, .. } = shown;
    if args.read_only && checkpoint.size > restored.size {
        return Ok(());
    }
    copy::check_extends(log, restored, checkpoint).with_context(|| {
        format!(
            "refused: {who} covers {} entries of another history than the backup. Both are signed by the log's key: keep \
             both, and find out which copy of the log ran where",
            checkpoint.size
        )
    })?;
    ok(&format!("it goes on from {who}, which covers {} entries (consistency proof)", checkpoint.size));
    Ok(())
}

fn log_copy(table: &Table, manifest: &Manifest, key: &VerifierKey) -> anyhow::Result<LogCopy> {
    let checkpoint = Checkpoint::open(&table.checkpoint, key).context("the checkpoint in the backup")?;
    if (checkpoint.size, checkpoint.root) != (manifest.size, manifest.root) {
        bail!("the backup's checkpoint is not the one its manifest names");
    }
    let decode = |text: &String| BASE64_STANDARD.decode(text).context("the last entries in the table");
    let entry = |tail: &crate::core::backup::TailRecord| {
        anyhow::Ok(CopiedEntry { entry: decode(&tail.entry)?, sealed: decode(&tail.sealed)? })
    };
    let tail = table.tail.iter().map(entry).collect::<anyhow::Result<_>>()?;
    Ok(LogCopy { checkpoint, note: table.checkpoint.clone(), tail })
}

/// Everything that `lineproof fsck` and `lineproof verify` check.
fn check(
    part: &Path,
    log: &LogConfig,
    copy: &LogCopy,
    keys: &Keys,
    key: &VerifierKey,
    key_file: &Path,
) -> anyhow::Result<()> {
    copy::put_anchor(&log.anchor, &copy.note)?;
    let archive = PackArchive::open(part.join("images"), keys.image_sealer())?;
    let fsck = Fsck { config: log, key, sealer: &*keys.private_sealer(), archive: &archive, indexed_to: None };
    let report = fsck.run(fsck::progress(false))?;
    print!("{}", fsck::words(&report, part));
    if !report.is_clean() {
        bail!("what was restored is not whole; restore an older backup with --backup, and keep this one");
    }
    if !verify::check_and_print(part, key_file, "")? {
        bail!("what was restored does not verify");
    }
    let folder = fs::File::open(part)?;
    rustix::fs::syncfs(&folder).with_context(|| format!("syncing {}", part.display()))
}

impl Shown {
    fn read(path: &Path, key: &VerifierKey, who: String) -> anyhow::Result<Self> {
        let mut note = read(path, PASSPORT_BYTES_MAX as u64)?;
        // A passport was given to somebody, and its checkpoint with it.
        if note.starts_with("c2sp.org/tlog-proof") {
            note = Passport::parse(&note).with_context(|| path.display().to_string())?.checkpoint;
        }
        let checkpoint = Checkpoint::open(&note, key).with_context(|| path.display().to_string())?;
        Ok(Self { who, note, checkpoint })
    }
}

/// The folder that is restored to: beside the data directory, which it becomes when all is well. What a killed restore
/// left there is removed by the next.
struct Part {
    path: PathBuf,
}

impl Part {
    fn new(args: &RestoreArgs) -> anyhow::Result<Self> {
        let path = if args.drill {
            let scratch = args.scratch.clone().unwrap_or_else(std::env::temp_dir);
            scratch.join(format!("lineproof-drill-{}", std::process::id()))
        } else {
            let data_dir = &args.data.data;
            let is_empty = match fs::read_dir(data_dir) {
                Ok(mut items) => items.next().is_none(),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
                Err(error) => return Err(error).context(data_dir.display().to_string()),
            };
            if !is_empty {
                bail!(
                    "{} is not empty; a restore never overwrites: give another folder with --data",
                    data_dir.display()
                );
            }
            let mut name = data_dir
                .file_name()
                .with_context(|| {
                    format!(
                        "--data {} names no folder that a restore can make: give its name, such as `--data plant` from \
                         the folder above",
                        data_dir.display()
                    )
                })?
                .to_owned();
            name.push(".restoring");
            data_dir.with_file_name(name)
        };
        if path.join(RESTORING).exists() {
            fs::remove_dir_all(&path).with_context(|| path.display().to_string())?;
        }
        if path.exists() {
            bail!("{} is there and no restore left it; move it away", path.display());
        }
        fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        let part = Self { path };
        fs::File::create(part.path.join(RESTORING))?.sync_all()?;
        Ok(part)
    }

    /// Gives the folder its name.
    fn keep(self, data_dir: &Path) -> anyhow::Result<PathBuf> {
        fs::remove_file(self.path.join(RESTORING))?;
        // An empty folder gives way to it.
        fs::rename(&self.path, data_dir).with_context(|| data_dir.display().to_string())?;
        let parent = data_dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::File::open(parent)?.sync_all()?;
        Ok(data_dir.to_owned())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // What was restored has another name by now.
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn read(path: &Path, max: u64) -> anyhow::Result<String> {
    let bytes = fs::metadata(path).with_context(|| path.display().to_string())?.len();
    if bytes > max {
        bail!("{} has {bytes} bytes; at most {max} are read", path.display());
    }
    fs::read_to_string(path).with_context(|| path.display().to_string())
}

fn ok(what: &str) {
    println!("  ok  {what}");
}
