//! Checks the passport of one part.

use super::{Findings, Problem, Step, entry, gather, handover::announced, open_checkpoint};
use crate::core::{
    export::{consistency, keys::Keys},
    lineage::{
        entry::Entry,
        passport::{Passport, verify_openings},
        private::PrivateField,
        tree::{leaf_hash, verify_inclusion},
    },
};

/// Checks everything in a passport, as `docs/spec/passport.md` says.
#[must_use]
pub fn verify_passport(text: &str, keys: &Keys) -> Findings {
    gather(|steps| check(text, keys, steps))
}

fn check(text: &str, keys: &Keys, steps: &mut Vec<Step>) -> Result<(), Problem> {
    let passport = Passport::parse(text).map_err(Problem::Passport)?;
    if passport.to_text() != text {
        return Err(Problem::PassportForm);
    }
    let signed = open_checkpoint(passport.checkpoint.as_bytes(), keys, steps)?;
    let (index, size) = (passport.index.0, signed.facts.size);
    verify_inclusion(index, size, &leaf_hash(&passport.entry), &passport.proof, &signed.facts.root)
        .map_err(Problem::Inclusion)?;
    steps.push(Step::Proof { entries: 1, size, hashes: passport.proof.len() });
    let entry = entry::read(index, &passport.entry)?;
    verify_openings(&entry, &passport.openings).map_err(Problem::Passport)?;
    let verdict = match &entry {
        Entry::Decision(decision) => {
            consistency::check(decision).map_err(|contradiction| Problem::Decision { index, contradiction })?;
            Some(decision.verdict.name())
        }
        _ => None,
    };
    let serial = passport.openings.iter().find(|opening| opening.field == PrivateField::Serial);
    steps.push(Step::Openings { values: passport.openings.len() as u64, decisions: 1 });
    steps.push(Step::Part {
        index,
        kind: entry.kind().to_owned(),
        verdict,
        time: entry.time().map(|time| time.to_string()),
        serial: serial.map(|opening| opening.value.clone()),
    });
    if let Some((key, _)) = announced(&passport.entry, &signed.facts.origin) {
        steps.push(Step::Announced { vkey: key.line() });
    }
    Ok(())
}
