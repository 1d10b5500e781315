//! Exports: what a plant hands to an auditor, and how the auditor checks it. The format is `docs/spec/export.md`.
//!
//! [`writer`] makes one, [`verify`] checks one; both agree on everything through the modules between them.

pub mod balance;
pub mod canonical;
pub mod challenge;
pub mod consistency;
pub mod keys;
pub mod manifest;
pub mod multiproof;
pub mod report;
pub mod summary;
pub mod table;
pub mod verify;
pub mod words;
pub mod writer;
pub mod zip;

#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;

/// Files in one export.
pub const FILES_MAX: usize = 512;
/// Entries in one export. A writer keeps 40 bytes of each, and its openings, in memory: about 150 MiB at most.
pub const ENTRIES_MAX: usize = 500_000;
/// Bytes of one unpacked file, and of the whole ZIP.
pub const FILE_BYTES_MAX: u64 = 2 << 30;
/// Bytes of one recipe or calibration text.
pub const RECIPE_BYTES_MAX: usize = 64 * 1024;
/// Bytes of one model card.
pub const MODEL_CARD_BYTES_MAX: usize = 256 * 1024;
pub const MANIFEST_BYTES_MAX: u64 = 1 << 20;
/// Parts that the report lists because they did not pass.
pub const REPORT_ROWS_MAX: usize = 300;
/// Decisions up to which the report lists every part.
pub const REPORT_ALL_ROWS_MAX: usize = 40;
/// Period closes in one export: each is held against the decisions and gaps it counts.
pub const PERIODS_MAX: usize = 10_000;
/// Gaps, places, periods and recipe events that the report lists.
pub const REPORT_LIST_MAX: usize = 100;

/// How tables, report and README are rendered. Whoever changes a byte of them counts it up; the golden export's test
/// says so.
macro_rules! rendering {
    () => {
        ", rendering 3"
    };
}

/// What wrote an export.
pub const SOFTWARE: &str = concat!("lineproof ", env!("CARGO_PKG_VERSION"), rendering!());

/// Whether this release renders the same tables and report of the same entries as the one that calls itself `software`.
#[must_use]
pub fn renders_as(software: &str) -> bool {
    software.ends_with(rendering!())
}

pub const README: &str = "README.txt";
pub const CALIBRATIONS: &str = "calibrations/";
pub const CHECKPOINT: &str = "checkpoint";
pub const DECISIONS_CSV: &str = "decisions.csv";
pub const DECISIONS_DE_CSV: &str = "decisions.de.csv";
pub const DECISIONS_JSONL: &str = "decisions.jsonl";
pub const ENTRIES_INDEX: &str = "entries.index.txt";
pub const ENTRIES: &str = "entries.jsonl";
pub const ENTRIES_PROOF: &str = "entries.proof.txt";
pub const LOG_VKEY: &str = "log.vkey";
pub const MODEL_CARDS: &str = "model-cards/";
pub const PRIVATE: &str = "private.jsonl";
pub const RECIPES: &str = "recipes/";
pub const REPORT: &str = "report.html";
/// Exports before rendering 3 have none.
pub const PAGE: &str = "verify.html";
pub const MANIFEST: &str = "manifest.dsse.json";

/// Longest page in an export.
pub const PAGE_BYTES_MAX: u64 = 1 << 20;
/// A page that checks exports and passports in a browser. `clients/verify-html` builds it from `docs/spec`, not from this.
pub const VERIFY_PAGE: &str = include_str!("verify.html");

/// The text of [`README`].
pub const README_TEXT: &str = include_str!("readme.txt");

/// The languages people read reports and findings in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lang {
    #[default]
    En,
    De,
}

impl Lang {
    /// The one of two texts that is in this language.
    pub fn pick<T>(self, en: T, de: T) -> T {
        match self {
            Self::En => en,
            Self::De => de,
        }
    }
}

impl std::str::FromStr for Lang {
    type Err = String;

    /// `de`, `en`, or a locale such as `de_DE.UTF-8`.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split(['_', '.', '-', '@']).next().unwrap_or_default() {
            "de" | "DE" => Ok(Self::De),
            "en" | "EN" | "C" | "POSIX" => Ok(Self::En),
            _ => Err(format!("{text:?} is no language this release speaks; use en or de")),
        }
    }
}
