//! `lineproof history`: what is searched for, and how what was found is shown.

use std::{
    fmt::Write as _,
    io::{self, Write},
};

use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::{
    core::lineage::private::PrivateField,
    ports::index::{Bucket, CountCell, Filter, GroupBy, Order, RecipeFilter},
    services::{history::Row, retention::Noted},
    types::{
        Blake3Digest, CameraId, EntryIndex, Instant, LineId, LotId, ProductId, RecipeRef, Score, Serial, StationId,
        Verdict,
    },
};

/// Columns whose texts are longer are cut; `--json` shows them whole.
const CELL_CHARS_MAX: usize = 40;

/// What to search for.
#[derive(Clone, Debug, Args)]
pub struct SearchArgs {
    /// From this time on: 2026-11-23, 2026-11-23T06:00:00Z, or an age such as 90s, 30m, 8h or 7d
    #[arg(long, value_name = "TIME")]
    pub from: Option<String>,
    /// Up to this time, without it
    #[arg(long, value_name = "TIME")]
    pub to: Option<String>,
    #[arg(long)]
    pub line: Option<LineId>,
    #[arg(long)]
    pub station: Option<StationId>,
    #[arg(long)]
    pub camera: Option<CameraId>,
    #[arg(long)]
    pub product: Option<ProductId>,
    /// Serial number of the part
    #[arg(long, value_name = "SERIAL")]
    pub part: Option<Serial>,
    #[arg(long)]
    pub lot: Option<LotId>,
    /// OK, NOT_OK or NOT_DECIDABLE; may be repeated
    #[arg(long)]
    pub verdict: Vec<Verdict>,
    /// `name@version`, or `blake3:…`
    #[arg(long)]
    pub recipe: Option<String>,
    #[arg(long, value_name = "SCORE")]
    pub score_min: Option<f32>,
    #[arg(long, value_name = "SCORE")]
    pub score_max: Option<f32>,
}

/// How to show what was found.
#[derive(Clone, Debug, Args)]
pub struct ShowArgs {
    /// Oldest decision first
    #[arg(long)]
    pub oldest_first: bool,
    /// Most decisions to show
    #[arg(long, default_value_t = 50, value_name = "COUNT")]
    pub limit: usize,
    /// One JSON object per line
    #[arg(long)]
    pub json: bool,
    /// Count decisions instead, per time bucket (UTC)
    #[arg(long, value_name = "BUCKET")]
    pub count: Option<CountEvery>,
    /// With --count: also apart by this
    #[arg(long, requires = "count", value_name = "WHAT")]
    pub by: Option<CountApart>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CountEvery {
    All,
    Minute,
    Hour,
    Day,
}

impl CountEvery {
    #[must_use]
    pub fn bucket(self) -> Option<Bucket> {
        match self {
            Self::All => None,
            Self::Minute => Some(Bucket::MINUTE),
            Self::Hour => Some(Bucket::HOUR),
            Self::Day => Some(Bucket::DAY),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CountApart {
    Line,
    Product,
    Recipe,
}

impl CountApart {
    #[must_use]
    pub fn group(self) -> GroupBy {
        match self {
            Self::Line => GroupBy::Line,
            Self::Product => GroupBy::Product,
            Self::Recipe => GroupBy::Recipe,
        }
    }
}

impl ShowArgs {
    #[must_use]
    pub fn order(&self) -> Order {
        if self.oldest_first { Order::OldestFirst } else { Order::NewestFirst }
    }
}

impl SearchArgs {
    /// The filter these arguments mean at the time `now`.
    ///
    /// # Errors
    /// A sentence that names the argument.
    pub fn filter(&self, now: Instant) -> Result<Filter, String> {
        let time = |name: &str, text: &Option<String>| {
            text.as_deref().map(|text| parse_time(text, now).map_err(|why| format!("--{name}: {why}"))).transpose()
        };
        let score = |name: &str, value: Option<f32>| {
            value.map(|value| Score::new(value).map_err(|why| format!("--{name}: {why}"))).transpose()
        };
        Ok(Filter {
            from: time("from", &self.from)?,
            to: time("to", &self.to)?,
            line: self.line.clone(),
            station: self.station.clone(),
            camera: self.camera.clone(),
            product: self.product.clone(),
            serial: self.part.clone(),
            lot: self.lot.clone(),
            verdicts: self.verdict.clone(),
            recipe: self.recipe.as_deref().map(parse_recipe).transpose()?,
            score_min: score("score-min", self.score_min)?,
            score_max: score("score-max", self.score_max)?,
            ..Filter::default()
        })
    }
}

/// A point in time, a day that begins at midnight UTC, or an age.
///
/// # Errors
/// A sentence that shows the forms.
pub fn parse_time(text: &str, now: Instant) -> Result<Instant, String> {
    let age = || {
        let unit = match text.chars().last()? {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            'd' => 86_400,
            _ => return None,
        };
        let count: i64 = text[..text.len() - 1].parse().ok().filter(|count| *count >= 0)?;
        let nanos = count.checked_mul(unit)?.checked_mul(1_000_000_000)?;
        Instant::from_unix_nanos(now.unix_nanos().checked_sub(nanos)?).ok()
    };
    text.parse()
        .ok()
        .or_else(|| format!("{text}T00:00:00Z").parse().ok())
        .or_else(age)
        .ok_or_else(|| format!("{text:?} is no time; use 2026-11-23, 2026-11-23T06:00:00Z or an age such as 8h"))
}

fn parse_recipe(text: &str) -> Result<RecipeFilter, String> {
    if text.starts_with(Blake3Digest::PREFIX) {
        return text.parse().map(RecipeFilter::Digest).map_err(|why| format!("--recipe: {why}"));
    }
    text.parse::<RecipeRef>().map(RecipeFilter::Name).map_err(|why| format!("--recipe: {why}"))
}

/// A decision as people and scripts see it, wherever it came from.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Shown {
    pub entry_index: u64,
    /// When it was decided, RFC 3339 in UTC.
    pub time: String,
    pub line: String,
    pub station: String,
    pub camera: String,
    pub frame_id: String,
    pub frame_counter: u64,
    pub product: String,
    /// Absent when there is none, or it was erased, or may not be seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lot: Option<String>,
    /// The private values that were destroyed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub erased: Vec<ShownErased>,
    pub verdict: String,
    pub score: f32,
    pub reasons: Vec<String>,
    pub recipe: String,
}

/// A private value that is gone, and the entry that says so.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ShownErased {
    pub field: String,
    pub entry_index: u64,
    pub time: String,
    pub rule: String,
}

impl ShownErased {
    fn of((field, (index, entry)): &(PrivateField, Noted)) -> Self {
        let (field, time) = (field.name().to_owned(), entry.time.to_string());
        Self { field, entry_index: index.0, time, rule: entry.rule.clone() }
    }

    /// In plain words.
    #[must_use]
    pub fn words(&self) -> String {
        let day = self.time.get(..10).unwrap_or(&self.time);
        format!("erased on {day}, entry {}: {}", self.entry_index, without_controls(&self.rule))
    }
}

impl Shown {
    /// `None` for an entry that is no decision.
    #[must_use]
    pub fn of(row: &Row) -> Option<Self> {
        let decision = row.decision()?;
        Some(Self {
            entry_index: row.index.0,
            time: decision.time.to_string(),
            line: decision.line.to_string(),
            station: decision.station.to_string(),
            camera: decision.camera.to_string(),
            frame_id: decision.frame.id.to_string(),
            frame_counter: decision.frame.counter,
            product: decision.product.to_string(),
            serial: row.opened(PrivateField::Serial).map(str::to_owned),
            lot: row.opened(PrivateField::Lot).map(str::to_owned),
            erased: row.erased.iter().map(ShownErased::of).collect(),
            verdict: decision.verdict.name().to_owned(),
            score: decision.scores.decision.get(),
            reasons: decision.reasons.clone(),
            recipe: decision.recipe.name.to_string(),
        })
    }
}

impl Shown {
    fn has_erased(&self, field: &str) -> bool {
        self.erased.iter().any(|erased| erased.field == field)
    }
}

/// One JSON object per line.
///
/// # Errors
/// When `out` does not take it.
pub fn write_json<T: Serialize>(out: &mut dyn Write, rows: &[T]) -> io::Result<()> {
    for row in rows {
        serde_json::to_writer(&mut *out, row)?;
        writeln!(out)?;
    }
    Ok(())
}

/// The index follows the checkpoints, which come within a second.
const NOTHING: &str = "no decision matches; those of the last second are not searched yet";

/// A table for people, in colour where `colour` says so.
///
/// # Errors
/// When `out` does not take it.
pub fn write_table(out: &mut dyn Write, rows: &[Shown], colour: bool) -> io::Result<()> {
    if rows.is_empty() {
        return writeln!(out, "{NOTHING}");
    }
    let head = ["ENTRY", "TIME (UTC)", "VERDICT", "SCORE", "WHERE", "PRODUCT", "SERIAL", "RECIPE", "WHY"];
    let cells = |row: &Shown| {
        [
            EntryIndex(row.entry_index).to_string(),
            // To the millisecond; the evidence has nanoseconds.
            row.time.get(..23).unwrap_or(&row.time).replace('T', " "),
            row.verdict.clone(),
            format!("{:.4}", row.score),
            format!("{}/{}/{}", row.line, row.station, row.camera),
            row.product.clone(),
            row.serial.clone().unwrap_or_else(|| if row.has_erased("serial") { "erased" } else { "-" }.into()),
            row.recipe.clone(),
            row.reasons.join(", "),
        ]
    };
    write_columns(out, &head, &rows.iter().map(cells).collect::<Vec<_>>(), |column, cell| match (column, cell) {
        (2, "OK") if colour => Some("\x1b[32m"),
        (2, "NOT_OK") if colour => Some("\x1b[31m"),
        (2, "NOT_DECIDABLE") if colour => Some("\x1b[33m"),
        _ => None,
    })
}

/// Counts as scripts see them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ShownCount {
    /// Start of the bucket; absent when all time is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    pub ok: u64,
    pub not_ok: u64,
    pub not_decidable: u64,
}

impl From<&CountCell> for ShownCount {
    fn from(cell: &CountCell) -> Self {
        let start = |nanos: i64| Instant::from_unix_nanos(nanos.max(0)).expect("not below 0").to_string();
        Self {
            from: cell.start.map(start),
            group: cell.group.clone(),
            ok: cell.counts.ok,
            not_ok: cell.counts.not_ok,
            not_decidable: cell.counts.not_decidable,
        }
    }
}

/// A table of counts for people.
///
/// # Errors
/// When `out` does not take it.
pub fn write_counts(out: &mut dyn Write, rows: &[ShownCount]) -> io::Result<()> {
    if rows.is_empty() {
        return writeln!(out, "{NOTHING}");
    }
    let head = ["FROM (UTC)", "GROUP", "OK", "NOT_OK", "NOT_DECIDABLE", "NOT_OK SHARE"];
    let cells = |row: &ShownCount| {
        let total = row.ok + row.not_ok + row.not_decidable;
        [
            row.from.as_ref().map_or_else(|| "all".into(), |from| from.get(..16).unwrap_or(from).replace('T', " ")),
            row.group.clone().unwrap_or_else(|| "-".into()),
            row.ok.to_string(),
            row.not_ok.to_string(),
            row.not_decidable.to_string(),
            format!("{:.2} %", 100.0 * row.not_ok as f64 / total.max(1) as f64),
        ]
    };
    write_columns(out, &head, &rows.iter().map(cells).collect::<Vec<_>>(), |_, _| None)
}

/// Left-aligned columns, each as wide as its longest cell.
fn write_columns<const N: usize>(
    out: &mut dyn Write,
    head: &[&str; N],
    rows: &[[String; N]],
    colour: impl Fn(usize, &str) -> Option<&'static str>,
) -> io::Result<()> {
    let rows: Vec<[String; N]> = rows.iter().map(|row| std::array::from_fn(|column| printable(&row[column]))).collect();
    let widths: [usize; N] = std::array::from_fn(|column| {
        let longest = rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        longest.max(head[column].len())
    });
    let mut write_row = |cells: [&str; N], is_head: bool| {
        let mut line = String::new();
        for (column, (cell, width)) in cells.into_iter().zip(widths).enumerate() {
            let pad = width - cell.chars().count();
            match colour(column, cell).filter(|_| !is_head) {
                Some(code) => write!(line, "{code}{cell}\x1b[0m{:pad$}  ", ""),
                None => write!(line, "{cell}{:pad$}  ", ""),
            }
            .expect("writing to memory does not fail");
        }
        writeln!(out, "{}", line.trim_end())
    };
    write_row(*head, true)?;
    rows.iter().try_for_each(|row| write_row(std::array::from_fn(|column| row[column].as_str()), false))
}

/// What a terminal shows and does not obey.
fn without_controls(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// The same, at most [`CELL_CHARS_MAX`] characters.
fn printable(text: &str) -> String {
    let mut cell: String = without_controls(text).chars().take(CELL_CHARS_MAX).collect();
    if text.chars().count() > CELL_CHARS_MAX {
        cell.pop();
        cell.push('…');
    }
    cell
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown() -> Shown {
        Shown {
            entry_index: 12,
            time: "2026-11-23T21:43:48.123456789Z".into(),
            line: "line-1".into(),
            station: "station-1".into(),
            camera: "cam-1".into(),
            frame_id: "f12".into(),
            frame_counter: 12,
            product: "flange".into(),
            serial: Some("SN-\u{1b}[2J12".into()),
            lot: None,
            erased: Vec::new(),
            verdict: "NOT_OK".into(),
            score: 0.75,
            reasons: vec!["reject:scratch".into()],
            recipe: "machined-surface@1.0.0".into(),
        }
    }

    #[test]
    fn the_table_is_aligned_and_obeys_no_serial_number() {
        let mut out = Vec::new();
        let second = Shown { entry_index: 1_234_567, verdict: "OK".into(), reasons: vec![], serial: None, ..shown() };
        write_table(&mut out, &[shown(), second], false).unwrap();
        insta::assert_snapshot!(String::from_utf8(out).unwrap(), @r"
        ENTRY    TIME (UTC)               VERDICT  SCORE   WHERE                   PRODUCT  SERIAL     RECIPE                  WHY
        12       2026-11-23 21:43:48.123  NOT_OK   0.7500  line-1/station-1/cam-1  flange   SN-?[2J12  machined-surface@1.0.0  reject:scratch
        1234567  2026-11-23 21:43:48.123  OK       0.7500  line-1/station-1/cam-1  flange   -          machined-surface@1.0.0
        ");
    }

    #[test]
    fn counts_show_the_share_of_bad_parts() {
        let count = |group: &str, ok, not_ok| ShownCount {
            from: Some("2026-11-23T21:00:00.000000000Z".into()),
            group: Some(group.into()),
            ok,
            not_ok,
            not_decidable: 0,
        };
        let mut out = Vec::new();
        write_counts(&mut out, &[count("line-1", 98, 2), count("line-2", 0, 0)]).unwrap();
        insta::assert_snapshot!(String::from_utf8(out).unwrap(), @r"
        FROM (UTC)        GROUP   OK  NOT_OK  NOT_DECIDABLE  NOT_OK SHARE
        2026-11-23 21:00  line-1  98  2       0              2.00 %
        2026-11-23 21:00  line-2  0   0       0              0.00 %
        ");
    }

    #[test]
    fn a_json_line_leaves_out_what_is_not_there() {
        let mut out = Vec::new();
        write_json(&mut out, &[Shown { serial: None, ..shown() }]).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.ends_with("}\n") && !text.contains("serial") && text.contains(r#""score":0.75"#), "{text}");
    }

    #[test]
    fn times_are_points_days_or_ages() {
        let now: Instant = "2026-11-23T12:00:00Z".parse().unwrap();
        assert_eq!(parse_time("2026-11-23", now), Ok("2026-11-23T00:00:00Z".parse().unwrap()));
        assert_eq!(parse_time("90m", now), Ok("2026-11-23T10:30:00Z".parse().unwrap()));
        for wrong in ["", "d", "-1d", "yesterday", "99999999999999999999d", "9999999999d", "5ä"] {
            assert!(parse_time(wrong, now).is_err(), "{wrong}");
        }
    }
}
