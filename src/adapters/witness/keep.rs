//! What a plant keeps of its witnesses, beside `log/checkpoint` so that any static web server can serve it too.

use std::path::{Path, PathBuf};

use super::files;
use crate::{
    core::{
        export::keys::VerifierKey,
        witness::{cosign::Cosigned, policy::Policy},
    },
    ports::witness::{CosignedStore, MemoryError},
};

/// The newest checkpoint that satisfies the policy.
const WITNESSED: &str = "checkpoint.witnessed";
/// The newest one that somebody cosigned, where that is not enough yet.
const COSIGNED: &str = "checkpoint.cosigned";
/// Below the data directory: held while the files above change.
const LOCK: &str = "witness.lock";
/// Below the data directory: of each witness that is reached by files, what it cosigned last.
const BY_WITNESS: &str = "witness";

/// The files of one data directory.
#[derive(Clone, Debug)]
pub struct CosignedFiles {
    data_dir: PathBuf,
    log: Vec<VerifierKey>,
    witnesses: Vec<VerifierKey>,
    policy: Policy,
}

impl CosignedFiles {
    /// Keeps what `witnesses` say under checkpoints of the log with these keys, in `data_dir`.
    #[must_use]
    pub fn new(data_dir: &Path, log: Vec<VerifierKey>, witnesses: Vec<VerifierKey>, policy: Policy) -> Self {
        Self { data_dir: data_dir.to_owned(), log, witnesses, policy }
    }

    /// The newest checkpoint with any known cosignature.
    ///
    /// # Errors
    /// [`MemoryError::Io`].
    pub fn newest(&self) -> Result<Option<Cosigned>, MemoryError> {
        let (witnessed, cosigned) = (self.read(WITNESSED)?, self.read(COSIGNED)?);
        Ok(witnessed.into_iter().chain(cosigned).max_by_key(|cosigned| cosigned.facts().size))
    }

    /// What this witness cosigned last, as [`Self::keep_of`] kept it.
    ///
    /// # Errors
    /// [`MemoryError::Io`].
    pub fn last_of(&self, witness: &VerifierKey) -> Result<Option<Cosigned>, MemoryError> {
        let note = files::read_note(&self.path_of(witness))?;
        Ok(note.and_then(|note| Cosigned::open(&note, &self.log, &self.witnesses).ok()))
    }

    /// Remembers that this witness cosigned this checkpoint, which tells where the next proof for it starts.
    ///
    /// # Errors
    /// [`MemoryError::Io`].
    pub fn keep_of(&self, witness: &VerifierKey, cosigned: &Cosigned) -> Result<(), MemoryError> {
        let path = self.path_of(witness);
        let dir = self.data_dir.join(BY_WITNESS);
        std::fs::create_dir_all(&dir).map_err(files::at(&dir))?;
        let _alone = files::lock(&self.data_dir.join(LOCK))?;
        let last = self.last_of(witness)?;
        if last.is_some_and(|last| last.facts().size >= cosigned.facts().size) {
            return Ok(());
        }
        files::replace_durably(&path, &cosigned.note())
    }

    fn path_of(&self, witness: &VerifierKey) -> PathBuf {
        let id = data_encoding::HEXLOWER.encode(&witness.id());
        self.data_dir.join(BY_WITNESS).join(format!("{id}.checkpoint"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.data_dir.join("log").join(name)
    }

    /// A file that does not read is as good as none: it is written anew with the next cosignature.
    fn read(&self, name: &str) -> Result<Option<Cosigned>, MemoryError> {
        let note = files::read_note(&self.path(name))?;
        Ok(note.and_then(|note| Cosigned::open(&note, &self.log, &self.witnesses).ok()))
    }

    fn satisfies(&self, cosigned: &Cosigned) -> bool {
        self.policy.evaluate(cosigned.signers(), &cosigned.cosignatures()).is_satisfied()
    }
}

impl CosignedStore for CosignedFiles {
    fn keep(&self, cosigned: &Cosigned) -> Result<bool, MemoryError> {
        let _alone = files::lock(&self.data_dir.join(LOCK))?;
        let mut new = cosigned.clone();
        let kept = [self.read(WITNESSED)?, self.read(COSIGNED)?];
        for same in kept.iter().flatten().filter(|kept| kept.text() == cosigned.text()) {
            // Both were checked when they were read, so the lines of one fit the other.
            let _ = new.add(&same.cosignature_lines(), &self.witnesses);
        }
        let is_satisfied = self.satisfies(&new);
        let (name, kept) = if is_satisfied { (WITNESSED, &kept[0]) } else { (COSIGNED, &kept[1]) };
        let is_news = kept.as_ref().is_none_or(|kept| kept.facts().size <= new.facts().size && *kept != new);
        if is_news {
            files::replace(&self.path(name), &new.note())?;
        }
        Ok(is_satisfied)
    }

    fn witnessed(&self) -> Result<Option<Cosigned>, MemoryError> {
        // The policy may have become stricter since this was written.
        Ok(self.read(WITNESSED)?.filter(|cosigned| self.satisfies(cosigned)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{
        lineage::{
            checkpoint::{Checkpoint, LogSigner},
            tree::EMPTY_ROOT,
        },
        witness::cosign::Cosigner,
    };

    #[test]
    fn lines_of_one_checkpoint_gather_until_the_policy_holds_and_older_ones_do_not_replace_newer() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("log")).unwrap();
        let signer = LogSigner::new("plant.example/log", &[7; 32]).unwrap();
        let log = VerifierKey::parse(&signer.verifier_key().to_string()).unwrap();
        let [one, two] = [1, 2].map(|n| Cosigner::new(&format!("w{n}.example"), &[n; 32]).unwrap());
        let known = vec![one.verifier_key().clone(), two.verifier_key().clone()];
        let store = CosignedFiles::new(dir.path(), vec![log.clone()], known.clone(), Policy::all_of(known.clone()));
        let checkpoint = |size, by: &[&Cosigner]| {
            let note = signer.sign(&Checkpoint::new("plant.example/log", size, EMPTY_ROOT));
            let mut cosigned = Cosigned::open(&note, std::slice::from_ref(&log), &known).unwrap();
            let text = cosigned.text().to_owned();
            by.iter().for_each(|witness| cosigned.add(&witness.cosign(&text, 9), &known).unwrap());
            cosigned
        };
        assert!(!store.keep(&checkpoint(5, &[&one])).unwrap());
        assert_eq!(store.witnessed().unwrap(), None);
        assert_eq!(store.newest().unwrap(), Some(checkpoint(5, &[&one])));
        assert!(store.keep(&checkpoint(5, &[&two])).unwrap(), "both lines are there now");
        assert_eq!(store.witnessed().unwrap(), Some(checkpoint(5, &[&one, &two])));
        assert!(!store.keep(&checkpoint(8, &[&two])).unwrap());
        assert!(store.keep(&checkpoint(6, &[&one, &two])).unwrap());
        assert!(store.keep(&checkpoint(4, &[&one, &two])).unwrap(), "satisfied, though older than what is kept");
        assert_eq!(store.witnessed().unwrap(), Some(checkpoint(6, &[&one, &two])));
        assert_eq!(store.newest().unwrap(), Some(checkpoint(8, &[&two])));
        // A stranger's file and half a file are no cosigned checkpoints.
        std::fs::write(dir.path().join("log").join(WITNESSED), "half").unwrap();
        assert_eq!(store.witnessed().unwrap(), None);
        // Where a witness stands is remembered by itself.
        store.keep_of(two.verifier_key(), &checkpoint(8, &[&two])).unwrap();
        store.keep_of(two.verifier_key(), &checkpoint(6, &[&two])).unwrap();
        assert_eq!(store.last_of(two.verifier_key()).unwrap().unwrap().facts().size, 8);
        assert_eq!(store.last_of(one.verifier_key()).unwrap(), None);
    }
}
