//! The process that gets hurt: log and archive as the service uses them, without models, so that it starts in
//! milliseconds and can be hurt thousands of times. It tells each acknowledgement with one `sendto`, a call that
//! nothing else of it makes: the record of its system calls then says what was acknowledged when.

use std::{
    fs,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::{Arc, mpsc},
};

use lineproof::{
    adapters::{
        archive::PackArchive,
        keys::Keys,
        log::{LogConfig, LogHandle, LogStore, LogStoreReader, OpenError, RecoveryReport},
    },
    core::lineage::private::{Opening, PrivateField},
    ports::{
        archive::{ImageArchive, RetentionClass},
        index::{FrameIndex, IndexError},
        lineage::{Append, Appended, FrameClaim, LogWriter as _, PrivateRecord},
    },
    types::{Blake3Digest, EntryIndex, FrameKey, Instant},
};

use crate::forget;

pub const COMMAND: &str = "victim";
/// A decision as the service writes it; its numbers are replaced.
const DECISION: &str = include_str!("decision.json");
const ORIGIN: &str = "faults.example/log";
/// Noon of a day: all images lie on one shelf.
const NOON_NANOS: i64 = 1_763_985_600_000_000_000;
/// Ten years later: what is put after a fault is on no shelf that retention empties.
const LATER_NANOS: i64 = NOON_NANOS + 10 * 365 * 86_400_000_000_000;

/// What a victim is told to do.
#[derive(Clone, Debug)]
pub struct Work {
    /// The first frame's number, and how many.
    pub first: u64,
    pub count: u64,
    /// Frames that are handed over before their acknowledgements are waited for.
    pub group: u64,
    /// End with a last checkpoint, or leave as a killed process does.
    pub close: bool,
    /// Erase a value of the first frame, and delete the images that are over, before the last frames are sent.
    pub forget: bool,
}

/// One acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    pub number: u64,
    pub index: u64,
    pub leaf: String,
}

impl Ack {
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.strip_prefix("ack ")?.split(' ');
        let (number, index) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some(Self { number, index, leaf: words.next()?.to_owned() })
    }
}

/// An index that knows nothing: the log remembers every frame itself.
pub struct NoIndex;

impl FrameIndex for NoIndex {
    fn indexed_to(&self) -> EntryIndex {
        EntryIndex(0)
    }

    fn find_frame(&self, _: [u8; 16]) -> Result<Option<EntryIndex>, IndexError> {
        Ok(None)
    }
}

/// A data directory with nothing but keys.
pub fn create(data: &Path) {
    fs::create_dir_all(data).expect("a folder");
    for folder in ["log", "wal", "private", "images"] {
        fs::create_dir(data.join(folder)).expect("a folder");
    }
    Keys::create(&data.join("keys"), ORIGIN).expect("keys");
}

pub fn config(data: &Path) -> LogConfig {
    LogConfig { disk_reserve_bytes: 0, ..LogConfig::new(data) }
}

pub struct Opened {
    pub log: LogHandle,
    pub reader: Arc<LogStoreReader>,
    pub report: RecoveryReport,
    pub archive: Arc<PackArchive>,
}

pub fn open(data: &Path) -> Result<Opened, OpenError> {
    let keys = Keys::open(&data.join("keys")).expect("the keys are never hurt");
    let archive = PackArchive::open(data.join("images"), keys.image_sealer());
    let archive = Arc::new(archive.map_err(|error| OpenError::InUse { path: error.to_string() })?);
    let signer = Arc::new(keys.log_signer());
    let (log, reader, report) =
        LogStore::open(config(data), signer, keys.private_sealer(), archive.clone(), Arc::new(NoIndex))?;
    Ok(Opened { log, reader: Arc::new(reader), report, archive })
}

/// The frame id of a number.
pub fn frame(number: u64) -> String {
    format!("v{number}")
}

/// The bytes of a frame: one to five pages, different for every number.
pub fn image(number: u64) -> Vec<u8> {
    let length = 1000 + usize::try_from(number % 5).expect("below five") * 3500;
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// The serial number of a frame's part.
pub fn serial(number: u64) -> String {
    format!("SN-{number}")
}

/// What is appended for a number: always the same bytes but for where the image lies.
pub fn append(archive: &PackArchive, number: u64) -> Result<Append, String> {
    append_at(archive, number, NOON_NANOS)
}

/// The same, sent after a fault.
pub fn append_later(archive: &PackArchive, number: u64) -> Result<Append, String> {
    append_at(archive, number, LATER_NANOS)
}

fn append_at(archive: &PackArchive, number: u64, nanos: i64) -> Result<Append, String> {
    let bytes = image(number);
    let encoded = Blake3Digest::of(&bytes);
    let class = RetentionClass::new("not_ok").expect("a class");
    let time = Instant::from_unix_nanos(nanos).expect("a time");
    let location = archive.put(&class, time, encoded, &bytes).map_err(|error| error.to_string())?;
    let salt = Blake3Digest::of(&number.to_le_bytes()).0[..16].try_into().expect("sixteen bytes");
    let opening = Opening { field: PrivateField::Serial, salt, value: serial(number) };
    let mut entry: serde_json::Value = serde_json::from_str(DECISION).expect("a decision");
    entry["frame"] = serde_json::json!({ "counter": number, "id": frame(number) });
    entry["image"]["encoded"] = encoded.to_string().into();
    entry["image"]["archive"] = "not_ok".into();
    entry["private"]["serial"] = opening.commitment().to_string().into();
    Ok(Append {
        entry: entry.to_string().into_bytes(),
        private: PrivateRecord { openings: vec![opening], image_at: Some(location.to_string()) },
        frame: Some(FrameClaim { key: key(number), encoded }),
    })
}

pub fn key(number: u64) -> FrameKey {
    let frame = frame(number).parse().expect("a frame id");
    FrameKey { line: "line-1".parse().expect("a line"), camera: "cam-1".parse().expect("a camera"), frame }
}

/// The command that runs a victim.
pub fn command(data: &Path, socket: &Path, work: &Work) -> Vec<std::ffi::OsString> {
    let own = std::env::current_exe().expect("this program has a path");
    let numbers = [work.first, work.count, work.group, u64::from(work.close), u64::from(work.forget)];
    let mut command: Vec<std::ffi::OsString> = vec![own.into(), COMMAND.into(), data.into(), socket.into()];
    command.extend(numbers.map(|number| number.to_string().into()));
    command
}

/// Runs what follows with these bugs planted, which only a build with the feature `planted-bugs` has.
pub fn with(planted: &str) -> Command {
    let mut env = Command::new("env");
    env.arg(format!("LINEPROOF_PLANTED={planted}"));
    env
}

/// Runs the victim's command behind `before`, and returns what it acknowledged and how it ended.
pub fn run(before: Option<Command>, data: &Path, folder: &Path, work: &Work) -> (Vec<Ack>, std::process::Output) {
    let socket = folder.join("acks");
    let _ = fs::remove_file(&socket);
    let receiver = UnixDatagram::bind(&socket).expect("a socket");
    let words = command(data, &socket, work);
    let mut command = before.map_or_else(
        || Command::new(&words[0]),
        |mut before| {
            before.arg(&words[0]);
            before
        },
    );
    command.args(&words[1..]);
    let reader = std::thread::spawn(move || {
        let (mut acks, mut buffer) = (Vec::new(), [0; 256]);
        while let Ok(length) = receiver.recv(&mut buffer) {
            match std::str::from_utf8(&buffer[..length]) {
                Ok("end") | Err(_) => break,
                Ok(text) => acks.extend(Ack::parse(text)),
            }
        }
        acks
    });
    let output = command.output().expect("the victim runs");
    let end = UnixDatagram::unbound().expect("a socket");
    end.send_to(b"end", &socket).expect("the reader is there");
    (reader.join().expect("the reader does not panic"), output)
}

/// The victim itself.
pub fn main(arguments: &[String]) -> ExitCode {
    let (data, socket) = (PathBuf::from(&arguments[0]), PathBuf::from(&arguments[1]));
    let number = |at: usize| arguments[at].parse::<u64>().expect("a number");
    let (close, forget) = (number(5) == 1, number(6) == 1);
    let work = Work { first: number(2), count: number(3), group: number(4), close, forget };
    let acks = UnixDatagram::unbound().expect("a socket");
    match inspect(&data, &work, &Arc::new((acks, socket))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("victim: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn inspect(data: &Path, work: &Work, acks: &Arc<(UnixDatagram, PathBuf)>) -> Result<(), String> {
    let Opened { log, reader, report, archive } = open(data).map_err(|error| error.to_string())?;
    if let Some(reason) = report.read_only {
        return Err(format!("read-only: {reason}"));
    }
    let numbers: Vec<u64> = (work.first..work.first + work.count).collect();
    for (turn, group) in numbers.chunks(usize::try_from(work.group).expect("a small group")).enumerate() {
        if work.forget && turn == 1 {
            let tell = |text: &str| {
                acks.0.send_to(text.as_bytes(), &acks.1).expect("the harness listens");
            };
            forget::forget(data, work.first, &log, &reader, &archive, tell)?;
        }
        let (sender, receiver) = mpsc::channel();
        for &number in group {
            let (acks, sender) = (acks.clone(), sender.clone());
            let done = move |outcome: Result<Appended, _>| {
                let outcome = outcome.map(|appended| match appended {
                    Appended::Written(receipt) | Appended::Duplicate(receipt) | Appended::Conflict(receipt) => {
                        let text = format!("ack {number} {} {}", receipt.index.0, receipt.leaf_hash);
                        acks.0.send_to(text.as_bytes(), &acks.1).expect("the harness listens");
                    }
                });
                sender.send(outcome).expect("the group is waited for");
            };
            // Images are filed by the day of their decision: none on a shelf that was emptied.
            let after = work.forget && turn > 0;
            let append = if after { append_later(&archive, number)? } else { append(&archive, number)? };
            log.submit(append, Box::new(done));
        }
        drop(sender);
        receiver.iter().collect::<Result<Vec<()>, _>>().map_err(|error| error.to_string())?;
        // Some groups wait for their checkpoint, some do not.
        if turn % 3 == 1 {
            log.checkpoint_now().map_err(|error| error.to_string())?;
        }
    }
    if work.close {
        log.shutdown();
        if let lineproof::adapters::log::LogState::Stopped(reason) = log.state() {
            return Err(reason.to_string());
        }
    }
    Ok(())
}
