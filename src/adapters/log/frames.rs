//! Which frames the newest entries decide: those the index may not know yet.

use std::collections::{HashMap, VecDeque};

use crate::{
    ports::lineage::Receipt,
    types::{Blake3Digest, FrameKey},
};

/// The decision of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub receipt: Receipt,
    pub encoded: Blake3Digest,
}

/// Bounded by how far the index lags behind, about 150 bytes an entry: an index that was lost counts as lagging behind
/// by the whole log until it is rebuilt.
#[derive(Debug, Default)]
pub(super) struct Frames {
    by_key: HashMap<[u8; 16], Known>,
    in_order: VecDeque<(u64, [u8; 16])>,
}

impl Frames {
    pub fn get(&self, key: &[u8; 16]) -> Option<Known> {
        self.by_key.get(key).copied()
    }

    /// Remembers a decision; entries come in the order of the log, and of two decisions of a frame the first stands.
    pub fn insert(&mut self, key: [u8; 16], known: Known) {
        self.by_key.entry(key).or_insert_with(|| {
            self.in_order.push_back((known.receipt.index.0, key));
            known
        });
    }

    /// Forgets the entries the index knows.
    pub fn forget_below(&mut self, indexed: u64) {
        while let Some((index, key)) = self.in_order.front().filter(|(index, _)| *index < indexed) {
            debug_assert_eq!(self.by_key[key].receipt.index.0, *index, "of two decisions the first stands");
            self.by_key.remove(key);
            self.in_order.pop_front();
        }
    }
}

/// The few facts of a stored decision that tell a retry; reading only these takes a third of the time.
#[derive(serde::Deserialize)]
struct Facts {
    kind: String,
    line: Option<crate::types::LineId>,
    camera: Option<crate::types::CameraId>,
    frame: Option<serde_json::Value>,
    image: Option<Image>,
}

#[derive(serde::Deserialize)]
struct Image {
    encoded: Blake3Digest,
}

/// The frame a stored entry decides, if it is a decision.
pub(super) fn frame_of(entry: &[u8]) -> Option<(FrameKey, Blake3Digest)> {
    let facts: Facts = serde_json::from_slice(entry).ok()?;
    if facts.kind != "decision" {
        return None;
    }
    let frame = facts.frame?.get("id")?.as_str()?.parse().ok()?;
    Some((FrameKey { line: facts.line?, camera: facts.camera?, frame }, facts.image?.encoded))
}
