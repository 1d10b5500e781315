//! Reads one entry as strictly as `docs/spec/entry.md` and `docs/spec/forms.md` ask.
//!
//! The log's own reader need not be strict, because it reads what it wrote. A verifier reads what somebody says the log
//! wrote, and refuses what another verifier might read in another way.

use super::Problem;
use crate::core::{export::canonical, lineage::entry::Entry};

const NO_REASONS: &[u8] = br#""reasons":[]"#;

/// One entry, written in the one way entries are.
pub(super) fn read(index: u64, bytes: &[u8]) -> Result<Entry, Problem> {
    let wrong = |reason| Problem::EntryForm { index, reason };
    let entry = Entry::parse(bytes).map_err(|error| Problem::Entry { index, error })?;
    match &entry {
        Entry::Unknown { .. } => canonical::check(bytes),
        _ => canonical::check_with_lists_only_at(&["labels", "lost", "missing", "reasons"], bytes),
    }
    .map_err(wrong)?;
    if let Entry::Decision(decision) = &entry {
        // Quotes within strings are escaped, so this can only be the key.
        if decision.reasons.is_empty() && bytes.windows(NO_REASONS.len()).any(|part| part == NO_REASONS) {
            return Err(wrong("its empty list of reasons should be left out"));
        }
    }
    if let Entry::PeriodClose(close) = &entry
        && serde_json::to_vec(close).ok().as_deref() != Some(bytes)
    {
        return Err(wrong("what is empty or false should be left out"));
    }
    Ok(entry)
}
