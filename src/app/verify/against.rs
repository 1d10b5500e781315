//! `lineproof verify FILE --against OTHER`: two auditors compare what they were shown.

use std::{
    io::{self, Read as _, Write},
    path::Path,
};

use serde::Serialize;

use super::{Directory, Subject};
use crate::core::{
    export::{
        CHECKPOINT, Lang,
        challenge::Answer,
        keys::{Keys, Signed},
        verify::{LogFiles as _, Problem},
        words,
        zip::Archive,
    },
    lineage::{checkpoint::CHECKPOINT_BYTES_MAX, passport::Passport},
    witness::{
        compare::{self, Comparison, Held, Past},
        request::AddCheckpoint,
    },
};
use crate::types::Sha256Digest;

/// What the comparison shows, with the two signed notes it is about.
pub(super) struct Compared {
    pub shows: Comparison,
    notes: [String; 2],
}

#[derive(Serialize)]
pub(super) struct ComparisonFacts {
    result: &'static str,
    text: String,
    /// The two signed checkpoints, FILE's first.
    notes: [String; 2],
    #[serde(skip_serializing_if = "Option::is_none")]
    proof: Option<Vec<String>>,
}

impl Compared {
    /// Whether both are known to be of one log.
    pub(super) fn is_good(&self) -> bool {
        matches!(self.shows, Comparison::Same | Comparison::Grown { .. })
    }

    pub(super) fn facts(&self, lang: Lang) -> ComparisonFacts {
        let (result, proof) = match &self.shows {
            Comparison::OtherLog => ("other_log", None),
            Comparison::Same => ("same", None),
            Comparison::Grown { .. } => ("grown", None),
            Comparison::Unlinked { .. } => ("unlinked", None),
            Comparison::Fork { proof, .. } => ("fork", Some(proof.iter().map(ToString::to_string).collect())),
        };
        ComparisonFacts { result, text: words::comparison(&self.shows, lang), notes: self.notes.clone(), proof }
    }

    pub(super) fn is_fork(&self) -> bool {
        matches!(self.shows, Comparison::Fork { .. })
    }

    /// What comparing with `other` shows.
    pub(super) fn print(&self, out: &mut impl Write, other: &Path, lang: Lang) -> io::Result<()> {
        match &self.shows {
            // Said by the command as its reason to end.
            Comparison::OtherLog | Comparison::Unlinked { .. } => Ok(()),
            Comparison::Same | Comparison::Grown { .. } => {
                let compared = lang.pick("Compared with", "Verglichen mit");
                writeln!(out, "  ok  {compared} {}: {}", other.display(), words::comparison(&self.shows, lang))
            }
            Comparison::Fork { .. } => {
                writeln!(out, "  {}  {}", lang.pick("NO", "NEIN"), words::comparison(&self.shows, lang))?;
                writeln!(out, "      {}", words::fork_meaning(lang))
            }
        }
    }

    /// For a fork, the two signed notes that prove it.
    pub(super) fn print_evidence(&self, out: &mut impl Write, files: [&Path; 2]) -> io::Result<()> {
        if self.is_fork() {
            for (file, note) in files.iter().zip(&self.notes) {
                writeln!(out, "\n--- {}\n{note}", file.display())?;
            }
        }
        Ok(())
    }
}

/// Compares the checkpoints of two files. Only what `keys` signed is compared; a policy plays no part: a fork is a fork,
/// whoever cosigned.
///
/// # Errors
/// [`Problem`] when one of them has no checkpoint that `keys` signed, or links to it by a proof that does not hold.
pub(super) fn compare(one: &Subject, other: &Subject, keys: &Keys) -> Result<Compared, Problem> {
    let (ones, others) = (Shown::all(one, keys)?, Shown::all(other, keys)?);
    let mut all = Vec::new();
    for (one, other) in ones.iter().flat_map(|one| others.iter().map(move |other| (one, other))) {
        let directories = [one, other].map(|shown| shown.log.map(Directory));
        let shows = compare::compare(&one.held(directories[0].as_ref()), &other.held(directories[1].as_ref()))?;
        all.push(Compared { shows, notes: [one.note.clone(), other.note.clone()] });
    }
    // The worst that any two checkpoints show; of equals the first.
    let worst = all.into_iter().rev().max_by_key(|compared| match compared.shows {
        Comparison::Fork { .. } => 2,
        Comparison::OtherLog | Comparison::Unlinked { .. } => 1,
        Comparison::Same | Comparison::Grown { .. } => 0,
    });
    Ok(worst.expect("every subject that can be compared shows a checkpoint"))
}

/// A checkpoint somebody was shown, and what came along with it.
struct Shown<'a> {
    signed: Signed,
    note: String,
    log: Option<&'a Path>,
    /// From an earlier size to this checkpoint.
    proof: Option<(u64, Vec<Sha256Digest>)>,
}

impl<'a> Shown<'a> {
    /// Every checkpoint of a subject: an answer with replays has two.
    fn all(subject: &'a Subject, keys: &Keys) -> Result<Vec<Self>, Problem> {
        let first = Self::of(subject, keys)?;
        let Subject::Challenge(bytes) = subject else { return Ok(vec![first]) };
        let answer = Answer::parse(&String::from_utf8_lossy(bytes)).map_err(Problem::Challenge)?;
        let Some(replays) = answer.replays else { return Ok(vec![first]) };
        let signed = keys.open_checkpoint(replays.checkpoint.as_bytes()).map_err(Problem::Checkpoint)?;
        let proof = (first.signed.facts.size, replays.consistency);
        let later = Self { signed, note: replays.checkpoint, log: None, proof: Some(proof) };
        Ok(vec![first, later])
    }

    fn of(subject: &'a Subject, keys: &Keys) -> Result<Self, Problem> {
        let (mut log, mut proof) = (None, None);
        let note = match subject {
            Subject::Passport(bytes) => {
                Passport::parse(&String::from_utf8_lossy(bytes)).map_err(Problem::Passport)?.checkpoint.into_bytes()
            }
            Subject::Challenge(bytes) => {
                Answer::parse(&String::from_utf8_lossy(bytes)).map_err(Problem::Challenge)?.checkpoint.into_bytes()
            }
            Subject::Export(bytes) => checkpoint_of_export(bytes)?,
            Subject::Log(path) => {
                log = Some(path.as_path());
                let read = Directory(path).read(CHECKPOINT, CHECKPOINT_BYTES_MAX as u64);
                let reason =
                    |error: io::Error| Problem::Unreadable { place: CHECKPOINT.into(), reason: error.to_string() };
                read.map_err(reason)?.ok_or_else(|| Problem::MissingTile { path: CHECKPOINT.into() })?
            }
            Subject::Checkpoint(bytes) => bytes.clone(),
            Subject::Request(bytes) => {
                let read = AddCheckpoint::parse(&String::from_utf8_lossy(bytes))
                    .map_err(|refusal| Problem::NotRecognised { reason: refusal.to_string() })?;
                proof = Some((read.old, read.proof));
                read.note.into_bytes()
            }
            Subject::Receipt { .. } | Subject::Other { .. } => {
                let reason = "it holds no checkpoint to compare".into();
                return Err(Problem::NotRecognised { reason });
            }
        };
        let signed = keys.open_checkpoint(&note).map_err(Problem::Checkpoint)?;
        let note = String::from_utf8(note).expect("a note that opens is UTF-8");
        Ok(Self { signed, note, log, proof })
    }

    fn held(&'a self, directory: Option<&'a Directory<'a>>) -> Held<'a> {
        let past = match (directory, &self.proof) {
            (Some(directory), _) => Past::Tiles(directory),
            (None, Some((old, hashes))) => Past::Proof { old: *old, hashes },
            (None, None) => Past::Nothing,
        };
        Held { signed: &self.signed, past }
    }
}

fn checkpoint_of_export(bytes: &[u8]) -> Result<Vec<u8>, Problem> {
    let archive = Archive::open(bytes).map_err(|error| Problem::Layout(error.to_string()))?;
    let missing = || Problem::MissingFile { name: CHECKPOINT.into() };
    let max = CHECKPOINT_BYTES_MAX as u64;
    if archive.size(CHECKPOINT).ok_or_else(missing)? > max {
        return Err(Problem::TooLarge { what: CHECKPOINT, max });
    }
    let mut note = Vec::new();
    let mut reader = archive.reader(CHECKPOINT).ok_or_else(missing)?;
    let unreadable = |error: io::Error| Problem::Unreadable { place: CHECKPOINT.into(), reason: error.to_string() };
    reader.read_to_end(&mut note).map_err(unreadable)?;
    reader.finish().map_err(unreadable)?;
    Ok(note)
}
