//! What this line PC has counted and sent, kept over its own restarts.
//!
//! A text file of JSON lines, only ever appended to: `sent` before a frame first leaves, `answered` after its verdict.
//! A frame's number and id are on disk before the service can see them, so after a crash the same file goes out under
//! the same number and id, and the service recognises it. A lost `answered` line costs one repeated question.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::types::FrameId;

/// Longest state file read at start: some ten million parts.
const STATE_BYTES_MAX: u64 = 2 << 30;

#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error("cannot {what} the state file {path}: {source}", path = path.display())]
    Io { what: &'static str, path: PathBuf, source: std::io::Error },
    #[error("{path}:{line}: not a line of a state file ({reason}); give another --state or move this one away", path = path.display())]
    Line { path: PathBuf, line: usize, reason: String },
    #[error("the state file {path} is in use by another line PC", path = path.display())]
    InUse { path: PathBuf },
    #[error("the state file {path} has more than {STATE_BYTES_MAX} bytes; start a new one", path = path.display())]
    TooLong { path: PathBuf },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Record {
    Sent { name: String, frame_id: FrameId, counter: u64 },
    Answered { frame_id: FrameId, verdict: String, entry: u64 },
}

/// The number and name a frame goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assigned {
    pub frame_id: FrameId,
    pub counter: u64,
}

struct Known {
    assigned: Assigned,
    is_decided: bool,
}

/// Numbers frames and remembers their verdicts; on disk when it has a file.
pub struct Ledger {
    /// By the name of the file or part.
    known: HashMap<String, Known>,
    names: HashMap<FrameId, String>,
    next_counter: u64,
    file: Option<(PathBuf, File)>,
}

impl Ledger {
    /// Forgets everything at the end of the run.
    #[must_use]
    pub fn in_memory(first_counter: u64) -> Self {
        Self { known: HashMap::new(), names: HashMap::new(), next_counter: first_counter, file: None }
    }

    /// Opens or begins the state file. A line cut off by a crash is removed: it was never acted upon.
    ///
    /// # Errors
    /// [`LedgerError`] for a file that cannot be used or is something else.
    pub fn open(path: &Path, first_counter: u64) -> Result<Self, LedgerError> {
        let io = |what| move |source| LedgerError::Io { what, path: path.to_path_buf(), source };
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path).map_err(io("open"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Err(LedgerError::InUse { path: path.to_path_buf() }),
            Err(std::fs::TryLockError::Error(source)) => return Err(io("lock")(source)),
        }
        if file.metadata().map_err(io("read"))?.len() > STATE_BYTES_MAX {
            return Err(LedgerError::TooLong { path: path.to_path_buf() });
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(io("read"))?;
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        if whole < bytes.len() {
            tracing::warn!(path = %path.display(), bytes = bytes.len() - whole, "removed a line cut off by a crash");
            file.set_len(whole as u64).map_err(io("repair"))?;
        }
        file.seek(SeekFrom::End(0)).map_err(io("read"))?;
        // The name of a new file must be as durable as its lines.
        if let Some(folder) = path.parent() {
            let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(io("sync"))?;
        }

        let mut ledger = Self { known: HashMap::new(), names: HashMap::new(), next_counter: first_counter, file: None };
        for (index, line) in bytes[..whole].split(|&byte| byte == b'\n').enumerate() {
            if line.is_empty() {
                continue;
            }
            let wrong = |reason: String| LedgerError::Line { path: path.to_path_buf(), line: index + 1, reason };
            match serde_json::from_slice(line).map_err(|error| wrong(error.to_string()))? {
                Record::Sent { name, frame_id, counter } => {
                    ledger.next_counter = ledger.next_counter.max(counter + 1);
                    ledger.remember(name, Assigned { frame_id, counter });
                }
                Record::Answered { frame_id, .. } => {
                    let known = ledger.names.get(&frame_id).and_then(|name| ledger.known.get_mut(name));
                    known.ok_or_else(|| wrong(format!("{frame_id} was answered before it was sent")))?.is_decided =
                        true;
                }
            }
        }
        ledger.file = Some((path.to_path_buf(), file));
        Ok(ledger)
    }

    /// The counters of frames that may have been sent and have no verdict.
    #[must_use]
    pub fn open_counters(&self) -> Vec<u64> {
        self.known.values().filter(|known| !known.is_decided).map(|known| known.assigned.counter).collect()
    }

    /// The lowest counter it remembers, where it remembers over restarts.
    #[must_use]
    pub fn remembered_first(&self) -> Option<u64> {
        self.file.as_ref()?;
        self.known.values().map(|known| known.assigned.counter).min()
    }

    /// Whether a verdict for this name is known already.
    #[must_use]
    pub fn is_decided(&self, name: &str) -> bool {
        self.known.get(name).is_some_and(|known| known.is_decided)
    }

    /// The number and id under which `name` goes out: those of an earlier try with the same bytes, else new ones, durable
    /// on return.
    ///
    /// # Errors
    /// [`LedgerError::Io`] when they could not be made durable; the frame must not be sent.
    pub fn assign(&mut self, name: &str, frame_id: FrameId) -> Result<Assigned, LedgerError> {
        // A file that changed since has another id: it is another frame and must not pass for the old one.
        if let Some(known) = self.known.get(name).filter(|known| known.assigned.frame_id == frame_id) {
            return Ok(known.assigned.clone());
        }
        let assigned = Assigned { frame_id, counter: self.next_counter };
        let record =
            Record::Sent { name: name.to_owned(), frame_id: assigned.frame_id.clone(), counter: assigned.counter };
        self.append(&record)?;
        self.sync()?;
        self.next_counter += 1;
        self.remember(name.to_owned(), assigned.clone());
        Ok(assigned)
    }

    fn remember(&mut self, name: String, assigned: Assigned) {
        self.names.insert(assigned.frame_id.clone(), name.clone());
        self.known.insert(name, Known { assigned, is_decided: false });
    }

    /// Remembers a verdict. Durable with the next [`Self::assign`] or [`Self::sync`]; lost before that, the service is
    /// asked once more and answers with the same entry.
    ///
    /// # Errors
    /// [`LedgerError::Io`] when the file cannot be written.
    pub fn decided(&mut self, frame_id: &FrameId, verdict: &str, entry: u64) -> Result<(), LedgerError> {
        if let Some(known) = self.names.get(frame_id).and_then(|name| self.known.get_mut(name)) {
            known.is_decided = true;
        }
        self.append(&Record::Answered { frame_id: frame_id.clone(), verdict: verdict.to_owned(), entry })
    }

    /// Makes every line durable.
    ///
    /// # Errors
    /// [`LedgerError::Io`]; nothing more should be sent then.
    pub fn sync(&mut self) -> Result<(), LedgerError> {
        let Some((path, file)) = &self.file else { return Ok(()) };
        file.sync_data().map_err(|source| LedgerError::Io { what: "sync", path: path.clone(), source })
    }

    fn append(&mut self, record: &Record) -> Result<(), LedgerError> {
        let Some((path, file)) = &mut self.file else { return Ok(()) };
        let mut line = serde_json::to_vec(record).expect("a record has only string keys");
        line.push(b'\n');
        file.write_all(&line).map_err(|source| LedgerError::Io { what: "write", path: path.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> FrameId {
        text.parse().unwrap()
    }

    #[test]
    fn after_a_restart_counting_goes_on_and_a_sent_file_keeps_its_number() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.jsonl");
        let mut ledger = Ledger::open(&path, 1).unwrap();
        assert_eq!(ledger.assign("a.png", id("a-1")).unwrap().counter, 1);
        assert_eq!(ledger.assign("b.png", id("b-1")).unwrap().counter, 2);
        ledger.decided(&id("a-1"), "OK", 17).unwrap();
        assert!(matches!(Ledger::open(&path, 1), Err(LedgerError::InUse { .. })));
        drop(ledger);

        let mut ledger = Ledger::open(&path, 1).unwrap();
        assert!(ledger.is_decided("a.png"));
        assert!(!ledger.is_decided("b.png"));
        assert_eq!(ledger.assign("b.png", id("b-1")).unwrap(), Assigned { frame_id: id("b-1"), counter: 2 });
        assert_eq!(ledger.assign("c.png", id("c-1")).unwrap().counter, 3);
        assert_eq!(ledger.assign("b.png", id("b-2")).unwrap().counter, 4, "other bytes are another frame");
    }

    #[test]
    fn a_line_cut_off_by_a_crash_is_removed_and_any_other_damage_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.jsonl");
        Ledger::open(&path, 1).unwrap().assign("a.png", id("a-1")).unwrap();
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, [&whole[..], br#"{"sent":{"na"#].concat()).unwrap();
        assert_eq!(Ledger::open(&path, 1).unwrap().assign("b.png", id("b-1")).unwrap().counter, 2);

        std::fs::write(&path, b"hello\n").unwrap();
        assert!(matches!(Ledger::open(&path, 1), Err(LedgerError::Line { line: 1, .. })));
    }
}
