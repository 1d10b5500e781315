//! `report.html`: the export for people, in English and German, in one file that needs nothing else.

mod periods;

use minijinja::{AutoEscape, Environment, Value, context, value::Serde};
use serde::Serialize;

use super::{
    Lang, REPORT_ALL_ROWS_MAX, REPORT_LIST_MAX, REPORT_ROWS_MAX,
    balance::Balances,
    keys::VerifierKey,
    manifest::{Absent, CheckpointFacts, Selection},
    summary::{ErasureRow, PartRow, Place, RecipeUse, Summary},
};
use crate::{
    core::lineage::private::PrivateField,
    types::{Instant, Score},
};

const SHELL: &str = include_str!("report.html");
const ARTICLE: &str = include_str!("article.html");

/// What the report says besides the entries' own facts.
#[derive(Debug)]
pub struct Context<'a> {
    pub selection: &'a Selection,
    pub checkpoint: &'a CheckpointFacts,
    /// The signed note.
    pub note: &'a str,
    pub key: &'a VerifierKey,
    pub absent: &'a Absent,
    pub software: &'a str,
}

/// Renders the report. The same arguments give the same bytes.
#[must_use]
pub fn render(summary: &Summary, balances: &Balances<'_>, context: &Context<'_>) -> String {
    // German stands first, because CSS can hide what follows the language that was asked for, not what precedes it.
    let article = |lang| article(summary, balances, context, lang);
    let articles: String = [Lang::De, Lang::En].into_iter().map(article).collect();
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.add_template("report", SHELL).expect("the report's template is well-formed");
    let title = format!("Inspection report · {}", context.checkpoint.origin);
    let values = context! { articles, title, software => context.software };
    let template = environment.get_template("report").expect("it was added above");
    template.render(values).expect("the report's template uses only what it is given")
}

fn article(summary: &Summary, balances: &Balances<'_>, context: &Context<'_>, lang: Lang) -> String {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.add_function("t", move |en: String, de: String| lang.pick(en, de));
    environment.add_template("article", ARTICLE).expect("the article's template is well-formed");
    let values = context! {
        r => Value::from(Serde(Words { lang }.article(summary, balances, context))),
        vkey => context.key.line(),
        fingerprint => context.key.fingerprint(),
        checkpoint => context.note,
    };
    let template = environment.get_template("article").expect("it was added above");
    template.render(values).expect("the article's template uses only what it is given")
}

/// One language of the report, formatted.
#[derive(Serialize)]
struct Article {
    lang: &'static str,
    en: bool,
    products: String,
    lead: String,
    decisions: String,
    tiles: Vec<Tile>,
    shares: Vec<Share>,
    facts: Vec<(String, String)>,
    places: Vec<PlaceRow>,
    holes_matter: bool,
    holes_note: String,
    chart: Option<Chart>,
    attention: Vec<Part>,
    attention_cut: String,
    parts: Vec<Part>,
    gaps_lead: String,
    gaps: Vec<GapLine>,
    gaps_cut: String,
    periods: periods::Periods,
    recipes: Vec<RecipeBlock>,
    events: String,
    erasures_lead: String,
    erasures: Vec<ErasureLine>,
    absent: String,
    proves: Vec<String>,
    proves_not: Vec<String>,
    checkpoint_note: String,
    footer: String,
}

#[derive(Serialize)]
struct Tile {
    name: &'static str,
    colour: &'static str,
    count: String,
    share: String,
    meaning: &'static str,
}

#[derive(Serialize)]
struct Share {
    x: f64,
    w: f64,
    fill: &'static str,
}

#[derive(Serialize)]
struct PlaceRow {
    line: String,
    station: String,
    camera: String,
    decisions: String,
    gap_frames: String,
    counters: String,
    holes: String,
}

#[derive(Serialize)]
struct Chart {
    label: String,
    caption: String,
    first: String,
    last: String,
    grid: Vec<Grid>,
    bars: Vec<Bar>,
}

#[derive(Serialize)]
struct Grid {
    y: i64,
    text: String,
}

#[derive(Serialize)]
struct Bar {
    x: f64,
    w: f64,
    title: String,
    parts: Vec<BarPart>,
}

#[derive(Serialize)]
struct BarPart {
    y: f64,
    h: f64,
    fill: &'static str,
}

#[derive(Serialize)]
struct Part {
    part: String,
    place: String,
    verdict: &'static str,
    found: String,
    bar: Option<ScoreBar>,
    score: String,
    reject: String,
    date: String,
    time: String,
    index: String,
}

#[derive(Serialize)]
struct ScoreBar {
    label: String,
    review: f64,
    review_w: f64,
    reject: f64,
    reject_w: f64,
    score: f64,
}

#[derive(Serialize)]
struct GapLine {
    time: String,
    #[serde(rename = "where")]
    place: String,
    reason: &'static str,
    count: String,
    counters: String,
    index: String,
}

#[derive(Serialize)]
struct ErasureLine {
    time: String,
    rule: String,
    what: String,
    entries: String,
    index: String,
}

#[derive(Serialize)]
struct RecipeBlock {
    name: String,
    decisions: String,
    labels: Vec<(String, String, String)>,
    recipe: String,
    model: String,
    model_version: String,
    calibration: Option<String>,
}

const OK_FILL: &str = "#a9cdb9";
const NOT_DECIDABLE_FILL: &str = "#dfa03a";
const NOT_OK_FILL: &str = "#bf4138";
/// The chart's drawing area, in units of its view box.
const CHART_LEFT: f64 = 46.0;
const CHART_WIDTH: f64 = 854.0;
const CHART_FLOOR: f64 = 160.0;
const CHART_HEIGHT: f64 = 146.0;
/// Entry indexes of an erasure that are written out.
const RANGES_CHARS_MAX: usize = 60;
/// Width of a score bar.
const BAR_WIDTH: f64 = 152.0;

/// What differs between the parts of a report.
#[derive(Clone, Copy)]
struct Vary {
    product: bool,
    line: bool,
    camera: bool,
}

impl Vary {
    fn of(summary: &Summary) -> Self {
        let mut places = summary.places.keys();
        let first = places.next();
        let differs = |same: fn(&Place, &Place) -> bool| {
            first.is_some_and(|first| summary.places.keys().any(|place| !same(first, place)))
        };
        Self {
            product: summary.products.len() > 1,
            line: differs(|a, b| a.line == b.line),
            camera: differs(|a, b| a.camera == b.camera && a.station == b.station),
        }
    }
}

/// Writes texts in one language.
#[derive(Clone, Copy)]
struct Words {
    lang: Lang,
}

impl Words {
    fn t(self, en: &'static str, de: &'static str) -> &'static str {
        self.lang.pick(en, de)
    }

    fn article(self, summary: &Summary, balances: &Balances<'_>, context: &Context<'_>) -> Article {
        let counts = &summary.counts;
        let vary = Vary::of(summary);
        let every_frame = context.selection.takes_every_frame();
        let all_shown = counts.decisions <= REPORT_ALL_ROWS_MAX as u64;
        Article {
            lang: self.t("en", "de"),
            en: self.lang == Lang::En,
            products: short_list(summary.products.iter(), 4),
            lead: self.lead(summary),
            decisions: number(counts.decisions),
            tiles: self.tiles(summary),
            shares: shares(summary),
            facts: self.facts(summary, context),
            places: summary
                .places
                .iter()
                .take(REPORT_LIST_MAX)
                .map(|(place, frames)| self.place(place, frames))
                .collect(),
            holes_matter: every_frame,
            holes_note: self.holes_note(every_frame).into(),
            chart: self.chart(summary),
            attention: summary.attention.iter().map(|row| self.part(row, summary, vary)).collect(),
            attention_cut: self.attention_cut(summary),
            // With only parts that did not pass, the table above has them all.
            parts: if all_shown && counts.ok > 0 {
                summary.parts.iter().map(|row| self.part(row, summary, vary)).collect()
            } else {
                Vec::new()
            },
            gaps_lead: self.gaps_lead(summary),
            gaps: summary.gaps.iter().map(|gap| self.gap(gap)).collect(),
            gaps_cut: self.gaps_cut(summary),
            periods: self.periods(balances),
            recipes: summary.recipes.iter().map(|(digest, recipe)| self.recipe(&digest.to_string(), recipe)).collect(),
            events: self.events(summary),
            erasures_lead: self.erasures_lead(summary),
            erasures: summary.erasures.iter().map(|row| self.erasure(row)).collect(),
            absent: self.absent(context.absent),
            proves: self.proves(),
            proves_not: self.proves_not(),
            checkpoint_note: self.checkpoint_note(context.checkpoint),
            footer: self.footer(context),
        }
    }

    fn lead(self, summary: &Summary) -> String {
        let counts = &summary.counts;
        let Some((first, last)) = summary.span else {
            return self.t("This export holds no decision.", "Dieser Export enthält keine Entscheidung.").into();
        };
        let images = number(counts.decisions);
        let (first_text, last_text) = (self.minute(first), self.minute(last));
        let when = match (self.lang, first_text == last_text) {
            (Lang::En, true) => format!("On {first_text} UTC"),
            (Lang::En, false) => format!("Between {first_text} and {last_text} UTC"),
            (Lang::De, true) => format!("Am {first_text} UTC"),
            (Lang::De, false) => format!("Zwischen {first_text} und {last_text} UTC"),
        };
        let (ok, no, nd) = (number(counts.ok), number(counts.not_ok), number(counts.not_decidable));
        let gaps = match (self.lang, counts.gap_frames) {
            (Lang::En, 0) => "For no frame of these cameras is a decision noted as missing.".into(),
            (Lang::De, 0) => "Für kein Bild dieser Kameras ist eine fehlende Entscheidung vermerkt.".into(),
            (Lang::En, frames) => {
                format!("For {} more, no decision was made; they are listed with the reason.", frames_en(frames))
            }
            (Lang::De, frames) => {
                format!("Für {} wurde keine Entscheidung getroffen; sie sind mit Grund aufgeführt.", frames_de(frames))
            }
        };
        match (self.lang, counts.decisions) {
            (Lang::En, 1) => format!("{when}, one image of a part was inspected. {gaps}"),
            (Lang::De, 1) => format!("{when} wurde ein Bild eines Teils geprüft. {gaps}"),
            (Lang::En, _) => format!(
                "{when}, {images} images of parts were inspected: {ok} OK, {no} rejected, {nd} left to a person to decide. {gaps}"
            ),
            (Lang::De, _) => format!(
                "{when} wurden {images} Bilder von Teilen geprüft: {ok} OK, {no} aussortiert, {nd} einem Menschen zur Entscheidung vorgelegt. {gaps}"
            ),
        }
    }

    fn tiles(self, summary: &Summary) -> Vec<Tile> {
        let counts = &summary.counts;
        let tile = |name, colour, count, meaning| Tile {
            name,
            colour,
            count: number(count),
            share: self.percent(count, counts.decisions),
            meaning,
        };
        vec![
            tile("OK", "ok", counts.ok, self.t("passed", "bestanden")),
            tile("NOT_OK", "no", counts.not_ok, self.t("rejected", "aussortiert")),
            tile("NOT_DECIDABLE", "nd", counts.not_decidable, self.t("a person decides", "ein Mensch entscheidet")),
        ]
    }

    fn percent(self, count: u64, of: u64) -> String {
        if of == 0 {
            return "–".into();
        }
        let percent = 100.0 * count as f64 / of as f64;
        // A few among many must not read as none.
        let text = if count > 0 && percent < 0.01 { "< 0.01".into() } else { format!("{percent:.2}") };
        format!("{}\u{202f}%", self.decimal(text))
    }

    fn decimal(self, text: String) -> String {
        match self.lang {
            Lang::En => text,
            Lang::De => text.replace('.', ","),
        }
    }

    fn facts(self, summary: &Summary, context: &Context<'_>) -> Vec<(String, String)> {
        let selection = context.selection;
        let mut facts: Vec<(String, String)> = Vec::new();
        let mut fact = |name: &str, value: Option<String>| {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                facts.push((name.into(), value));
            }
        };
        let open = self.t("open", "offen");
        let period = (selection.from.is_some() || selection.to.is_some()).then(|| {
            let time = |time: Option<Instant>| time.map_or_else(|| open.into(), |time| self.second(time));
            format!("{} – {} UTC", time(selection.from), time(selection.to))
        });
        let asked: Vec<String> = [
            period,
            selection.part.as_ref().map(|part| format!("{} {part}", self.t("part", "Teil"))),
            selection.lot.as_ref().map(|lot| format!("{} {lot}", self.t("lot", "Los"))),
            selection.product.as_ref().map(|product| format!("{} {product}", self.t("product", "Produkt"))),
            selection.line.as_ref().map(|line| format!("{} {line}", self.t("line", "Linie"))),
            selection.station.as_ref().map(|station| format!("{} {station}", self.t("station", "Station"))),
            selection.camera.as_ref().map(|camera| format!("{} {camera}", self.t("camera", "Kamera"))),
            selection.recipe.as_ref().map(|recipe| format!("{} {recipe}", self.t("recipe", "Rezept"))),
            selection.score_min.map(|score| format!("{} ≥ {}", self.t("score", "Wert"), self.score(score, None))),
            selection.score_max.map(|score| format!("{} ≤ {}", self.t("score", "Wert"), self.score(score, None))),
            (!selection.verdicts.is_empty())
                .then(|| selection.verdicts.iter().map(|verdict| verdict.name()).collect::<Vec<_>>().join(", ")),
        ]
        .into_iter()
        .flatten()
        .collect();
        let everything = self.t("everything in the log", "alles im Protokoll");
        fact(
            self.t("Asked for", "Angefragt"),
            Some(if asked.is_empty() { everything.into() } else { asked.join(" · ") }),
        );
        fact(
            self.t("First and last decision", "Erste und letzte Entscheidung"),
            summary.span.map(|(first, last)| format!("{} – {} UTC", self.second(first), self.second(last))),
        );
        fact(self.t("Products", "Produkte"), Some(short_list(summary.products.iter(), 12)));
        fact(self.t("Recipes", "Rezepte"), Some(short_list(summary.recipes.values().map(|recipe| &recipe.name), 12)));
        fact(self.t("Runtime", "Laufzeit"), Some(short_list(summary.runtimes.iter(), 6)));
        fact(self.t("Inspected by", "Geprüft mit"), Some(short_list(summary.software.iter(), 6)));
        fact(self.t("Clock", "Uhr"), Some(self.clock(summary)));
        fact(self.t("Log", "Protokoll"), Some(context.checkpoint.origin.clone()));
        facts
    }

    fn clock(self, summary: &Summary) -> String {
        let states = summary.clocks.iter().map(|(state, count)| {
            let words = match *state {
                "synchronised" => self.t("synchronised", "synchronisiert"),
                "stepped" => self.t("set back by hand or by a time service", "zurückgestellt"),
                _ => self.t("not known to be synchronised", "nicht nachweislich synchronisiert"),
            };
            if summary.clocks.len() == 1 { words.to_owned() } else { format!("{words}: {}", number(*count)) }
        });
        states.collect::<Vec<_>>().join(", ")
    }

    fn place(self, place: &Place, frames: &super::summary::Frames) -> PlaceRow {
        let counters = frames.counters();
        PlaceRow {
            line: place.line.clone(),
            station: place.station.clone(),
            camera: place.camera.clone(),
            decisions: number(frames.decisions),
            gap_frames: number(frames.gap_frames),
            counters: counters.map_or_else(|| "–".into(), |(first, last, _)| range(first, last)),
            holes: counters.map_or_else(|| "–".into(), |(_, _, holes)| number(holes)),
        }
    }

    fn holes_note(self, every_frame: bool) -> &'static str {
        if every_frame {
            self.t(
                "Cameras count their frames. “Unexplained” are counters between the first and the last that appear neither as a decision nor as a noted gap. Zero means that nothing is missing in between.",
                "Kameras zählen ihre Bilder. „Ungeklärt“ sind Zählerstände zwischen dem ersten und dem letzten, zu denen es weder eine Entscheidung noch einen Vermerk gibt. Null heißt: Dazwischen fehlt nichts.",
            )
        } else {
            self.t(
                "This is a selection by part, lot, product, recipe, score or verdict: other frames of the same cameras exist and are not part of it, so counters have holes here.",
                "Dies ist eine Auswahl nach Teil, Los, Produkt, Rezept, Wert oder Urteil: Es gibt weitere Bilder derselben Kameras, die nicht dazugehören; die Zähler haben hier deshalb Lücken.",
            )
        }
    }

    fn chart(self, summary: &Summary) -> Option<Chart> {
        let bars = summary.timeline.bars();
        if bars.len() < 2 {
            return None;
        }
        let most = bars.iter().map(|(_, counts)| counts.iter().sum::<u64>()).max()?.max(1);
        let top = nice_ceiling(most);
        let scale = CHART_HEIGHT / top as f64;
        let step = CHART_WIDTH / bars.len() as f64;
        let width = (step * 0.82).min(42.0);
        let drawn = bars.iter().enumerate().map(|(at, (start, counts))| {
            let mut floor = CHART_FLOOR;
            let [ok, nd, no] = *counts;
            let stack = [(ok, OK_FILL), (nd, NOT_DECIDABLE_FILL), (no, NOT_OK_FILL)];
            let parts = stack.into_iter().filter(|(count, _)| *count > 0).map(|(count, fill)| {
                // Half a unit keeps a single reject among thousands visible.
                let height = (count as f64 * scale).max(if fill == OK_FILL { 0.0 } else { 1.4 });
                floor -= height;
                BarPart { y: tenth(floor), h: tenth(height), fill }
            });
            Bar {
                parts: parts.collect(),
                x: tenth(CHART_LEFT + step * at as f64 + (step - width) / 2.0),
                w: tenth(width),
                title: format!("{}: OK {ok}, NOT_DECIDABLE {nd}, NOT_OK {no}", self.second(*start)),
            }
        });
        let grid = [0, 1, 2].map(|part| {
            let value = top / 2 * part;
            Grid { y: (CHART_FLOOR - value as f64 * scale).round() as i64, text: number(value) }
        });
        let (first, last) = (bars.first()?.0, bars.last()?.0);
        let width = self.duration(summary.timeline.seconds());
        Some(Chart {
            label: match self.lang {
                Lang::En => {
                    format!("Decisions over time, {} bars of {width} each, at most {} in one", bars.len(), number(most))
                }
                Lang::De => format!(
                    "Entscheidungen im Zeitverlauf, {} Balken je {width}, höchstens {} in einem",
                    bars.len(),
                    number(most)
                ),
            },
            caption: match self.lang {
                Lang::En => format!("decisions per {width}, UTC"),
                Lang::De => format!("Entscheidungen je {width}, UTC"),
            },
            first: self.second(first),
            last: self.second(last),
            grid: grid.into(),
            bars: drawn.collect(),
        })
    }

    fn duration(self, seconds: i64) -> String {
        let (count, en, de) = match seconds {
            1..60 => (seconds, ["second", "seconds"], ["Sekunde", "Sekunden"]),
            60..3_600 => (seconds / 60, ["minute", "minutes"], ["Minute", "Minuten"]),
            3_600..86_400 => (seconds / 3_600, ["hour", "hours"], ["Stunde", "Stunden"]),
            86_400..604_800 => (seconds / 86_400, ["day", "days"], ["Tag", "Tage"]),
            _ => (seconds / 604_800, ["week", "weeks"], ["Woche", "Wochen"]),
        };
        let plural = usize::from(count != 1);
        let unit = self.t(en[plural], de[plural]);
        if count == 1 { unit.into() } else { format!("{count} {unit}") }
    }

    fn part(self, row: &PartRow, summary: &Summary, vary: Vary) -> Part {
        let gone = |field| summary.erased(row.index, field).map(|erasure| number(erasure.index));
        let lot = row.lot.as_ref().map(|lot| format!("{} {lot}", self.t("lot", "Los")));
        let lot = lot.or_else(|| {
            let entry = gone(PrivateField::Lot)?;
            Some(format!("{} {entry}", self.t("lot erased, entry", "Los gelöscht, Eintrag")))
        });
        let serial_gone = gone(PrivateField::Serial).filter(|_| row.serial.is_none()).map(|entry| {
            format!("{} {entry}", self.t("serial number erased, entry", "Seriennummer gelöscht, Eintrag"))
        });
        let frame = format!("{} {}", self.t("frame", "Bild"), number(row.counter));
        let (part, second) = match &row.serial {
            Some(serial) => (serial.clone(), lot),
            None => (frame, lot),
        };
        // What is the same for all parts stands at the top of the report and need not be said in each row.
        let place = [
            serial_gone,
            second,
            vary.product.then(|| row.product.clone()),
            vary.line.then(|| row.line.clone()),
            vary.camera.then(|| row.camera.clone()),
        ];
        let place: Vec<String> = place.into_iter().flatten().collect();
        let (date, time) =
            self.second(row.time).split_once(' ').map(|(date, time)| (date.into(), time.into())).unwrap_or_default();
        Part {
            part,
            place: place.join(" · "),
            verdict: row.verdict.name(),
            found: self.found(row),
            bar: row.thresholds.map(|(review, reject)| self.bar(row.score, review, reject)),
            score: self.score(row.score, row.thresholds),
            reject: row.thresholds.map_or_else(String::new, |(_, reject)| {
                format!("{} {}", self.t("limit", "Grenze"), self.score(reject, None))
            }),
            date,
            time,
            index: number(row.index),
        }
    }

    /// What was found, the deciding label first, or why a person decides.
    fn found(self, row: &PartRow) -> String {
        let mut reasons: Vec<&str> = row.reasons.iter().map(String::as_str).collect();
        let is_deciding = |reason: &str| reason.split_once(':').map(|(_, label)| label) == row.label.as_deref();
        reasons.sort_by_key(|reason| !is_deciding(reason));
        let found: Vec<&str> = reasons.into_iter().map(|reason| self.reason(reason)).collect();
        found.join(", ")
    }

    /// A reason code in words; a label speaks for itself.
    fn reason(self, code: &str) -> &str {
        match code.split_once(':') {
            Some(("reject" | "review", label)) => label,
            Some(("quality", "mean_min")) => self.t("image too dark", "Bild zu dunkel"),
            Some(("quality", "mean_max")) => self.t("image too bright", "Bild zu hell"),
            Some(("quality", "saturated_share_max")) => self.t("image overexposed", "Bild überbelichtet"),
            Some(("quality", "focus_min")) => self.t("image not sharp", "Bild unscharf"),
            None if code == "top_score_min" => self.t("model unsure", "Modell unsicher"),
            _ => code,
        }
    }

    fn bar(self, score: Score, review: Score, reject: Score) -> ScoreBar {
        let (s, v, j) = (f64::from(score.get()), f64::from(review.get()), f64::from(reject.get()));
        // Most scores live in 0..1; others get the room they need.
        let low = s.min(v).min(0.0);
        let high = if low == 0.0 && s.max(j) <= 1.0 { 1.0 } else { s.max(j) + 0.1 * (s.max(j) - low) };
        let at = |value: f64| {
            if high > low { tenth(((value - low) / (high - low)).clamp(0.0, 1.0) * BAR_WIDTH) } else { 0.0 }
        };
        let (both, review_text, reject_text) =
            (Some((review, reject)), self.score(review, None), self.score(reject, None));
        let score_text = self.score(score, both);
        ScoreBar {
            label: match self.lang {
                Lang::En => {
                    format!("score {score_text}; a person decides from {review_text}; rejected from {reject_text}")
                }
                Lang::De => {
                    format!("Wert {score_text}; ein Mensch entscheidet ab {review_text}; aussortiert ab {reject_text}")
                }
            },
            review: at(v),
            review_w: tenth(at(j) - at(v)),
            reject: at(j),
            reject_w: tenth(BAR_WIDTH - at(j)),
            score: tenth((at(s) - 1.5).clamp(0.0, BAR_WIDTH - 3.0)),
        }
    }

    /// Four decimals, unless they would make a score look equal to a threshold that it is not equal to.
    fn score(self, score: Score, thresholds: Option<(Score, Score)>) -> String {
        let short = |score: Score| {
            let text = format!("{:.4}", score.get());
            let text = text.trim_end_matches('0').trim_end_matches('.').to_owned();
            if text == "-0" { "0".into() } else { text }
        };
        let looks_like = |threshold: Score| threshold != score && short(threshold) == short(score);
        let misleading = thresholds.is_some_and(|(review, reject)| looks_like(review) || looks_like(reject));
        let tiny = score != Score::ZERO && short(score) == "0";
        self.decimal(if misleading || tiny { format!("{:?}", score.get()) } else { short(score) })
    }

    fn attention_cut(self, summary: &Summary) -> String {
        let all = summary.counts.not_ok + summary.counts.not_decidable;
        if all <= REPORT_ROWS_MAX as u64 {
            return String::new();
        }
        let (shown, all) = (number(REPORT_ROWS_MAX as u64), number(all));
        match self.lang {
            Lang::En => format!(
                "The first {shown} of {all} are shown here. decisions.csv in the same ZIP file has every decision."
            ),
            Lang::De => format!(
                "Hier stehen die ersten {shown} von {all}. Alle Entscheidungen stehen in decisions.de.csv in derselben ZIP-Datei."
            ),
        }
    }

    fn gaps_lead(self, summary: &Summary) -> String {
        let counts = &summary.counts;
        match (self.lang, counts.gaps) {
            (Lang::En, 0) => "None is noted. A lost, refused or failed frame would be noted in the log as a gap: the absence of a verdict never counts as OK.".into(),
            (Lang::De, 0) => "Keines ist vermerkt. Ein verlorenes, abgewiesenes oder fehlgeschlagenes Bild würde im Protokoll als Lücke vermerkt: Ein fehlendes Urteil gilt nie als OK.".into(),
            (Lang::En, gaps) => format!(
                "{} in {} were not decided. The absence of a verdict never counts as OK: these parts were not passed by this inspection.",
                capital(&frames_en(counts.gap_frames)), plural(gaps, "noted gap", "noted gaps")
            ),
            (Lang::De, gaps) => format!(
                "Zu {} in {} gibt es kein Urteil. Ein fehlendes Urteil gilt nie als OK: Diese Teile hat die Prüfung nicht bestehen lassen.",
                frames_de(counts.gap_frames), plural(gaps, "vermerkten Lücke", "vermerkten Lücken")
            ),
        }
    }

    fn gap(self, gap: &super::summary::GapRow) -> GapLine {
        GapLine {
            time: self.second(gap.time),
            place: format!("{} · {} · {}", gap.line, gap.station, gap.camera),
            reason: match gap.reason {
                "counter_jump" => self.t("frames never arrived (counter jump)", "Bilder kamen nie an (Zählersprung)"),
                "overload" => self.t("refused: overload", "abgewiesen: Überlast"),
                "deadline" => self.t("too late to be inspected", "zu spät für eine Prüfung"),
                "digest_mismatch" => self.t("damaged in transfer", "bei der Übertragung beschädigt"),
                "bad_frame" => self.t("not a readable image", "kein lesbares Bild"),
                "inference_fault" => self.t("the model failed", "Fehler im Modell"),
                "no_recipe" => self.t("no recipe for it", "kein Rezept dafür"),
                other => other,
            },
            count: number(gap.count),
            counters: gap.counters.map_or_else(|| "–".into(), |(first, last)| range(first, last)),
            index: number(gap.index),
        }
    }

    fn gaps_cut(self, summary: &Summary) -> String {
        if summary.counts.gaps <= REPORT_LIST_MAX as u64 {
            return String::new();
        }
        let (shown, all) = (REPORT_LIST_MAX, number(summary.counts.gaps));
        match self.lang {
            Lang::En => format!("The first {shown} of {all}; entries.jsonl has them all."),
            Lang::De => format!("Die ersten {shown} von {all}; alle stehen in entries.jsonl."),
        }
    }

    fn recipe(self, digest: &str, recipe: &RecipeUse) -> RecipeBlock {
        let bound = |threshold: &Option<Score>| match threshold {
            Some(threshold) => format!("{} {}", comparator(&recipe.comparator), self.score(*threshold, None)),
            None => self.t("no defect", "kein Fehler").into(),
        };
        RecipeBlock {
            name: recipe.name.clone(),
            decisions: match self.lang {
                Lang::En => plural(recipe.decisions, "decision", "decisions"),
                Lang::De => plural(recipe.decisions, "Entscheidung", "Entscheidungen"),
            },
            labels: recipe
                .labels
                .iter()
                .map(|(label, review, reject)| (label.clone(), bound(review), bound(reject)))
                .collect(),
            recipe: digest.into(),
            model: recipe.model.to_string(),
            model_version: recipe.model_version.clone(),
            calibration: recipe.calibration.map(|digest| digest.to_string()),
        }
    }

    fn events(self, summary: &Summary) -> String {
        let rows = summary.recipe_events.iter().take(12).map(|row| {
            let event = match row.event {
                "registered" => self.t("registered", "angelegt"),
                "approved" => self.t("approved", "freigegeben"),
                "activated" => self.t("activated", "in Betrieb genommen"),
                "retired" => self.t("retired", "außer Betrieb genommen"),
                other => other,
            };
            format!("{} {event} {} UTC", row.name, self.second(row.time))
        });
        rows.collect::<Vec<_>>().join(" · ")
    }

    fn erasures_lead(self, summary: &Summary) -> String {
        if summary.erasures.is_empty() {
            return String::new();
        }
        self.t(
            "The plant has destroyed private values of some of these decisions, each with the random number that proved it. The decisions themselves are unchanged, and every proof of them stays valid. What was given away before is not affected.",
            "Das Werk hat private Angaben zu einigen dieser Entscheidungen vernichtet, jeweils samt der Zufallszahl, die sie belegte. Die Entscheidungen selbst sind unverändert, und jeder Beweis bleibt gültig. Was vorher herausgegeben wurde, ist davon nicht berührt.",
        )
        .into()
    }

    fn erasure(self, row: &ErasureRow) -> ErasureLine {
        let destroyed = row.entry.destroyed.unwrap_or_default();
        let what = [
            (destroyed.serial, ["serial number", "serial numbers"], ["Seriennummer", "Seriennummern"]),
            (destroyed.lot, ["lot", "lots"], ["Los", "Lose"]),
            (
                destroyed.client,
                ["name of who asked", "names of who asked"],
                ["Name eines Anfragers", "Namen von Anfragern"],
            ),
        ];
        let what = what.into_iter().filter_map(|(count, en, de)| {
            let [one, many] = self.lang.pick(en, de);
            Some(plural(count?, one, many))
        });
        ErasureLine {
            time: self.second(row.entry.time),
            rule: row.entry.rule.clone(),
            what: what.collect::<Vec<_>>().join(", "),
            entries: row.entry.entries.as_ref().map(|entries| shortened(&entries.to_string())).unwrap_or_default(),
            index: number(row.index),
        }
    }

    fn absent(self, absent: &Absent) -> String {
        let texts = absent.recipes.len() + absent.calibrations.len();
        match (self.lang, texts) {
            (_, 0) => String::new(),
            (Lang::En, _) => format!(
                "The plant could not enclose {texts} of the recipe and calibration texts that the decisions name. Their digests stand above; ask for the texts."
            ),
            (Lang::De, _) => format!(
                "Das Werk konnte {texts} der in den Entscheidungen genannten Rezept- und Kalibriertexte nicht beilegen. Ihre Digests stehen oben; die Texte lassen sich anfordern."
            ),
        }
    }

    fn proves(self) -> Vec<String> {
        [
            self.t(
                "These decisions stand in the plant's log with exactly these scores, thresholds, models and times.",
                "Diese Entscheidungen stehen mit genau diesen Werten, Schwellen, Modellen und Zeiten im Protokoll des Werks.",
            ),
            self.t(
                "None of them was changed since the plant signed the checkpoint below; changing, removing or inserting a single one would break the signature.",
                "Keine wurde geändert, seit das Werk den Checkpoint unten signiert hat; eine einzige geänderte, entfernte oder eingefügte Entscheidung würde die Signatur brechen.",
            ),
            self.t(
                "Serial numbers and lots shown here belong to these decisions.",
                "Die hier gezeigten Seriennummern und Lose gehören zu diesen Entscheidungen.",
            ),
            self.t(
                "Each verdict follows from its scores and thresholds, or the entry says why a person decides.",
                "Jedes Urteil folgt aus seinen Werten und Schwellen, oder der Eintrag sagt, warum ein Mensch entscheidet.",
            ),
        ]
        .map(str::to_owned)
        .into()
    }

    fn proves_not(self) -> Vec<String> {
        [
            self.t(
                "That the selection is complete, beyond what closed periods above show. Certainty gives the whole log, which the plant can hand over without giving away private data.",
                "Dass die Auswahl vollständig ist, soweit abgeschlossene Zeiträume oben es nicht zeigen. Gewissheit gibt das ganze Protokoll, das das Werk ohne Preisgabe privater Daten aushändigen kann.",
            ),
            self.t(
                "That the model judged well. The model card says how it was measured.",
                "Dass das Modell gut geurteilt hat. Wie es gemessen wurde, sagt die Model Card.",
            ),
            self.t(
                "That the clock was right, or that the camera saw the part that carries the serial number.",
                "Dass die Uhr richtig ging oder die Kamera das Teil mit dieser Seriennummer sah.",
            ),
            self.t(
                "That there is no second log. Compare checkpoints with another auditor, or ask for a witness's signature.",
                "Dass es kein zweites Protokoll gibt. Checkpoints mit anderen Prüfern vergleichen oder die Signatur eines Zeugen (witness) verlangen.",
            ),
        ]
        .map(str::to_owned)
        .into()
    }

    fn checkpoint_note(self, checkpoint: &CheckpointFacts) -> String {
        let size = number(checkpoint.size);
        match self.lang {
            Lang::En => format!(
                "One line of hash for the whole log of {size} entries, signed by the plant. Keep it: whoever holds it will notice if the log is ever rewritten."
            ),
            Lang::De => format!(
                "Eine Zeile Prüfsumme für das ganze Protokoll mit {size} Einträgen, vom Werk signiert. Bitte aufbewahren: Wer sie hat, bemerkt, wenn das Protokoll je umgeschrieben wird."
            ),
        }
    }

    fn footer(self, context: &Context<'_>) -> String {
        let (software, size) = (context.software, number(context.checkpoint.size));
        match self.lang {
            Lang::En => format!(
                "Written by {software} over the log {} at {size} entries. Contains no images. Times are UTC.",
                context.checkpoint.origin
            ),
            Lang::De => format!(
                "Erstellt von {software} aus dem Protokoll {} mit {size} Einträgen. Enthält keine Bilder. Zeiten in UTC.",
                context.checkpoint.origin
            ),
        }
    }

    fn second(self, time: Instant) -> String {
        self.date(&time.to_string()[..19])
    }

    fn minute(self, time: Instant) -> String {
        self.date(&time.to_string()[..16])
    }

    /// `2026-11-23T21:43:48` as people of the language write it.
    fn date(self, text: &str) -> String {
        let (date, time) = text.split_once('T').expect("times are written with a T");
        match self.lang {
            Lang::En => format!("{date} {time}"),
            Lang::De => format!("{}.{}.{} {time}", &date[8..10], &date[5..7], &date[..4]),
        }
    }
}

fn shares(summary: &Summary) -> Vec<Share> {
    let counts = &summary.counts;
    if counts.decisions == 0 {
        return Vec::new();
    }
    let mut x = 0.0;
    let parts = [(counts.ok, OK_FILL), (counts.not_ok, NOT_OK_FILL), (counts.not_decidable, NOT_DECIDABLE_FILL)];
    let shares = parts.into_iter().filter(|(count, _)| *count > 0).map(|(count, fill)| {
        let w = 1000.0 * count as f64 / counts.decisions as f64;
        let share = Share { x: tenth(x), w: tenth(w), fill };
        x += w;
        share
    });
    shares.collect()
}

fn comparator(text: &str) -> &str {
    match text {
        ">=" => "≥",
        other => other,
    }
}

/// Digits in groups of three, with the narrow space that both languages read.
fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::with_capacity(digits.len() + 8);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) && digits.len() > 4 {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

fn range(first: u64, last: u64) -> String {
    if first == last { number(first) } else { format!("{} – {}", number(first), number(last)) }
}

fn plural(count: u64, one: &str, many: &str) -> String {
    format!("{} {}", number(count), if count == 1 { one } else { many })
}

fn frames_en(count: u64) -> String {
    plural(count, "frame", "frames")
}

/// In the dative and accusative alike: "1 Bild", "3 Bilder(n)" is avoided by "Bildaufnahmen".
fn frames_de(count: u64) -> String {
    plural(count, "Bildaufnahme", "Bildaufnahmen")
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

fn short_list<'a>(names: impl ExactSizeIterator<Item = &'a String>, most: usize) -> String {
    let more = names.len().saturating_sub(most);
    let mut text = names.take(most).map(String::as_str).collect::<Vec<_>>().join(", ");
    if more > 0 {
        text.push_str(&format!(" + {more}"));
    }
    text
}

/// Entry indexes, as many as fit a cell.
fn shortened(ranges: &str) -> String {
    match ranges.char_indices().nth(RANGES_CHARS_MAX) {
        None => ranges.to_owned(),
        Some((at, _)) => {
            let whole = ranges[..at].rfind(' ').unwrap_or(at);
            format!("{} …", &ranges[..whole])
        }
    }
}

/// The next even number of the form 2, 4, 6, 8, 10, 20, … that a grid can be labelled with.
fn nice_ceiling(value: u64) -> u64 {
    let mut unit = 1;
    while value > unit * 10 {
        unit *= 10;
    }
    let steps = value.div_ceil(unit);
    let even = steps + steps % 2;
    if unit == 1 { even.max(2) } else { steps.max(1) * unit }
}

/// One decimal, so that drawings stay short and equal.
fn tenth(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(
            [0, 999, 1234, 12345, 1_234_567].map(number),
            ["0", "999", "1234", "12\u{202f}345", "1\u{202f}234\u{202f}567"]
        );
        assert_eq!([1, 3, 9, 11, 95, 210, 1000].map(nice_ceiling), [2, 4, 10, 20, 100, 300, 1000]);
    }

    #[test]
    fn a_score_near_its_threshold_does_not_look_equal_to_it() {
        let score = |value| Score::new(value).unwrap();
        let words = Words { lang: Lang::De };
        assert_eq!(words.score(score(0.75), None), "0,75");
        assert_eq!(words.score(score(0.599_999_9), Some((score(0.3), score(0.6)))), "0,5999999");
        assert_eq!(words.score(score(0.6), Some((score(0.3), score(0.6)))), "0,6");
    }
}
