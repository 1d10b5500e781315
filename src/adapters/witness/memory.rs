//! What a witness remembers, one file per log: read, checked and replaced under that log's lock, durable before the
//! answer. Nothing is kept in memory between requests, so that `lineproof witness sign` beside a running witness, or a
//! second one started by mistake, sees and moves the same memory.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use super::files;
use crate::ports::witness::{MemoryError, WitnessMemory};

/// The files below a witness's `state/`.
pub struct MemoryFiles {
    dir: PathBuf,
    /// Why nothing is cosigned any more.
    stopped: OnceLock<Arc<str>>,
}

impl MemoryFiles {
    /// Opens the memory in `dir`, making the folder if there is none.
    ///
    /// # Errors
    /// [`MemoryError::Io`].
    pub fn open(dir: &Path) -> Result<Self, MemoryError> {
        fs::create_dir_all(dir).map_err(files::at(dir))?;
        Ok(Self { dir: dir.to_owned(), stopped: OnceLock::new() })
    }

    fn path(&self, place: &str) -> PathBuf {
        assert!(place.bytes().all(|byte| byte.is_ascii_alphanumeric()), "a place is a plain name");
        self.dir.join(place)
    }

    /// A failed sync is not tried again: whether the note is durable is known only after a restart.
    fn stop(&self, error: &MemoryError) {
        self.stopped.get_or_init(|| error.to_string().into());
    }
}

impl WitnessMemory for MemoryFiles {
    fn update(&self, place: &str, step: &mut dyn FnMut(Option<&str>) -> Option<String>) -> Result<(), MemoryError> {
        let path = self.path(place);
        let stop = |error: &MemoryError| self.stop(error);
        // Held until the outcome is known, so that nobody goes on from a note that may not be durable.
        let _alone = files::lock(&path.with_extension("lock")).inspect_err(stop)?;
        if let Some(stopped) = self.stopped() {
            return Err(stopped);
        }
        let latest = files::read_note(&path).inspect_err(stop)?;
        let Some(next) = step(latest.as_deref()) else { return Ok(()) };
        files::replace_durably(&path, &next).inspect_err(stop)
    }

    fn latest(&self, place: &str) -> Result<Option<String>, MemoryError> {
        files::read_note(&self.path(place))
    }

    fn stopped(&self) -> Option<MemoryError> {
        self.stopped.get().cloned().map(MemoryError::Stopped)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn what_is_kept_is_there_and_steps_take_turns() {
        let dir = tempfile::tempdir().unwrap();
        let [one, two] = [(); 2].map(|()| MemoryFiles::open(dir.path()).unwrap());
        assert_eq!(one.latest("a").unwrap(), None);
        // Two memories stand for two processes; each adds one, two hundred times.
        thread::scope(|scope| {
            for memory in [&one, &two] {
                scope.spawn(move || {
                    for _ in 0..200 {
                        let next = |latest: Option<&str>| latest.map_or(0, |latest| latest.parse::<u64>().unwrap()) + 1;
                        memory.update("a", &mut |latest| Some(next(latest).to_string())).unwrap();
                    }
                });
            }
        });
        assert_eq!(one.latest("a").unwrap().as_deref(), Some("400"));
        one.update("a", &mut |_| None).unwrap();
        assert_eq!(two.latest("a").unwrap().as_deref(), Some("400"));
        assert_eq!(two.latest("b").unwrap(), None);
    }

    #[test]
    fn after_a_failed_write_nothing_is_taken_any_more() {
        let dir = tempfile::tempdir().unwrap();
        let memory = MemoryFiles::open(dir.path()).unwrap();
        // A folder in the place of the temporary file: the write fails whoever runs the test.
        fs::create_dir(dir.path().join("a.tmp")).unwrap();
        assert!(matches!(memory.update("a", &mut |_| Some("1".into())), Err(MemoryError::Io { .. })));
        fs::remove_dir(dir.path().join("a.tmp")).unwrap();
        assert!(matches!(memory.update("a", &mut |_| Some("1".into())), Err(MemoryError::Stopped(_))));
        assert_eq!(memory.latest("a").unwrap(), None);
        MemoryFiles::open(dir.path()).unwrap().update("a", &mut |_| Some("1".into())).unwrap();
        assert_eq!(memory.latest("a").unwrap().as_deref(), Some("1"));
    }
}
