//! Retention entries: what was destroyed beside the log, and what must not be. The format is `docs/spec/retention.md`.

use serde::{Deserialize, Serialize};

use super::{ClockState, Commitments, RetentionKind};
use crate::{
    core::lineage::{index_ranges::IndexRanges, private::PrivateField},
    types::{EntryIndex, Instant, LineId, ProductId},
};

/// Something kept beside the log was destroyed, or must not be: `docs/spec/retention.md`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// What was deleted is of days before this one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub before: Option<Instant>,
    /// The retention class that was deleted.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub class: Option<String>,
    pub clock: ClockState,
    /// How much was destroyed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub destroyed: Option<Destroyed>,
    /// The entries whose private values were destroyed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub entries: Option<IndexRanges>,
    pub event: RetentionEvent,
    /// A hold concerns entries from this time on.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub from: Option<Instant>,
    /// The entry of the hold that is released.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hold: Option<EntryIndex>,
    /// How much a run left alone because of legal holds.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub kept: Option<u64>,
    pub kind: RetentionKind,
    /// A hold concerns this line.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub line: Option<LineId>,
    /// Commitments to the part, lot or person that a hold concerns.
    pub private: Commitments,
    /// A hold concerns this product.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub product: Option<ProductId>,
    /// The rule or legal basis, in the operator's words.
    pub rule: String,
    pub time: Instant,
    /// A hold concerns entries before this time.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub to: Option<Instant>,
    pub v: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetentionEvent {
    /// Private values were destroyed because someone asked.
    Erased,
    /// The period of a class was over.
    Deleted,
    /// A legal hold: what it concerns must not be destroyed.
    Held,
    /// A legal hold ended.
    Released,
}

/// Counts of what was destroyed; what is left out is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Destroyed {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub client: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub images: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lot: Option<u64>,
    /// Image packs, each with its key.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub packs: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub serial: Option<u64>,
}

impl Destroyed {
    /// How many values of a field were destroyed.
    #[must_use]
    pub fn of(&self, field: PrivateField) -> u64 {
        let count = match field {
            PrivateField::Client => self.client,
            PrivateField::Lot => self.lot,
            PrivateField::Serial => self.serial,
        };
        count.unwrap_or_default()
    }

    /// Counts `count` more values of a field.
    pub fn add(&mut self, field: PrivateField, count: u64) {
        let sum = self.of(field) + count;
        let place = match field {
            PrivateField::Client => &mut self.client,
            PrivateField::Lot => &mut self.lot,
            PrivateField::Serial => &mut self.serial,
        };
        *place = (sum > 0).then_some(sum);
    }

    /// The fields of which values were destroyed.
    #[must_use]
    pub fn fields(&self) -> Vec<PrivateField> {
        PrivateField::ALL.into_iter().filter(|field| self.of(*field) > 0).collect()
    }
}

impl Retention {
    /// Whether this entry says that a private value of the entry at `index` was destroyed.
    #[must_use]
    pub fn destroyed_value(&self, index: EntryIndex, field: PrivateField) -> bool {
        self.destroyed.is_some_and(|destroyed| destroyed.of(field) > 0)
            && self.entries.as_ref().is_some_and(|entries| entries.contains(index))
    }
}
