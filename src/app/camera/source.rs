//! Where frames come from: a folder of images, or the simulator.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use rayon::prelude::*;
use serde::Deserialize;
use tokio::{sync::mpsc, task::spawn_blocking};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::{
    ImageFormat,
    ledger::{Ledger, LedgerError},
    words::{OutgoingFrame, Unsent},
};
use crate::{
    core::simulate::Simulator,
    types::{FrameId, LotId, Serial},
};

/// What a source yields.
pub type Frames = ReceiverStream<Result<OutgoingFrame, Unsent>>;

/// Frames prepared ahead of the line.
const AHEAD_FRAMES: usize = 4;

/// Longest file that is read; the service's own limit is lower.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// How often a watched folder is looked at. A file is complete when it was the same twice in a row.
pub const WATCH_EVERY: Duration = Duration::from_millis(250);

/// Endings of the files that are sent, in lower case.
const EXTENSIONS: [&str; 6] = ["png", "jpg", "jpeg", "tif", "tiff", "bmp"];

#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("cannot read the folder {path}: {source}", path = path.display())]
    Folder { path: PathBuf, source: std::io::Error },
    #[error("{path}: {source}; the file has a header and the columns name, serial and, if wanted, lot", path = path.display())]
    Serials { path: PathBuf, source: Box<csv::Error> },
    #[error("{path}: the name {name:?} stands there twice", path = path.display())]
    SerialTwice { path: PathBuf, name: String },
}

/// Serial and lot of each file, by file name.
#[derive(Debug, Default)]
pub struct Serials(HashMap<String, Row>);

#[derive(Debug, Deserialize)]
struct Row {
    name: String,
    serial: String,
    #[serde(default)]
    lot: String,
}

impl Serials {
    /// Reads `name,serial,lot`.
    ///
    /// # Errors
    /// [`SourceError`] for a file that cannot be read or names a file twice.
    pub fn read(path: &Path) -> Result<Self, SourceError> {
        let wrong = |source| SourceError::Serials { path: path.to_path_buf(), source: Box::new(source) };
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_path(path).map_err(wrong)?;
        let mut serials = HashMap::new();
        for row in reader.deserialize() {
            let row: Row = row.map_err(wrong)?;
            if let Some(before) = serials.insert(row.name.clone(), row) {
                return Err(SourceError::SerialTwice { path: path.to_path_buf(), name: before.name });
            }
        }
        Ok(Self(serials))
    }
}

/// A folder as a camera.
pub struct Folder {
    pub path: PathBuf,
    /// Serial and lot by file name; `None`: the serial is the file's name without its ending.
    pub serials: Option<Serials>,
    /// Keep looking for new files.
    pub watch: Option<Duration>,
}

impl Folder {
    /// The folder's images as frames, by name; ends with the last one, or when `stop` is given if the folder is
    /// watched. Files whose verdict the ledger knows are left out.
    ///
    /// # Errors
    /// [`SourceError::Folder`] when the folder cannot be read at all.
    pub fn frames(self, ledger: SharedLedger, stop: CancellationToken) -> Result<Frames, SourceError> {
        scan(&self.path)?;
        let (sender, receiver) = mpsc::channel(AHEAD_FRAMES);
        tokio::spawn(self.feed(ledger, stop, sender));
        Ok(ReceiverStream::new(receiver))
    }

    async fn feed(
        self,
        ledger: SharedLedger,
        stop: CancellationToken,
        sender: mpsc::Sender<Result<OutgoingFrame, Unsent>>,
    ) {
        let folder = Arc::new(self);
        let mut taken = HashSet::new();
        let mut seen: HashMap<String, Stamp> = HashMap::new();
        loop {
            let path = folder.path.clone();
            let found = match spawn_blocking(move || scan(&path)).await.expect("scanning a folder does not panic") {
                Ok(found) => found,
                Err(error) => {
                    tracing::warn!(%error, "the watched folder is away; looking again");
                    Vec::new()
                }
            };
            for (name, stamp) in &found {
                let is_complete = folder.watch.is_none() || (stamp.bytes > 0 && seen.get(name) == Some(stamp));
                if !is_complete || !taken.insert(name.clone()) || ledger.is_decided(name) {
                    continue;
                }
                let (folder, ledger, name, stamp) = (folder.clone(), ledger.clone(), name.clone(), *stamp);
                let frame = spawn_blocking(move || folder.frame(&ledger, &name, stamp));
                let frame = frame.await.expect("reading a file does not panic");
                // Nobody listens after the end of the run.
                if sender.send(frame).await.is_err() {
                    return;
                }
            }
            let Some(every) = folder.watch else { return };
            seen = found.into_iter().collect();
            tokio::select! {
                () = tokio::time::sleep(every) => {}
                () = stop.cancelled() => return,
                () = sender.closed() => return,
            }
        }
    }

    fn frame(&self, ledger: &SharedLedger, name: &str, stamp: Stamp) -> Result<OutgoingFrame, Unsent> {
        let unsent = |reason: String| Unsent { name: name.to_owned(), reason };
        if stamp.bytes > FILE_BYTES_MAX {
            return Err(unsent(format!("it has {} bytes; at most {FILE_BYTES_MAX} are read", stamp.bytes)));
        }
        let stem = Path::new(name).file_stem().and_then(|stem| stem.to_str()).unwrap_or(name);
        let (serial, lot) = match &self.serials {
            None => (stem, ""),
            Some(serials) => match serials.0.get(name) {
                Some(row) => (row.serial.as_str(), row.lot.as_str()),
                None => return Err(unsent("the serials file does not name it".to_owned())),
            },
        };
        let serial = Serial::new(serial).map_err(|error| unsent(error.to_string()))?;
        if !lot.is_empty() {
            LotId::new(lot).map_err(|error| unsent(error.to_string()))?;
        }
        let image = std::fs::read(self.path.join(name)).map_err(|error| unsent(error.to_string()))?;
        let assigned = ledger.assign(name, frame_id(name, &image)).map_err(|error| unsent(error.to_string()))?;
        Ok(OutgoingFrame {
            frame_id: assigned.frame_id,
            frame_counter: assigned.counter,
            serial: serial.as_str().to_owned(),
            lot: lot.to_owned(),
            image: image.into(),
            raw: None,
            captured_at: stamp.changed,
            is_bad: None,
        })
    }
}

/// A file's size and time: the same twice means that nobody writes it any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    bytes: u64,
    changed: Option<SystemTime>,
}

/// The images in a folder by name.
fn scan(path: &Path) -> Result<Vec<(String, Stamp)>, SourceError> {
    let wrong = |source| SourceError::Folder { path: path.to_path_buf(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).map_err(wrong)? {
        let entry = entry.map_err(wrong)?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let extension = Path::new(&name).extension().and_then(|text| text.to_str()).map(str::to_ascii_lowercase);
        if !extension.is_some_and(|extension| EXTENSIONS.contains(&extension.as_str())) {
            continue;
        }
        // A file that vanishes while we look was not for us.
        let Ok(metadata) = std::fs::metadata(entry.path()) else { continue };
        if metadata.is_file() {
            found.push((name, Stamp { bytes: metadata.len(), changed: metadata.modified().ok() }));
        }
    }
    found.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    Ok(found)
}

/// Names a frame: the same only for the same name and bytes. A frame id stands in the log in clear and for ever, and the
/// name mostly is the serial number, which must stay erasable: without the image nobody can try names until one fits.
pub(super) fn frame_id(name: &str, image: &[u8]) -> FrameId {
    let digest = blake3::Hasher::new().update(name.as_bytes()).update(&[0]).update(image).finalize();
    FrameId::new(&digest.to_hex()[..32]).expect("hex digits are allowed")
}

/// The ledger as the source and the answers share it.
#[derive(Clone)]
pub struct SharedLedger(Arc<Mutex<Ledger>>);

impl SharedLedger {
    #[must_use]
    pub fn new(ledger: Ledger) -> Self {
        Self(Arc::new(Mutex::new(ledger)))
    }

    fn with<T>(&self, act: impl FnOnce(&mut Ledger) -> T) -> T {
        // A panic elsewhere leaves the ledger whole: it changes only after its lines are written.
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn is_decided(&self, name: &str) -> bool {
        self.with(|ledger| ledger.is_decided(name))
    }

    fn assign(&self, name: &str, frame_id: FrameId) -> Result<super::ledger::Assigned, LedgerError> {
        self.with(|ledger| ledger.assign(name, frame_id))
    }

    /// As [`Ledger::open_counters`].
    #[must_use]
    pub fn open_counters(&self) -> Vec<u64> {
        self.with(|ledger| ledger.open_counters())
    }

    /// As [`Ledger::remembered_first`].
    #[must_use]
    pub fn remembered_first(&self) -> Option<u64> {
        self.with(|ledger| ledger.remembered_first())
    }

    /// # Errors
    /// As [`Ledger::decided`].
    pub fn decided(&self, frame_id: &FrameId, verdict: &str, entry: u64) -> Result<(), LedgerError> {
        self.with(|ledger| ledger.decided(frame_id, verdict, entry))
    }

    /// # Errors
    /// As [`Ledger::sync`].
    pub fn sync(&self) -> Result<(), LedgerError> {
        self.with(Ledger::sync)
    }
}

/// Parts `first..first + count` of a simulated line, encoded, in order. `run` goes into each frame id, so that the
/// same parts can be sent twice as different frames. With `tell_truth` each frame carries whether its part is bad.
#[must_use]
pub fn simulated(
    simulator: Simulator,
    format: ImageFormat,
    parts: std::ops::Range<u64>,
    run: Option<&str>,
    tell_truth: bool,
    ledger: SharedLedger,
) -> Frames {
    let (sender, receiver) = mpsc::channel(AHEAD_FRAMES);
    let prefix = run.map(|run| format!("{run}.")).unwrap_or_default();
    // Rendering keeps processors busy: it gets a thread of its own instead of one of the runtime's.
    std::thread::spawn(move || {
        let mut rest = parts;
        loop {
            let numbers: Vec<u64> = rest.by_ref().take(rayon::current_num_threads()).collect();
            if numbers.is_empty() {
                return;
            }
            let frames: Vec<_> = numbers
                .into_par_iter()
                .filter(|number| !ledger.is_decided(&name(&prefix, &simulator, *number)))
                .map(|number| {
                    let part = simulator.part(number);
                    let image = format.encode_grey(&part.frame, part.width_px, part.height_px);
                    (name(&prefix, &simulator, number), part.serial, part.is_bad, Bytes::from(image))
                })
                .collect();
            for (name, serial, is_bad, image) in frames {
                let frame = ledger
                    .assign(&name, frame_id(&name, &image))
                    .map_err(|error| error.to_string())
                    .map(|assigned| OutgoingFrame {
                        frame_id: assigned.frame_id,
                        frame_counter: assigned.counter,
                        serial,
                        lot: String::new(),
                        image,
                        raw: None,
                        captured_at: None,
                        is_bad: tell_truth.then_some(is_bad),
                    })
                    .map_err(|reason| Unsent { name, reason });
                if sender.blocking_send(frame).is_err() {
                    return;
                }
            }
        }
    });
    ReceiverStream::new(receiver)
}

fn name(prefix: &str, simulator: &Simulator, number: u64) -> String {
    format!("{prefix}{}", simulator.serial(number))
}
