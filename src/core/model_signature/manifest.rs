//! Which files a folder has, by digest; and how it differs from what was signed.

use std::{collections::BTreeMap, fmt};

use sha2::Digest as _;

use super::ResourceName;
use crate::types::Sha256Digest;

/// The files of a folder with the SHA-256 of their bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// What its signer called the folder; says nothing that is checked.
    pub name: String,
    /// In the order in which the digest of all files takes them.
    pub files: BTreeMap<ResourceName, Sha256Digest>,
    /// Files and folders that are no part of it.
    pub ignored: Vec<ResourceName>,
}

/// How a folder differs from what was signed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    pub altered: Vec<ResourceName>,
    pub missing: Vec<ResourceName>,
    pub added: Vec<ResourceName>,
}

impl Manifest {
    /// SHA-256 over the digests of all files: one name for the whole folder.
    #[must_use]
    pub fn root(&self) -> Sha256Digest {
        let mut hasher = sha2::Sha256::new();
        self.files.values().for_each(|digest| hasher.update(digest.0));
        Sha256Digest(hasher.finalize().into())
    }

    /// Whether a file is no part of it.
    #[must_use]
    pub fn ignores(&self, file: &ResourceName) -> bool {
        self.ignored.iter().any(|ignored| file.is_within(ignored))
    }

    /// How the folder that has `found` now differs from this one.
    #[must_use]
    pub fn differences(&self, found: &BTreeMap<ResourceName, Sha256Digest>) -> Differences {
        let mut differences = Differences::default();
        for (name, signed) in &self.files {
            match found.get(name) {
                Some(digest) if digest == signed => {}
                Some(_) => differences.altered.push(name.clone()),
                None => differences.missing.push(name.clone()),
            }
        }
        differences.added = found.keys().filter(|name| !self.files.contains_key(name)).cloned().collect();
        differences
    }
}

impl Differences {
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.altered.is_empty() && self.missing.is_empty() && self.added.is_empty()
    }
}

impl fmt::Display for Differences {
    /// `altered: model.onnx; added: notes.txt, x`; at most [`SHOWN_MAX`] names of each.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = [("altered", &self.altered), ("missing", &self.missing), ("added", &self.added)];
        let mut before = "";
        for (kind, names) in kinds.into_iter().filter(|(_, names)| !names.is_empty()) {
            let shown: Vec<String> = names.iter().take(SHOWN_MAX).map(ToString::to_string).collect();
            write!(f, "{before}{kind}: {}", shown.join(", "))?;
            if names.len() > SHOWN_MAX {
                write!(f, " and {} more", names.len() - SHOWN_MAX)?;
            }
            before = "; ";
        }
        Ok(())
    }
}

/// Names of one kind in a sentence.
const SHOWN_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_differ_is_named() {
        let name = |text: &str| text.parse::<ResourceName>().unwrap();
        let files = |names: &[(&str, &[u8])]| {
            names.iter().map(|(file, bytes)| (name(file), Sha256Digest::of(bytes))).collect::<BTreeMap<_, _>>()
        };
        let signed = Manifest { files: files(&[("a", b"1"), ("b", b"2"), ("c", b"3")]), ..Manifest::default() };
        assert!(signed.differences(&signed.files).is_none());
        let found = signed.differences(&files(&[("a", b"1"), ("b", b"x"), ("d", b"3")]));
        assert_eq!(found.to_string(), "altered: b; missing: c; added: d");
        let many: Vec<(String, &[u8])> = (0..11).map(|number| (format!("f{number}"), &b""[..])).collect();
        let many: Vec<(&str, &[u8])> = many.iter().map(|(name, bytes)| (name.as_str(), *bytes)).collect();
        assert!(Manifest::default().differences(&files(&many)).to_string().ends_with("and 3 more"));
    }
}
