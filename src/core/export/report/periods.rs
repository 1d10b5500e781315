//! The part of the report that holds what the line announced against what the log has.

use serde::Serialize;

use super::{Words, number, plural, range};
use crate::core::{
    export::{
        Lang, REPORT_LIST_MAX,
        balance::{Balances, Period},
        words,
    },
    lineage::period::Incomplete,
};

/// What the report says of the periods the line closed.
#[derive(Serialize)]
pub(super) struct Periods {
    lead: String,
    /// Something is missing.
    warn: bool,
    rows: Vec<PeriodRow>,
    cut: String,
    notes: Vec<String>,
}

#[derive(Serialize)]
struct PeriodRow {
    period: String,
    place: String,
    counters: String,
    parts: String,
    decided: String,
    gaps: String,
    lost: String,
    missing: String,
    /// What is missing, in words.
    what: String,
    index: String,
}

impl Words {
    pub(super) fn periods(self, balances: &Balances<'_>) -> Periods {
        let totals = &balances.totals;
        let incomplete = balances.incomplete().len() as u64;
        let lead = match (self.lang, totals.periods, incomplete) {
            (Lang::En, 0, _) => "No closed period counts these frames. How many frames and parts there were is therefore not stated here by anybody but the log itself.".into(),
            (Lang::De, 0, _) => "Kein abgeschlossener Zeitraum zählt diese Bilder. Wie viele Bilder und Teile es gab, sagt hier also niemand außer dem Protokoll selbst.".into(),
            (Lang::En, periods, 0) => format!(
                "The line closed {} and announced {}. Each of them is decided, noted as a gap, or called lost by the line itself: nothing is missing.",
                plural(periods, "period", "periods"), plural(totals.frames, "frame", "frames")
            ),
            (Lang::De, periods, 0) => format!(
                "Die Linie hat {} abgeschlossen und {} gemeldet. Jedes ist entschieden, als Lücke vermerkt oder von der Linie selbst verloren genannt: Es fehlt nichts.",
                plural(periods, "Zeitraum", "Zeiträume"), plural(totals.frames, "Bild", "Bilder")
            ),
            (Lang::En, periods, incomplete) => format!(
                "NOT COMPLETE: the line closed {}, and in {incomplete} of them something is missing: {} announced without a trace, {} that counted parts should have given. Parts may have passed uninspected.",
                plural(periods, "period", "periods"), plural(totals.missing, "frame", "frames"), plural(totals.short, "frame", "frames")
            ),
            (Lang::De, periods, incomplete) => format!(
                "NICHT VOLLSTÄNDIG: Die Linie hat {} abgeschlossen, und in {incomplete} davon fehlt etwas: {} ohne jede Spur, {}, die gezählte Teile hätten ergeben müssen. Teile können ungeprüft durchgelaufen sein.",
                plural(periods, "Zeitraum", "Zeiträume"), plural(totals.missing, "gemeldetes Bild", "gemeldete Bilder"), plural(totals.short, "Bild", "Bilder")
            ),
        };
        Periods {
            lead,
            warn: incomplete > 0,
            rows: balances.periods.iter().take(REPORT_LIST_MAX).map(|period| self.period(period)).collect(),
            cut: self.periods_cut(totals.periods),
            notes: if totals.periods == 0 { Vec::new() } else { self.period_notes(balances) },
        }
    }

    fn period(self, period: &Period<'_>) -> PeriodRow {
        let (close, announced) = (period.close, &period.close.announced);
        let parts = announced.parts.map_or_else(
            || "–".into(),
            |parts| match (announced.unseen, self.lang) {
                (None, _) => number(parts),
                (Some(unseen), Lang::En) => format!("{} ({} unseen)", number(parts), number(unseen)),
                (Some(unseen), Lang::De) => format!("{} ({} ohne Bild)", number(parts), number(unseen)),
            },
        );
        PeriodRow {
            period: announced.period.to_string(),
            place: format!("{} · {} · {}", close.line, close.station, close.camera),
            counters: range(announced.first, announced.last),
            parts,
            decided: number(close.decided),
            gaps: number(close.gaps),
            lost: number(close.lost_frames),
            missing: number(close.missing_frames.saturating_add(announced.frames_short())),
            what: Incomplete::of(period.index, close).map_or_else(String::new, |it| words::missing(&it, self.lang)),
            index: number(period.index),
        }
    }

    fn periods_cut(self, periods: u64) -> String {
        let (shown, all) = (REPORT_LIST_MAX, number(periods));
        match self.lang {
            _ if periods <= REPORT_LIST_MAX as u64 => String::new(),
            Lang::En => format!("The first {shown} of {all}; entries.jsonl has them all."),
            Lang::De => format!("Die ersten {shown} von {all}; alle stehen in entries.jsonl."),
        }
    }

    fn period_notes(self, balances: &Balances<'_>) -> Vec<String> {
        let stated = balances.totals.periods - balances.recounted;
        let recounted = match (self.lang, stated) {
            (Lang::En, 0) => "Every number was counted again from the entries in this export.".into(),
            (Lang::De, 0) => "Jede Zahl wurde aus den Einträgen dieses Exports nachgezählt.".into(),
            (Lang::En, stated) => format!(
                "For {} the numbers are those the log states: this is a selection and does not hold every frame of them, so it cannot show by itself that they add up. An export of the whole line without time limits, or the whole log, does.",
                plural(stated, "period", "periods")
            ),
            (Lang::De, stated) => format!(
                "Für {} stehen hier die Zahlen des Protokolls: Dies ist eine Auswahl und enthält nicht jedes Bild davon; dass sie aufgehen, kann sie allein nicht zeigen. Ein Export der ganzen Linie ohne Zeitgrenzen oder das ganze Protokoll kann es.",
                plural(stated, "Zeitraum", "Zeiträume")
            ),
        };
        let outside = match (self.lang, balances.outside) {
            (_, 0) => return vec![recounted],
            (Lang::En, outside) => {
                format!(
                    "{} in this export in none of these periods.",
                    plural(outside, "decision lies", "decisions lie")
                )
            }
            (Lang::De, outside) => format!(
                "{} in diesem Export zu keinem dieser Zeiträume.",
                plural(outside, "Entscheidung gehört", "Entscheidungen gehören")
            ),
        };
        vec![recounted, outside]
    }
}
