//! OPC 40001-101 ResultEvaluationEnum, without UNDEFINED: no verdict is an error, never a value.

use serde::{Deserialize, Serialize};

/// What the inspection says of one frame. Ordered from best to worst for "worst wins":
/// `Ok < NotDecidable < NotOk`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Verdict {
    #[serde(rename = "OK")]
    Ok,
    /// A person decides.
    #[serde(rename = "NOT_DECIDABLE")]
    NotDecidable,
    #[serde(rename = "NOT_OK")]
    NotOk,
}

impl Verdict {
    pub const ALL: [Self; 3] = [Self::Ok, Self::NotDecidable, Self::NotOk];

    /// The standard's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::NotDecidable => "NOT_DECIDABLE",
            Self::NotOk => "NOT_OK",
        }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

impl std::str::FromStr for Verdict {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|verdict| verdict.name().eq_ignore_ascii_case(text))
            .ok_or_else(|| format!("{text:?} is no verdict; use OK, NOT_OK or NOT_DECIDABLE"))
    }
}
