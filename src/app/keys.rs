//! `lineproof keys`: which keys a data directory has, and how the log's signing key is changed for another.
//! Format and crash story: `docs/spec/rotation.md`; for operators: `docs/keys.md`.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

use super::{
    backup,
    camera::progress::Progress,
    cli::DataArgs,
    client,
    config::Config,
    server::open_log,
    verify::Directory,
    witness::plant::{kept, log_keys},
};
use crate::{
    adapters::{archive::PackArchive, keys::Keys},
    core::{
        export::{
            CHECKPOINT,
            keys::{Keys as AuditorKeys, VerifierKey},
            verify::{LogFiles as _, take_handover},
        },
        lineage::{
            checkpoint::{CHECKPOINT_BYTES_MAX, Checkpoint, VerifierKey as LogKey},
            entry::ENTRY_BYTES_MAX,
            rotation::{RotatedKey, Rotation, RotationEvent, Said},
            tiles::{self, Tile, TileKind},
        },
        witness::cosign::Cosigned,
    },
    edge::pb::{GetPassportRequest, get_passport_request::Of},
};

/// Bytes of a full bundle: 256 entries with their lengths.
const BUNDLE_BYTES_MAX: u64 = 256 * (ENTRY_BYTES_MAX as u64 + 2);
/// Below the data directory, until the next start has noted it in the log: what became of the log's keys.
const PENDING_FILE: &str = "rotation";
/// Below the log: how a key came into the place of the one before, one passport for each.
const HANDOVER_DIR: &str = "handover";
/// The newest checkpoint that satisfied the plant's policy.
const WITNESSED: &str = "checkpoint.witnessed";
/// The public keys for auditors.
const VKEY_FILE: &str = "log.vkey";
/// Stands above a key that signs no more.
const RETIRED_NOTE: &str = "# retired: believe it only for evidence that you had before";

#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Show the public keys of the log, and what their state is
    List(DataArgs),
    /// Make a next key: one that signs beside the current one from the next start on, or one that seals from then on
    Rotate(RotateArgs),
    /// Destroy the key before: give the next signing key to your auditors and witnesses first. `sealing` seals everything
    /// anew, for which the service must be stopped
    Retire(RetireArgs),
}

/// What a key is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Which {
    /// The key that signs checkpoints, exports and receipts
    #[default]
    Log,
    /// The master key, under which images and private values are sealed
    Sealing,
}

#[derive(Debug, Args)]
pub struct RotateArgs {
    #[arg(value_enum, default_value_t)]
    which: Which,
    #[command(flatten)]
    data: DataArgs,
}

#[derive(Debug, Args)]
pub struct RetireArgs {
    #[arg(value_enum, default_value_t)]
    which: Which,
    /// Do not wait for witnesses that have not cosigned under the next key yet
    #[arg(long)]
    unwitnessed: bool,
    #[command(flatten)]
    data: DataArgs,
}

/// What the log is yet to be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pending {
    event: RotationEvent,
    key: RotatedKey,
}

impl Pending {
    /// Written before the deed, so it says what was meant; the keys say whether it was done.
    fn is_done(&self, keys: &Keys) -> bool {
        match (self.event, &self.key) {
            (RotationEvent::Announced, RotatedKey::Log(vkey)) => keys.announced_key().as_ref() == Some(vkey),
            (RotationEvent::Retired, RotatedKey::Log(vkey)) => keys.verifier_key() != *vkey,
            (RotationEvent::Announced, RotatedKey::Sealing(check)) => keys.master_checks().contains(check),
            (RotationEvent::Retired, RotatedKey::Sealing(check)) => !keys.master_checks().contains(check),
        }
    }
}

/// # Errors
/// When the keys cannot be read, or it is not the time for what was asked.
pub fn run(command: &KeysCommand) -> anyhow::Result<ExitCode> {
    match command {
        KeysCommand::List(args) => list(&args.data),
        KeysCommand::Rotate(RotateArgs { which: Which::Log, data }) => rotate(&data.data),
        KeysCommand::Rotate(RotateArgs { which: Which::Sealing, data }) => rotate_sealing(&data.data),
        KeysCommand::Retire(args) if args.which == Which::Log => retire(args),
        KeysCommand::Retire(args) => retire_sealing(&args.data.data),
    }?;
    Ok(ExitCode::SUCCESS)
}

/// The keys of a data directory, as its log has them.
///
/// # Errors
/// When they cannot be read.
pub fn open(data_dir: &Path) -> anyhow::Result<Keys> {
    let keys = Keys::open(&keys_dir(data_dir))?;
    // A log that cannot be read is said elsewhere, with more about it.
    let note = Directory(&data_dir.join("log")).read(CHECKPOINT, CHECKPOINT_BYTES_MAX as u64);
    let note = note.ok().flatten().and_then(|note| String::from_utf8(note).ok());
    Ok(match note {
        Some(note) => keys.as_of(&note),
        None => keys,
    })
}

/// Held while keys are changed: one change at a time.
fn lock(data_dir: &Path) -> anyhow::Result<fs::File> {
    let folder = keys_dir(data_dir);
    let file = fs::File::open(&folder).with_context(|| folder.display().to_string())?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => bail!("another command changes {}", folder.display()),
        Err(fs::TryLockError::Error(error)) => Err(error).with_context(|| folder.display().to_string()),
    }
}

fn list(data_dir: &Path) -> anyhow::Result<()> {
    let keys = Keys::open(&keys_dir(data_dir))?;
    let (current, next) = (keys.verifier_key(), keys.announced_key());
    let mut listed = log_keys(data_dir)?;
    for held in [Some(&current), next.as_ref()].into_iter().flatten() {
        let held = VerifierKey::parse(held).map_err(anyhow::Error::msg)?;
        if !listed.contains(&held) {
            listed.push(held);
        }
    }
    for key in listed {
        let line = key.line();
        let state = if line == current {
            "current: signs checkpoints, exports, receipts and backups"
        } else if Some(&line) == next.as_ref() {
            match announcement(data_dir, &line)? {
                Some(_) => "next: signs checkpoints beside the current one",
                None => "next: not in the log yet; it begins to sign when the service starts",
            }
        } else {
            "not held here: retired, or of another copy of the keys"
        };
        println!("{line}");
        println!("  {state}");
        println!("  fingerprint {}", key.fingerprint());
    }
    for (number, check) in keys.master_checks().iter().enumerate() {
        let state = if number == 0 { "seals images and private values" } else { "opens what it sealed before" };
        println!("master key {check}\n  {state}");
    }
    Ok(())
}

fn rotate(data_dir: &Path) -> anyhow::Result<()> {
    let _alone = lock(data_dir)?;
    let folder = keys_dir(data_dir);
    let mut keys = Keys::open(&folder)?;
    refuse_pending(data_dir, &keys)?;
    let made = keys.prepare()?;
    let vkey = made.vkey();
    set_pending(data_dir, RotationEvent::Announced, RotatedKey::Log(vkey.clone()))?;
    keys.announce(made, &folder)?;
    list_key(data_dir, &vkey)?;
    println!("made the log's next key, for your auditors and witnesses (also in {}):", vkey_path(data_dir).display());
    println!("  {vkey}");
    println!("back up {} again, apart from the data", folder.display());
    println!("restart the service: from then on both keys sign every checkpoint, and the log says so");
    println!("when everybody has the next key: `lineproof keys retire --data {}`", data_dir.display());
    Ok(())
}

fn retire(args: &RetireArgs) -> anyhow::Result<()> {
    let data_dir = &args.data.data;
    let _alone = lock(data_dir)?;
    let folder = keys_dir(data_dir);
    let mut keys = Keys::open(&folder)?;
    if open(data_dir)?.verifier_key() != keys.verifier_key() {
        // The folder is a copy from the overlap; the log has it behind itself.
        let old = keys.verifier_key();
        keys.retire(&folder)?;
        println!("the log retired {old} before; it is destroyed here, too");
        return Ok(());
    }
    let old = keys.verifier_key();
    let next = keys.announced_key().context("no next key is announced; `lineproof keys rotate` makes one")?;
    refuse_pending(data_dir, &keys)?;
    // 1. The log says which key comes next, under a checkpoint of both.
    let index = announcement(data_dir, &next)?.context(
        "the log does not say yet which key comes next: restart the service, and wait for a checkpoint (a second)",
    )?;
    let key = |line: &str| VerifierKey::parse(line).map_err(anyhow::Error::msg);
    let (old_key, next_key) = (key(&old)?, key(&next)?);
    signed_by(data_dir, CHECKPOINT, &next_key)?.context("the log has no checkpoint")?;
    if let (Some(why), false) = (not_witnessed(data_dir, &next_key, index)?, args.unwitnessed) {
        bail!("{why}; wait for the witnesses, or say --unwitnessed");
    }
    // 2. The proof of it, for everybody who has the old key only. It must hold before the old key is gone.
    let request = GetPassportRequest { of: Some(Of::EntryIndex(index)) };
    let answer =
        client::with_office(data_dir, async |office| office.audit().get_passport(request).await.map_err(client::said))?;
    let handover = answer.into_inner().passports.into_iter().next().context("the service gave no passport")?.text;
    for key in [old_key, next_key.clone()] {
        let (_, found) = take_handover(&handover, &mut key.into()).map_err(|problem| {
            anyhow::anyhow!("the handover does not verify ({}); nothing was changed", problem.code())
        })?;
        if found != next_key {
            bail!("the handover is of another key; nothing was changed");
        }
    }
    let path = data_dir.join("log").join(HANDOVER_DIR).join(format!("{}.tlog-proof", HEXLOWER.encode(&next_key.id())));
    fs::create_dir_all(path.parent().expect("it lies in a folder"))?;
    write_durably(&path, handover.as_bytes())?;
    // 3. What is meant, then the deed.
    set_pending(data_dir, RotationEvent::Retired, RotatedKey::Log(old.clone()))?;
    keys.retire(&folder)?;
    note_retired(data_dir, &old)?;
    println!("{old} is destroyed");
    println!("now signs {next}");
    println!(
        "back up {} again, apart from the data: a copy from before the overlap signs nothing any more",
        folder.display()
    );
    println!("who has only the old key verifies with --handover {}", path.display());
    println!("restart the service; a running one signs with both keys until then");
    Ok(())
}

fn rotate_sealing(data_dir: &Path) -> anyhow::Result<()> {
    let _alone = lock(data_dir)?;
    let folder = keys_dir(data_dir);
    let mut keys = Keys::open(&folder)?;
    refuse_pending(data_dir, &keys)?;
    let made = Keys::prepare_master();
    let check = made.check();
    set_pending(data_dir, RotationEvent::Announced, RotatedKey::Sealing(check.clone()))?;
    keys.add_master(made, &folder)?;
    println!("made master key {check}; the one before still opens what it sealed");
    println!("back up {} again, apart from the data", folder.display());
    println!("restart the service: from then on the new key seals, and the search index is built anew");
    println!("to be rid of the one before: `lineproof keys retire sealing --data {}`", data_dir.display());
    Ok(())
}

/// Seals everything under the newest key and destroys the others. After a kill it is done again; what is done stays.
fn retire_sealing(data_dir: &Path) -> anyhow::Result<()> {
    let _alone = lock(data_dir)?;
    let folder = keys_dir(data_dir);
    let config = Config::load(data_dir)?;
    let mut keys = Keys::open(&folder)?;
    refuse_pending(data_dir, &keys)?;
    let checks = keys.master_checks();
    let [newest, older] = &checks[..] else {
        bail!("there is one master key; `lineproof keys rotate sealing` makes a new one");
    };
    // No backup copies files under its hands.
    let _no_backup = backup::lock(data_dir)?;
    // The log first: who holds it holds the data directory.
    let (log, _reader) = open_log(&config, data_dir, &open(data_dir)?)?;
    let progress = Progress::new(None, "entries looked at");
    let records = log.reseal(&keys.newest_private_sealer(), |done, _| progress.at(done))?;
    let archive = PackArchive::open(data_dir.join("images"), keys.image_sealer())?;
    let packs = archive.reseal(&*keys.newest_image_sealer())?;
    let unopened = records.unopened + packs.unopened;
    if unopened > 0 {
        eprintln!(
            "lineproof: {} private records and {} image packs open under no key that is here; they stay as they are",
            records.unopened, packs.unopened
        );
    }
    set_pending(data_dir, RotationEvent::Retired, RotatedKey::Sealing(older.clone()))?;
    keys.retire_masters(&folder)?;
    println!("sealed {} private records and the keys of {} image packs under {}", records.records, packs.packs, newest);
    println!("destroyed master key {}", older);
    println!("back up {} again, apart from the data", folder.display());
    println!("older copies of {} still open older backups: keep one as long as you keep those", folder.display());
    drop(log);
    Ok(())
}

/// Notes in the log what became of its keys, by `append`, which says whether the log took it. A crash between the
/// entry and the removal of the note leaves two such entries.
///
/// # Errors
/// When the note cannot be read or removed, or `append` fails.
pub fn record(
    data_dir: &Path,
    keys: &Keys,
    mut append: impl FnMut(RotationEvent, RotatedKey) -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    if let Some(next) = keys.announced_key() {
        list_key(data_dir, &next)?;
    }
    let Some(Pending { event, key }) = pending(data_dir)?.filter(|pending| pending.is_done(keys)) else {
        return Ok(());
    };
    if let (RotationEvent::Retired, RotatedKey::Log(vkey)) = (event, &key) {
        note_retired(data_dir, vkey)?;
    }
    if append(event, key)? {
        fs::remove_file(pending_path(data_dir))?;
    }
    Ok(())
}

/// The log's key in a file of keys: the one whose private half is here, if it is named, else the first. Others of the log
/// count as earlier ones.
///
/// # Errors
/// When the text is no file of keys, or names none of a log.
pub fn log_key(file: &str, keys: &Keys) -> anyhow::Result<LogKey> {
    let given = file.parse::<AuditorKeys>()?.logs();
    let held = [Some(keys.verifier_key()), keys.announced_key()];
    let find = |held: &Option<String>| given.iter().find(|key| Some(key.line()) == *held);
    let key = held.iter().find_map(find).or(given.first()).context("it names no key of a log")?;
    let others: Vec<LogKey> = given.iter().map(|key| key.line().parse()).collect::<Result<_, _>>()?;
    Ok(key.line().parse::<LogKey>()?.with_earlier(&others))
}

/// The index of the entry that announces a key, as far as the published log has one.
fn announcement(data_dir: &Path, vkey: &str) -> anyhow::Result<Option<u64>> {
    let log = data_dir.join("log");
    let directory = Directory(&log);
    let Some(note) = directory.read(CHECKPOINT, CHECKPOINT_BYTES_MAX as u64)? else { return Ok(None) };
    let size = Checkpoint::peek(&String::from_utf8_lossy(&note))?.size;
    let announces = |entry: &[u8]| matches!(Rotation::read(entry), Some(Said { event: RotationEvent::Announced, vkey: said }) if said == vkey);
    // The newest first: it was announced not long ago.
    for number in (0..size.div_ceil(256)).rev() {
        let tile = Tile::in_log(TileKind::Entries, number, size).expect("a bundle within the log");
        let (bytes, width) = read_bundle(&directory, tile)?;
        let entries = tiles::parse_bundle(&bytes, width).with_context(|| tile.path())?;
        let mut within = entries.iter().enumerate().take(usize::from(tile.width));
        if let Some((offset, _)) = within.find(|(_, entry)| announces(entry)) {
            return Ok(Some(number * 256 + offset as u64));
        }
    }
    Ok(None)
}

/// A bundle and its width; the full one stands for a partial one that is gone.
fn read_bundle(directory: &Directory<'_>, tile: Tile) -> anyhow::Result<(Vec<u8>, u16)> {
    for tile in [tile, tile.full()] {
        if let Some(bytes) = directory.read(&tile.path(), BUNDLE_BYTES_MAX)? {
            return Ok((bytes, tile.width));
        }
    }
    bail!("{} is missing; `lineproof fsck` says more", tile.path())
}

/// Why evidence would lose its witnesses with the old key, if it would. Whether a witness would cosign under the new key
/// alone, only the witness knows.
fn not_witnessed(data_dir: &Path, next: &VerifierKey, announced: u64) -> anyhow::Result<Option<String>> {
    if kept(&Config::load(data_dir)?, data_dir, Vec::new())?.is_none() {
        return Ok(None);
    }
    Ok(match signed_by(data_dir, WITNESSED, next) {
        Ok(Some(size)) if size > announced => None,
        Ok(_) => Some("no witnessed checkpoint covers the announcement of the next key".into()),
        Err(error) => Some(format!("{error:#}")),
    })
}

/// The size of a checkpoint file that this key signed; `None` when there is no such file.
fn signed_by(data_dir: &Path, name: &str, key: &VerifierKey) -> anyhow::Result<Option<u64>> {
    let log = data_dir.join("log");
    let Some(note) = Directory(&log).read(name, CHECKPOINT_BYTES_MAX as u64)? else { return Ok(None) };
    let note = String::from_utf8(note).with_context(|| format!("log/{name} is no text"))?;
    let opened = Cosigned::open(&note, std::slice::from_ref(key), &[]);
    Ok(Some(opened.with_context(|| format!("log/{name} is not signed by the next key"))?.facts().size))
}

fn keys_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("keys")
}

fn vkey_path(data_dir: &Path) -> PathBuf {
    data_dir.join(VKEY_FILE)
}

fn pending_path(data_dir: &Path) -> PathBuf {
    data_dir.join(PENDING_FILE)
}

fn pending(data_dir: &Path) -> anyhow::Result<Option<Pending>> {
    let path = pending_path(data_dir);
    match fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        read => {
            let bytes = read.with_context(|| path.display().to_string())?;
            serde_json::from_slice(&bytes).map(Some).with_context(|| path.display().to_string())
        }
    }
}

/// One change at a time: what was done must be in the log before the next is begun.
fn refuse_pending(data_dir: &Path, keys: &Keys) -> anyhow::Result<()> {
    if pending(data_dir)?.is_some_and(|pending| pending.is_done(keys)) {
        bail!("the log does not say yet what was changed last; start the service once, then run this again");
    }
    Ok(())
}

/// Says what is meant, or was done, until the log has it.
///
/// # Errors
/// When it cannot be written.
pub(super) fn set_pending(data_dir: &Path, event: RotationEvent, key: RotatedKey) -> anyhow::Result<()> {
    let text = serde_json::to_vec(&Pending { event, key })?;
    write_durably(&pending_path(data_dir), &text)
}

/// Adds a key to those that are handed out.
fn list_key(data_dir: &Path, vkey: &str) -> anyhow::Result<()> {
    let path = vkey_path(data_dir);
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    if text.lines().any(|line| line.trim() == vkey) {
        return Ok(());
    }
    write_durably(&path, format!("{}\n{vkey}\n", text.trim_end()).as_bytes())
}

fn note_retired(data_dir: &Path, vkey: &str) -> anyhow::Result<()> {
    let path = vkey_path(data_dir);
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let mut noted = String::with_capacity(text.len() + RETIRED_NOTE.len());
    let mut before = "";
    for line in text.lines() {
        if line.trim() == vkey && before != RETIRED_NOTE {
            noted.push_str(RETIRED_NOTE);
            noted.push('\n');
        }
        noted.push_str(line);
        noted.push('\n');
        before = line;
    }
    if noted == text { Ok(()) } else { write_durably(&path, noted.as_bytes()) }
}

fn write_durably(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let folder = path.parent().expect("a file lies in a folder");
    let write = || {
        let mut file = tempfile_beside(path)?;
        file.1.write_all(bytes)?;
        file.1.sync_all()?;
        fs::rename(&file.0, path)?;
        fs::File::open(folder)?.sync_all()
    };
    write().with_context(|| path.display().to_string())
}

fn tempfile_beside(path: &Path) -> std::io::Result<(PathBuf, fs::File)> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.part"));
    let file = fs::File::create(&temporary)?;
    Ok((temporary, file))
}
