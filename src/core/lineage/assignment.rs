//! Which recipe inspects a product: entries that say it changed. Format: `docs/spec/entry.md`.

use serde::Serialize;

use super::entry::{ClockState, ENTRY_VERSION, RecipeRecord};
use crate::types::{Instant, ProductId};

/// What an entry of this kind calls itself.
pub const KIND: &str = "assignment";

/// One entry of kind `assignment`. Verifiers keep it as a kind they do not know: what decided stands in each decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Assignment {
    // In the order of their names: entries have sorted keys.
    clock: ClockState,
    event: AssignmentEvent,
    kind: &'static str,
    /// What inspected the product before.
    #[serde(skip_serializing_if = "Option::is_none")]
    previous: Option<RecipeRecord>,
    product: ProductId,
    recipe: RecipeRecord,
    time: Instant,
    v: u32,
}

/// What made the recipe the product's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AssignmentEvent {
    /// The configuration, or somebody's command.
    Assigned,
    /// Somebody took back the latest change.
    RolledBack,
    /// The configuration names the product no more: its frames must name their recipe. `recipe` is the one it had.
    Unassigned,
}

impl Assignment {
    #[must_use]
    pub fn new(
        event: AssignmentEvent,
        product: ProductId,
        recipe: RecipeRecord,
        previous: Option<RecipeRecord>,
        (time, clock): (Instant, ClockState),
    ) -> Self {
        Self { clock, event, kind: KIND, previous, product, recipe, time, v: ENTRY_VERSION }
    }

    /// The bytes the log keeps.
    ///
    /// # Panics
    /// Never: it is a few texts.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts are JSON")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        core::lineage::entry::Entry,
        types::{Blake3Digest, RecipeRef},
    };

    #[test]
    fn an_assignment_is_an_entry_with_sorted_keys() {
        let time = Instant::from_unix_nanos(1_795_470_228_120_000_000).unwrap();
        let recipe = |version: &str, byte| RecipeRecord {
            digest: Blake3Digest([byte; 32]),
            name: RecipeRef::new(format!("housing@{version}")).unwrap(),
        };
        let entry = Assignment::new(
            AssignmentEvent::RolledBack,
            "part-7".parse().unwrap(),
            recipe("1.0.0", 1),
            Some(recipe("1.1.0", 2)),
            (time, ClockState::Free),
        )
        .encode();
        let (one, two) = ("01".repeat(32), "02".repeat(32));
        let expected = format!(
            r#"{{"clock":"free","event":"rolled_back","kind":"assignment","previous":{{"digest":"blake3:{two}","name":"housing@1.1.0"}},"product":"part-7","recipe":{{"digest":"blake3:{one}","name":"housing@1.0.0"}},"time":"2026-11-23T21:43:48.120000000Z","v":2}}"#
        );
        assert_eq!(String::from_utf8_lossy(&entry), expected);
        assert_eq!(Entry::parse(&entry).unwrap().kind(), KIND);
    }
}
