//! The files of an export, unpacked once where they fit, and read line by line.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, BufReader, Read},
};

use rayon::prelude::*;

use super::{Problem, tables::TABLES};
use crate::{
    core::export::{
        ENTRIES, MANIFEST,
        manifest::Statement,
        zip::{Archive, ZipError},
    },
    types::Sha256Digest,
};

/// Bytes of all unpacked files together. Every table of 500,000 decisions fits.
const UNPACKED_BYTES_MAX: u64 = 6 << 30;
/// Up to this much unpacked text is kept between hashing and reading; what does not fit is unpacked twice. The entries of
/// 100,000 decisions take 170 MB.
const KEPT_BYTES_MAX: u64 = 256 << 20;
/// Reads a small file whole.
pub(super) fn small(archive: &Archive<'_>, name: &'static str, bytes_max: u64) -> Result<Vec<u8>, Problem> {
    let size = archive.size(name).ok_or_else(|| Problem::MissingFile { name: name.into() })?;
    if size > bytes_max {
        return Err(Problem::TooLarge { what: name, max: bytes_max });
    }
    let mut out = Vec::new();
    let mut reader = archive.reader(name).expect("the file is there: its size is known");
    reader.read_to_end(&mut out).map_err(|error| unreadable(name, &error))?;
    reader.finish().map_err(|error| unreadable(name, &error))?;
    Ok(out)
}

pub(super) fn unreadable(name: &str, error: &io::Error) -> Problem {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<ZipError>());
    match inner {
        Some(ZipError::Member { reason, .. }) => Problem::Unreadable { place: name.into(), reason: reason.clone() },
        _ => Problem::Unreadable { place: name.into(), reason: error.to_string() },
    }
}

/// The archive's files once their digests are known to be the manifest's.
pub(super) struct Unpacked<'a> {
    archive: &'a Archive<'a>,
    kept: BTreeMap<String, Vec<u8>>,
    digests: BTreeMap<String, Sha256Digest>,
    pub(super) bytes: u64,
}

/// One file on its way into [`Unpacked`].
struct Unpack<'n> {
    name: &'n str,
    digest: Sha256Digest,
    text: Option<Vec<u8>>,
}

impl<'a> Unpacked<'a> {
    /// Unpacks every file once, on all cores, and compares with the manifest's list.
    pub(super) fn check(archive: &'a Archive<'a>, statement: &Statement) -> Result<Self, Problem> {
        let names: Vec<&str> = archive.names().filter(|name| *name != MANIFEST).collect();
        let bytes: u64 = names.iter().filter_map(|name| archive.size(name)).sum();
        if bytes > UNPACKED_BYTES_MAX {
            return Err(Problem::TooLarge { what: "the unpacked export", max: UNPACKED_BYTES_MAX });
        }
        if let Some(subject) = statement.subject.iter().find(|subject| !names.contains(&subject.name.as_str())) {
            return Err(Problem::MissingFile { name: subject.name.clone() });
        }
        if let Some(subject) = statement.subject.get(names.len()) {
            return Err(Problem::Unlisted { name: subject.name.clone() });
        }
        let keep = kept_names(archive, &names, KEPT_BYTES_MAX);
        let unpacked: Vec<Result<Unpack, Problem>> = names
            .par_iter()
            .with_max_len(1)
            .enumerate()
            .map(|(at, name)| {
                let listed = statement.subject.get(at).filter(|subject| subject.name == *name);
                let listed = listed.ok_or_else(|| Problem::Unlisted { name: (*name).into() })?;
                let mut reader = archive.reader(name).expect("the name is the archive's own");
                let text = if keep.contains(name) {
                    let size = archive.size(name).unwrap_or_default();
                    let mut text = Vec::with_capacity(usize::try_from(size).expect("kept files are small"));
                    reader.read_to_end(&mut text).map_err(|error| unreadable(name, &error))?;
                    Some(text)
                } else {
                    None
                };
                let digest = reader.finish().map_err(|error| unreadable(name, &error))?;
                if digest.hex() == listed.digest.sha256 {
                    Ok(Unpack { name, digest, text })
                } else {
                    Err(Problem::Changed { name: (*name).into() })
                }
            })
            .collect();
        let (mut kept, mut digests) = (BTreeMap::new(), BTreeMap::new());
        for file in unpacked {
            let Unpack { name, digest, text } = file?;
            digests.insert(name.to_owned(), digest);
            kept.extend(text.map(|text| (name.to_owned(), text)));
        }
        Ok(Self { archive, kept, digests, bytes })
    }

    pub(super) fn digest(&self, name: &str) -> Option<Sha256Digest> {
        self.digests.get(name).copied()
    }

    pub(super) fn open(&self, name: &str) -> Box<dyn Read + Send + '_> {
        match self.kept.get(name) {
            Some(bytes) => Box::new(bytes.as_slice()),
            None => Box::new(self.archive.reader(name).expect("the names were checked")),
        }
    }

    pub(super) fn lines(&self, name: &'static str, bytes_max: usize) -> Lines<'_> {
        Lines { reader: BufReader::with_capacity(128 * 1024, self.open(name)), name, bytes_max, line: 0 }
    }

    pub(super) fn text(&self, name: &str, bytes_max: u64) -> Result<Vec<u8>, Problem> {
        let mut out = Vec::new();
        let mut reader = self.open(name).take(bytes_max + 1);
        reader.read_to_end(&mut out).map_err(|error| unreadable(name, &error))?;
        if out.len() as u64 > bytes_max { Err(Problem::TooLarge { what: "a text", max: bytes_max }) } else { Ok(out) }
    }
}

/// The files that are kept: entries before all others, and no tables, which nobody reads when their digests are right.
fn kept_names<'n>(archive: &Archive<'_>, names: &[&'n str], bytes_max: u64) -> Vec<&'n str> {
    let (mut entries, others): (Vec<&str>, Vec<&str>) = names.iter().partition(|name| **name == ENTRIES);
    entries.extend(others.into_iter().filter(|name| !TABLES.contains(name)));
    let mut left = bytes_max;
    entries.retain(|name| match left.checked_sub(archive.size(name).unwrap_or_default()) {
        Some(rest) => {
            left = rest;
            true
        }
        None => false,
    });
    entries
}

/// Lines that each end in LF, bounded.
pub(super) struct Lines<'a> {
    reader: BufReader<Box<dyn Read + Send + 'a>>,
    name: &'static str,
    bytes_max: usize,
    line: u64,
}

impl Lines<'_> {
    pub(super) fn wrong(&self, reason: &str) -> Problem {
        Problem::Form { name: self.name.into(), line: self.line, reason: reason.into() }
    }

    /// Appends the next line without its LF to `out`; `false` at the end.
    pub(super) fn next(&mut self, out: &mut Vec<u8>) -> Result<bool, Problem> {
        self.line += 1;
        let start = out.len();
        let mut limited = (&mut self.reader).take(self.bytes_max as u64 + 1);
        limited.read_until(b'\n', out).map_err(|error| unreadable(self.name, &error))?;
        match out.len() - start {
            0 => Ok(false),
            _ if out.last() == Some(&b'\n') => {
                out.pop();
                Ok(true)
            }
            bytes if bytes > self.bytes_max => Err(self.wrong("the line is too long")),
            _ => Err(self.wrong("the last line has no line break")),
        }
    }

    /// The next line as text.
    pub(super) fn next_text<'b>(&mut self, buffer: &'b mut Vec<u8>) -> Result<Option<&'b str>, Problem> {
        buffer.clear();
        if !self.next(buffer)? {
            return Ok(None);
        }
        std::str::from_utf8(buffer).map(Some).map_err(|_| self.wrong("it is not UTF-8"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::export::{CHECKPOINT, LOG_VKEY};

    #[test]
    fn entries_are_kept_first_and_never_more_than_fits() {
        let zip = include_bytes!("../../../../docs/spec/vectors/export.zip");
        let archive = Archive::open(zip).unwrap();
        let names: Vec<&str> = archive.names().collect();
        let size = |name| archive.size(name).unwrap();
        let kept = |bytes_max| kept_names(&archive, &names, bytes_max);
        assert_eq!(kept(0), [] as [&str; 0]);
        assert_eq!(kept(size(ENTRIES)), [ENTRIES]);
        assert_eq!(kept(size(ENTRIES) + size(CHECKPOINT)), [ENTRIES, CHECKPOINT]);
        assert!(!kept(size(ENTRIES) - 1).contains(&ENTRIES), "the others still fit");
        assert!(kept(size(ENTRIES) - 1).contains(&LOG_VKEY));
        let all = kept(KEPT_BYTES_MAX);
        assert_eq!(all.len(), names.len() - TABLES.len());
        assert!(TABLES.iter().all(|table| !all.contains(table)));
    }
}
