//! Checks the receipt of one entry.

use super::{Findings, Problem, Step, entry, gather};
use crate::core::{
    export::{consistency, keys::Keys},
    lineage::{
        entry::Entry,
        receipt::Receipt,
        tree::{leaf_hash, root_by_inclusion},
    },
};

/// Checks a receipt and the stored bytes of the entry it is of, as `docs/spec/receipt.md` says.
#[must_use]
pub fn verify_receipt(receipt: &[u8], entry: &[u8], keys: &Keys) -> Findings {
    gather(|steps| check(receipt, entry, keys, steps))
}

fn check(receipt: &[u8], bytes: &[u8], keys: &Keys, steps: &mut Vec<Step>) -> Result<(), Problem> {
    let receipt = Receipt::parse(receipt).map_err(Problem::Receipt)?;
    let Receipt { origin, size, .. } = &receipt;
    let key = keys.log_key(origin, receipt.key_id).ok_or_else(|| Problem::ReceiptKey { origin: origin.clone() })?;
    let index = receipt.index.0;
    let root = root_by_inclusion(index, *size, &leaf_hash(bytes), &receipt.path).map_err(Problem::Inclusion)?;
    if !key.verify_bytes(&receipt.signed_bytes(&root), &receipt.signature) {
        return Err(Problem::ReceiptSignature { key: key.key_id() });
    }
    steps.push(Step::Receipt { origin: origin.clone(), size: *size, key: key.key_id() });
    steps.push(Step::Proof { entries: 1, size: *size, hashes: receipt.path.len() });
    if keys.has_policy() {
        return Err(Problem::ReceiptPolicy);
    }
    let entry = entry::read(index, bytes)?;
    let mut verdict = None;
    if let Entry::Decision(decision) = &entry {
        consistency::check(decision).map_err(|contradiction| Problem::Decision { index, contradiction })?;
        verdict = Some(decision.verdict.name());
    }
    steps.push(Step::Part {
        index,
        kind: entry.kind().to_owned(),
        verdict,
        time: entry.time().map(|time| time.to_string()),
        serial: None,
    });
    Ok(())
}
