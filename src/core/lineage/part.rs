//! Part verdicts: entries that join the decisions on one part's views to one verdict. Format: `docs/spec/part.md`.

use serde::{Deserialize, Serialize};

use super::entry::{ClockState, ENTRY_VERSION};
use crate::types::{CameraId, EntryIndex, Instant, LineId, ProductId, Sha256Digest, StationId, Verdict, ViewName};

/// What an entry of this kind calls itself.
pub const KIND: &str = "part";
/// Views of one part.
pub const VIEWS_MAX: usize = 8;
/// Decisions that one part verdict joins; a view may be taken again. With the longest names each takes under 450 bytes of an entry's 8 KiB.
pub const DECISIONS_MAX: usize = 16;

/// One entry of kind `part`. Verifiers keep it as a kind they do not know: it says nothing that the decisions it names do not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartVerdict {
    // In the order of their names: entries have sorted keys.
    pub clock: ClockState,
    pub kind: PartKind,
    pub product: ProductId,
    pub time: Instant,
    pub v: u32,
    pub verdict: Verdict,
    /// In the order of the configuration; a view without a decision is there once, a view taken again as often as it was.
    pub views: Vec<ViewRecord>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PartKind {
    #[serde(rename = "part")]
    Kind,
}

/// A view of the part, and the decision on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ViewRecord {
    pub camera: CameraId,
    /// Unset, as are leaf and verdict, where no frame of the view was decided in time.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub entry: Option<EntryIndex>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub leaf: Option<Sha256Digest>,
    pub line: LineId,
    pub station: StationId,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub verdict: Option<Verdict>,
    pub view: ViewName,
}

impl PartVerdict {
    #[must_use]
    pub fn new(product: ProductId, views: Vec<ViewRecord>, (time, clock): (Instant, ClockState)) -> Self {
        let verdict = worst(views.iter().map(|view| view.verdict));
        Self { clock, kind: PartKind::Kind, product, time, v: ENTRY_VERSION, verdict, views }
    }

    /// The bytes the log keeps.
    ///
    /// # Panics
    /// Never: names and numbers are JSON.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("names and numbers are JSON")
    }

    /// What an entry of this kind says; nothing for any other, nor for one whose verdict is not that of its views.
    #[must_use]
    pub fn read(entry: &[u8]) -> Option<Self> {
        let part: Self = serde_json::from_slice(entry).ok()?;
        let is_whole = |view: &ViewRecord| {
            view.entry.is_some() == view.verdict.is_some() && view.entry.is_some() == view.leaf.is_some()
        };
        let holds =
            part.views.iter().all(is_whole) && part.verdict == worst(part.views.iter().map(|view| view.verdict));
        holds.then_some(part)
    }

    /// The decisions it joins.
    pub fn decisions(&self) -> impl Iterator<Item = EntryIndex> + '_ {
        self.views.iter().filter_map(|view| view.entry)
    }

    /// Whether every view was decided.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.views.iter().all(|view| view.entry.is_some())
    }
}

/// The worst wins: one view that is NOT_OK makes the part NOT_OK, else one that is NOT_DECIDABLE, or has no decision, makes it
/// NOT_DECIDABLE. A part of no views at all is not decidable.
#[must_use]
pub fn worst(views: impl IntoIterator<Item = Option<Verdict>>) -> Verdict {
    let severity = |verdict: &Verdict| match verdict {
        Verdict::Ok => 0,
        Verdict::NotDecidable => 1,
        Verdict::NotOk => 2,
    };
    let verdicts = views.into_iter().map(|verdict| verdict.unwrap_or(Verdict::NotDecidable));
    verdicts.max_by_key(severity).unwrap_or(Verdict::NotDecidable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::lineage::entry::{ENTRY_BYTES_MAX, Entry};

    fn view(name: &str, decided: Option<(u64, Verdict)>) -> ViewRecord {
        ViewRecord {
            camera: format!("cam-{name}").parse().unwrap(),
            entry: decided.map(|(entry, _)| EntryIndex(entry)),
            leaf: decided.map(|_| Sha256Digest([1; 32])),
            line: "l1".parse().unwrap(),
            station: "s1".parse().unwrap(),
            verdict: decided.map(|(_, verdict)| verdict),
            view: name.parse().unwrap(),
        }
    }

    fn at() -> (Instant, ClockState) {
        (Instant::from_unix_nanos(1_795_470_228_120_000_000).unwrap(), ClockState::Free)
    }

    #[test]
    fn the_worst_view_decides_and_a_missing_one_is_not_decidable() {
        use Verdict::{NotDecidable, NotOk, Ok};
        assert_eq!(worst([Some(Ok), Some(Ok)]), Ok);
        assert_eq!(worst([Some(Ok), None]), NotDecidable);
        assert_eq!(worst([Some(NotDecidable), Some(Ok)]), NotDecidable);
        assert_eq!(worst([None, Some(NotOk), Some(Ok)]), NotOk);
        assert_eq!(worst([]), NotDecidable, "no verdict is never OK");
    }

    #[test]
    fn a_part_verdict_is_an_entry_with_sorted_keys_and_reads_back() {
        let views = vec![view("top", Some((12, Verdict::Ok))), view("side", None)];
        let part = PartVerdict::new("housing".parse().unwrap(), views, at());
        let leaf = "01".repeat(32);
        let expected = format!(
            r#"{{"clock":"free","kind":"part","product":"housing","time":"2026-11-23T21:43:48.120000000Z","v":2,"verdict":"NOT_DECIDABLE","views":[{{"camera":"cam-top","entry":12,"leaf":"sha256:{leaf}","line":"l1","station":"s1","verdict":"OK","view":"top"}},{{"camera":"cam-side","line":"l1","station":"s1","view":"side"}}]}}"#
        );
        let entry = part.encode();
        assert_eq!(String::from_utf8_lossy(&entry), expected);
        assert_eq!(Entry::parse(&entry).unwrap().kind(), KIND);
        assert_eq!(PartVerdict::read(&entry), Some(part));
        let nicer = expected.replace("NOT_DECIDABLE", "OK");
        assert_eq!(PartVerdict::read(nicer.as_bytes()), None, "its verdict is not that of its views");
    }

    #[test]
    fn the_longest_entry_fits() {
        let name = "n".repeat(64);
        let longest = ViewRecord {
            camera: name.parse().unwrap(),
            line: name.parse().unwrap(),
            station: name.parse().unwrap(),
            view: name.parse().unwrap(),
            ..view("x", Some(((1 << 53) - 1, Verdict::NotDecidable)))
        };
        let part = PartVerdict::new(name.parse().unwrap(), vec![longest; DECISIONS_MAX], at());
        assert!(part.encode().len() <= ENTRY_BYTES_MAX, "{}", part.encode().len());
    }
}
