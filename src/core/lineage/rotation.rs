//! Rotations of the log's signing key: entries that say which key comes next and which counts no more. Format and rules:
//! `docs/spec/rotation.md`.

use serde::{Deserialize, Serialize};

use super::entry::{ClockState, ENTRY_VERSION};
use crate::types::Instant;

/// What an entry of this kind calls itself.
pub const KIND: &str = "rotation";

/// One entry of kind `rotation`. Verifiers hold its form no further than [`Rotation::read`] does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rotation {
    // In the order of their names: entries have sorted keys.
    clock: ClockState,
    pub event: RotationEvent,
    kind: &'static str,
    /// Of a master key: its check value.
    #[serde(skip_serializing_if = "Option::is_none")]
    sealing: Option<String>,
    time: Instant,
    v: u32,
    /// Of a signing key: the key as a vkey line.
    #[serde(skip_serializing_if = "Option::is_none")]
    vkey: Option<String>,
}

/// Which key an entry speaks of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RotatedKey {
    /// The log's signing key, a vkey line.
    Log(String),
    /// A master key, which seals what is beside the log: its check value.
    Sealing(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RotationEvent {
    /// The key signs checkpoints beside the current one, and will take its place; a master key seals from here on.
    Announced,
    /// The key signs no checkpoint behind this entry; a master key is destroyed.
    Retired,
}

/// What a verifier takes from such an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    pub event: RotationEvent,
    pub vkey: String,
}

impl Rotation {
    #[must_use]
    pub fn new(event: RotationEvent, key: RotatedKey, time: Instant, clock: ClockState) -> Self {
        let (sealing, vkey) = match key {
            RotatedKey::Log(vkey) => (None, Some(vkey)),
            RotatedKey::Sealing(check) => (Some(check), None),
        };
        Self { clock, event, kind: KIND, sealing, time, v: ENTRY_VERSION, vkey }
    }

    /// The bytes the log keeps.
    ///
    /// # Panics
    /// Never: it is a few texts.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts are JSON")
    }

    /// What an entry says of a signing key; nothing for any other entry, and for one whose event or key is none.
    #[must_use]
    pub fn read(entry: &[u8]) -> Option<Said> {
        #[derive(Deserialize)]
        struct Body {
            kind: String,
            event: RotationEvent,
            vkey: String,
        }
        let Body { kind, event, vkey } = serde_json::from_slice(entry).ok()?;
        (kind == KIND).then_some(Said { event, vkey })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::lineage::entry::Entry;

    #[test]
    fn a_rotation_is_an_entry_with_sorted_keys_and_reads_back() {
        let time = Instant::from_unix_nanos(1_795_470_228_120_000_000).unwrap();
        let vkey = "plant.example/log+c74f20a3+ARpc2Q==".to_owned();
        let entry =
            Rotation::new(RotationEvent::Announced, RotatedKey::Log(vkey.clone()), time, ClockState::Free).encode();
        let expected = r#"{"clock":"free","event":"announced","kind":"rotation","time":"2026-11-23T21:43:48.120000000Z","v":2,"vkey":"plant.example/log+c74f20a3+ARpc2Q=="}"#;
        assert_eq!(String::from_utf8_lossy(&entry), expected);
        assert_eq!(Entry::parse(&entry).unwrap().kind(), KIND);
        assert_eq!(Rotation::read(&entry), Some(Said { event: RotationEvent::Announced, vkey }));
        let sealing =
            Rotation::new(RotationEvent::Retired, RotatedKey::Sealing("0ded8a1c".into()), time, ClockState::Free);
        let expected = r#"{"clock":"free","event":"retired","kind":"rotation","sealing":"0ded8a1c","time":"2026-11-23T21:43:48.120000000Z","v":2}"#;
        assert_eq!(String::from_utf8_lossy(&sealing.encode()), expected);
        assert_eq!(Rotation::read(&sealing.encode()), None, "it says nothing of the log's key");
        for other in [
            r#"{"event":"retired","kind":"key","v":2,"vkey":"a"}"#,
            r#"{"event":"gone","kind":"rotation","v":2,"vkey":"a"}"#,
            r#"{"event":"retired","kind":"rotation","v":2,"vkey":7}"#,
        ] {
            assert_eq!(Rotation::read(other.as_bytes()), None, "{other}");
        }
    }
}
