//! What is signed: an in-toto Statement that lists the files.

use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use super::{IGNORED, Manifest, RESOURCES_MAX, ResourceName, SignatureError};
use crate::types::Sha256Digest;

const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
const PREDICATE_TYPE: &str = "https://model_signing/signature/v1.0";
const METHOD: &str = "files";
const ALGORITHM: &str = "sha256";

// What else a statement holds is passed over, as the format asks of its readers.

#[derive(Serialize, Deserialize)]
struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Subject>,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    predicate: Predicate,
}

#[derive(Serialize, Deserialize)]
struct Subject {
    name: String,
    digest: Sha256Hex,
}

#[derive(Serialize, Deserialize)]
struct Sha256Hex {
    sha256: String,
}

#[derive(Serialize, Deserialize)]
struct Predicate {
    serialization: Serialization,
    resources: Vec<Resource>,
}

#[derive(Serialize, Deserialize)]
struct Serialization {
    method: String,
    hash_type: String,
    /// Whether links were followed; here they never are.
    allow_symlinks: bool,
    #[serde(default)]
    ignore_paths: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Resource {
    name: String,
    algorithm: String,
    digest: String,
}

/// The statement's bytes.
///
/// # Panics
/// Never: it has no key that JSON could not write.
pub(super) fn encode(manifest: &Manifest) -> Vec<u8> {
    let resource = |(name, digest): (&ResourceName, &Sha256Digest)| Resource {
        name: name.as_str().to_owned(),
        algorithm: ALGORITHM.to_owned(),
        digest: digest.hex(),
    };
    let statement = Statement {
        kind: STATEMENT_TYPE.to_owned(),
        subject: vec![Subject { name: manifest.name.clone(), digest: Sha256Hex { sha256: manifest.root().hex() } }],
        predicate_type: PREDICATE_TYPE.to_owned(),
        predicate: Predicate {
            serialization: Serialization {
                method: METHOD.to_owned(),
                hash_type: ALGORITHM.to_owned(),
                allow_symlinks: false,
                ignore_paths: manifest.ignored.iter().map(|name| name.as_str().to_owned()).collect(),
            },
            resources: manifest.files.iter().map(resource).collect(),
        },
    };
    serde_json::to_vec(&statement).expect("a statement is JSON")
}

/// Reads a statement whose signature holds.
///
/// # Errors
/// [`SignatureError`].
pub(super) fn decode(bytes: &[u8]) -> Result<Manifest, SignatureError> {
    let statement: Statement = serde_json::from_slice(bytes)?;
    expect("statement type", &statement.kind, STATEMENT_TYPE)?;
    expect("predicate type", &statement.predicate_type, PREDICATE_TYPE)?;
    let Predicate { serialization, resources } = statement.predicate;
    expect("method", &serialization.method, METHOD)?;
    expect("hash type", &serialization.hash_type, ALGORITHM)?;
    let [subject] = statement.subject.as_slice() else {
        let found = format!("{} subjects", statement.subject.len());
        return Err(SignatureError::Type { what: "list of subjects", found, expected: "1 subject" });
    };
    if resources.len() > RESOURCES_MAX {
        return Err(SignatureError::TooMany);
    }
    let mut manifest = Manifest { name: subject.name.clone(), ..Manifest::default() };
    let mut root = sha2::Sha256::new();
    for Resource { name, algorithm, digest } in resources {
        let name: ResourceName = name.parse()?;
        let digest = Some(digest).filter(|_| algorithm == ALGORITHM);
        let digest = digest.and_then(|hex| format!("{}{hex}", Sha256Digest::PREFIX).parse().ok());
        let digest: Sha256Digest = digest.ok_or_else(|| SignatureError::Digest(name.clone()))?;
        root.update(digest.0);
        if manifest.files.insert(name.clone(), digest).is_some() {
            return Err(SignatureError::Twice(name));
        }
    }
    // In the order of the list: the stock tool sorts by the parts of paths, the specification by code points.
    if Sha256Digest(root.finalize().into()).hex() != subject.digest.sha256 {
        return Err(SignatureError::Root);
    }
    for path in serialization.ignore_paths.iter().take(RESOURCES_MAX) {
        manifest.ignored.push(path.strip_suffix('/').unwrap_or(path).parse()?);
    }
    // What is ignored by default is so unless it was signed, whether the signature says it or not.
    for name in IGNORED {
        let name: ResourceName = name.parse()?;
        if !manifest.ignored.contains(&name) && !manifest.files.keys().any(|file| file.is_within(&name)) {
            manifest.ignored.push(name);
        }
    }
    Ok(manifest)
}

pub(super) fn expect(what: &'static str, found: &str, expected: &'static str) -> Result<(), SignatureError> {
    if found == expected {
        return Ok(());
    }
    Err(SignatureError::Type { what, found: found.chars().take(160).collect(), expected })
}
