//! One row per decision, for spreadsheets and for machines (`docs/spec/export.md`, Tables).

use std::io::Write as _;

use serde::Serialize;

use crate::{
    core::lineage::entry::{ClockState, Decision, LabelRecord},
    types::{Instant, Score, Sha256Digest, Verdict},
};

/// A decision with its place in the log and what was opened of it.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    pub index: u64,
    pub leaf_hash: Sha256Digest,
    pub decision: &'a Decision,
    pub serial: Option<&'a str>,
    pub lot: Option<&'a str>,
}

/// The two spreadsheets that people have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// RFC 4180: comma, decimal point.
    Comma,
    /// Excel in German and most of Europe: semicolon, decimal comma.
    Semicolon,
}

impl Dialect {
    fn separator(self) -> u8 {
        match self {
            Self::Comma => b',',
            Self::Semicolon => b';',
        }
    }
}

const COLUMNS: [&str; 30] = [
    "index",
    "time_utc",
    "verdict",
    "product",
    "serial",
    "lot",
    "line",
    "station",
    "camera",
    "frame_counter",
    "trigger",
    "frame_id",
    "captured_utc",
    "score",
    "deciding_label",
    "comparator",
    "review_threshold",
    "reject_threshold",
    "reasons",
    "recipe",
    "recipe_digest",
    "model_version",
    "model_digest",
    "calibration_digest",
    "image_digest",
    "image_archive",
    "clock",
    "runtime",
    "software",
    "leaf_hash",
];

/// The first defect label with the largest score: the one that decided.
#[must_use]
pub fn deciding_label(decision: &Decision) -> Option<&LabelRecord> {
    let defects = decision.scores.labels.iter().filter(|label| label.reject.is_some());
    defects.reduce(|best, label| if label.score > best.score { label } else { best })
}

/// The clock's state as entries write it.
#[must_use]
pub fn clock_name(clock: ClockState) -> &'static str {
    match clock {
        ClockState::Synchronised => "synchronised",
        ClockState::Free => "free",
        ClockState::Stepped => "stepped",
    }
}

/// Writes the byte order mark that Excel needs and the header row.
pub fn csv_header(out: &mut Vec<u8>, dialect: Dialect) {
    out.extend("\u{feff}".as_bytes());
    let mut cells = Cells { out, dialect, first: true };
    COLUMNS.iter().for_each(|column| cells.text(column));
    cells.end();
}

/// Writes one row.
pub fn csv_row(out: &mut Vec<u8>, row: &Row<'_>, dialect: Dialect) {
    let Row { index, leaf_hash, decision, serial, lot } = row;
    let label = deciding_label(decision);
    let mut cells = Cells { out, dialect, first: true };
    cells.number(index);
    cells.number(decision.time);
    cells.text(decision.verdict.name());
    cells.text(decision.product.as_str());
    cells.text(serial.unwrap_or_default());
    cells.text(lot.unwrap_or_default());
    cells.text(decision.line.as_str());
    cells.text(decision.station.as_str());
    cells.text(decision.camera.as_str());
    cells.number(decision.frame.counter);
    cells.optional(decision.frame.trigger);
    cells.text(decision.frame.id.as_str());
    cells.optional(decision.captured);
    cells.score(Some(decision.scores.decision));
    cells.text(label.map_or("", |label| &label.label));
    // A comparator is text that begins with `>`, which no spreadsheet runs.
    cells.text(&decision.scores.comparator);
    cells.score(label.and_then(|label| label.review));
    cells.score(label.and_then(|label| label.reject));
    cells.text(&decision.reasons.join(" "));
    cells.text(decision.recipe.name.as_str());
    cells.number(decision.recipe.digest);
    cells.text(&decision.model.version);
    cells.number(decision.model.digest);
    cells.optional(decision.calibration);
    cells.number(decision.image.encoded);
    cells.text(&decision.image.archive);
    cells.text(clock_name(decision.clock));
    cells.text(&runtime(decision));
    cells.text(&decision.software);
    cells.number(leaf_hash);
    cells.end();
}

fn runtime(decision: &Decision) -> String {
    format!("onnxruntime {} {}", decision.runtime.version, decision.runtime.provider)
}

/// Writes the cells of one row.
struct Cells<'o> {
    out: &'o mut Vec<u8>,
    dialect: Dialect,
    first: bool,
}

impl Cells<'_> {
    fn separate(&mut self) {
        if !std::mem::replace(&mut self.first, false) {
            self.out.push(self.dialect.separator());
        }
    }

    /// A number, digest or time: letters, digits, colon, point, minus, and nothing to quote or to run.
    fn number(&mut self, value: impl std::fmt::Display) {
        self.separate();
        write!(self.out, "{value}").expect("writing to memory does not fail");
    }

    fn optional(&mut self, value: Option<impl std::fmt::Display>) {
        match value {
            Some(value) => self.number(value),
            None => self.separate(),
        }
    }

    fn score(&mut self, score: Option<Score>) {
        self.separate();
        let start = self.out.len();
        if let Some(score) = score {
            write!(self.out, "{}", score.get()).expect("writing to memory does not fail");
        }
        if self.dialect == Dialect::Semicolon {
            self.out[start..].iter_mut().filter(|byte| **byte == b'.').for_each(|byte| *byte = b',');
        }
    }

    fn text(&mut self, text: &str) {
        self.separate();
        // Spreadsheets run texts that begin like this; see OWASP, CSV injection. The apostrophe is in the list so that
        // taking one away always gives the value back.
        let runs = text.starts_with(['=', '+', '-', '@', '\t', '\r', '\'', '＝', '＋', '－', '＠']);
        let separator = self.dialect.separator();
        let quote = text.bytes().any(|byte| byte == separator || matches!(byte, b'"' | b'\r' | b'\n'));
        if quote {
            self.out.push(b'"');
        }
        if runs {
            self.out.push(b'\'');
        }
        for byte in text.bytes() {
            if byte == b'"' {
                self.out.push(b'"');
            }
            self.out.push(byte);
        }
        if quote {
            self.out.push(b'"');
        }
    }

    fn end(self) {
        self.out.extend(b"\r\n");
    }
}

/// Members in alphabetical order, as everywhere in this format.
#[derive(Serialize)]
struct Json<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    calibration_digest: Option<crate::types::Blake3Digest>,
    camera: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    captured_utc: Option<Instant>,
    clock: &'static str,
    comparator: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    deciding_label: Option<&'a str>,
    frame_counter: u64,
    frame_id: &'a str,
    image_archive: &'a str,
    image_digest: crate::types::Blake3Digest,
    index: u64,
    labels: Vec<JsonLabel<'a>>,
    leaf_hash: Sha256Digest,
    line: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    lot: Option<&'a str>,
    model_digest: crate::types::Blake3Digest,
    model_version: &'a str,
    product: &'a str,
    reasons: &'a [String],
    recipe: &'a str,
    recipe_digest: crate::types::Blake3Digest,
    #[serde(skip_serializing_if = "Option::is_none")]
    reject_threshold: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    review_threshold: Option<f32>,
    runtime: String,
    score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    serial: Option<&'a str>,
    software: &'a str,
    station: &'a str,
    time_utc: Instant,
    #[serde(skip_serializing_if = "Option::is_none")]
    trigger: Option<u64>,
    verdict: Verdict,
}

#[derive(Serialize)]
struct JsonLabel<'a> {
    label: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reject: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    review: Option<f32>,
    score: f32,
}

/// Writes one line of `decisions.jsonl`.
pub fn json_row(out: &mut Vec<u8>, row: &Row<'_>) {
    let Row { index, leaf_hash, decision, serial, lot } = *row;
    let label = deciding_label(decision);
    let labels = decision.scores.labels.iter().map(|label| JsonLabel {
        label: &label.label,
        reject: label.reject.map(Score::get),
        review: label.review.map(Score::get),
        score: label.score.get(),
    });
    let json = Json {
        calibration_digest: decision.calibration,
        camera: decision.camera.as_str(),
        captured_utc: decision.captured,
        clock: clock_name(decision.clock),
        comparator: &decision.scores.comparator,
        deciding_label: label.map(|label| label.label.as_str()),
        frame_counter: decision.frame.counter,
        frame_id: decision.frame.id.as_str(),
        image_archive: &decision.image.archive,
        image_digest: decision.image.encoded,
        index,
        labels: labels.collect(),
        leaf_hash,
        line: decision.line.as_str(),
        lot,
        model_digest: decision.model.digest,
        model_version: &decision.model.version,
        product: decision.product.as_str(),
        reasons: &decision.reasons,
        recipe: decision.recipe.name.as_str(),
        recipe_digest: decision.recipe.digest,
        reject_threshold: label.and_then(|label| label.reject).map(Score::get),
        review_threshold: label.and_then(|label| label.review).map(Score::get),
        runtime: runtime(decision),
        score: decision.scores.decision.get(),
        serial,
        software: &decision.software,
        station: decision.station.as_str(),
        time_utc: decision.time,
        trigger: decision.frame.trigger,
        verdict: decision.verdict,
    };
    serde_json::to_writer(&mut *out, &json).expect("a row has string keys and finite numbers");
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::lineage::entry::tests::decision;

    fn row(decision: &Decision) -> Row<'_> {
        Row { index: 5, leaf_hash: Sha256Digest::of(b"leaf"), decision, serial: Some("=1+1;\"x\""), lot: Some("'A") }
    }

    #[test]
    fn nothing_in_a_spreadsheet_runs_and_every_value_comes_back() {
        let decision = decision(7);
        let mut out = Vec::new();
        csv_row(&mut out, &row(&decision), Dialect::Comma);
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains(r#",flange,"'=1+1;""x""",''A,line-1,"#), "{text}");
        assert!(text.contains(",0.75,scratch,>=,0.3,0.6,reject:scratch,"), "{text}");
        assert!(text.ends_with("\r\n"));
        let mut german = Vec::new();
        csv_row(&mut german, &row(&decision), Dialect::Semicolon);
        assert!(String::from_utf8(german).unwrap().contains(";0,75;scratch;>=;0,3;0,6;reject:scratch;"));
    }

    #[test]
    fn header_and_rows_have_the_same_columns() {
        let decision = Decision { captured: None, calibration: None, ..decision(7) };
        let row = Row { serial: None, lot: None, ..row(&decision) };
        let (mut header, mut line) = (Vec::new(), Vec::new());
        csv_header(&mut header, Dialect::Comma);
        csv_row(&mut line, &row, Dialect::Comma);
        let columns = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b',').count();
        assert_eq!((columns(&header), columns(&line)), (29, 29));
    }

    #[test]
    fn json_rows_have_sorted_members() {
        let decision = decision(7);
        let mut out = Vec::new();
        json_row(&mut out, &row(&decision));
        let text = String::from_utf8(out).unwrap();
        let value: std::collections::BTreeMap<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
        let mut rest = text.as_str();
        for key in value.keys() {
            let found = rest.find(&format!("\"{key}\":"));
            rest = &rest[found.unwrap_or_else(|| panic!("{key} is out of order"))..];
        }
        assert_eq!(value["score"], serde_json::json!(0.75));
    }
}
