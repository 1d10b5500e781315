//! What a run came to: counts, times, and the truth where it is known.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use serde_json::json;

use super::words::{Answered, StageTimes, code_name};
use crate::types::Verdict;

/// Longest latency told apart: an hour.
const LATENCY_US_MAX: u64 = 3_600_000_000;

/// A stage's name and how to read its time.
type Stage = (&'static str, fn(&StageTimes) -> u64);

/// The stages of the service in the order a frame passes them.
const STAGES: [Stage; 9] = [
    ("queue", |t| t.queue_us),
    ("check", |t| t.check_us),
    ("decode", |t| t.decode_us),
    ("preprocess", |t| t.preprocess_us),
    ("infer", |t| t.infer_us),
    ("decide", |t| t.decide_us),
    ("seal", |t| t.seal_us),
    ("commit", |t| t.commit_us),
    ("total", |t| t.total_us),
];

/// Verdicts against the truth of simulated parts. Rows: good, bad. A refused part is in none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    pub good_ok: u64,
    /// Good parts sent to a person.
    pub good_review: u64,
    /// Overkill.
    pub good_not_ok: u64,
    /// Escapes.
    pub bad_ok: u64,
    pub bad_review: u64,
    pub bad_not_ok: u64,
}

impl Comparison {
    fn count(&mut self, is_bad: bool, verdict: Verdict) {
        let cell = match (is_bad, verdict) {
            (false, Verdict::Ok) => &mut self.good_ok,
            (false, Verdict::NotDecidable) => &mut self.good_review,
            (false, Verdict::NotOk) => &mut self.good_not_ok,
            (true, Verdict::Ok) => &mut self.bad_ok,
            (true, Verdict::NotDecidable) => &mut self.bad_review,
            (true, Verdict::NotOk) => &mut self.bad_not_ok,
        };
        *cell += 1;
    }

    #[must_use]
    pub fn good(&self) -> u64 {
        self.good_ok + self.good_review + self.good_not_ok
    }

    #[must_use]
    pub fn bad(&self) -> u64 {
        self.bad_ok + self.bad_review + self.bad_not_ok
    }
}

/// Everything a run of a line amounts to.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Frames taken from the source.
    pub frames: u64,
    pub bytes: u64,
    pub ok: u64,
    pub not_ok: u64,
    pub not_decidable: u64,
    /// Answers that named an entry the service already had.
    pub duplicates: u64,
    /// Final refusals, by code and reason.
    pub refusals: BTreeMap<String, u64>,
    /// Parts that never became a frame: unreadable, without a serial.
    pub unsent: u64,
    /// Frames sent again because the service asked for it.
    pub retries: u64,
    /// Streams that broke.
    pub reconnects: u64,
    /// Answers for frames nobody waits for.
    pub strays: u64,
    /// Frames whose fate is unknown: the run ended before they were answered.
    pub unanswered: u64,
    /// Why the run ended early.
    pub gave_up: Option<String>,
    pub comparison: Option<Comparison>,
    /// As the line PC saw them, in microseconds; answers with a verdict only.
    pub latency_us: Histogram<u64>,
    stages_us: Vec<Histogram<u64>>,
    started: Option<Instant>,
    elapsed: Duration,
}

impl Summary {
    pub(super) fn new() -> Self {
        let histogram =
            || Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).expect("the bounds and digits are valid constants");
        Self {
            frames: 0,
            bytes: 0,
            ok: 0,
            not_ok: 0,
            not_decidable: 0,
            duplicates: 0,
            refusals: BTreeMap::new(),
            unsent: 0,
            retries: 0,
            reconnects: 0,
            strays: 0,
            unanswered: 0,
            gave_up: None,
            comparison: None,
            latency_us: histogram(),
            stages_us: STAGES.iter().map(|_| histogram()).collect(),
            started: None,
            elapsed: Duration::ZERO,
        }
    }

    /// The clock runs from the first frame.
    pub(super) fn start(&mut self) {
        self.started.get_or_insert_with(Instant::now);
    }

    pub(super) fn end(&mut self) {
        self.elapsed = self.started.map(|at| at.elapsed()).unwrap_or_default();
    }

    pub(super) fn count(&mut self, answered: &Answered<'_>) {
        match answered.outcome {
            Ok(decision) => {
                match decision.verdict {
                    Verdict::Ok => self.ok += 1,
                    Verdict::NotOk => self.not_ok += 1,
                    Verdict::NotDecidable => self.not_decidable += 1,
                }
                self.duplicates += u64::from(decision.is_duplicate);
                self.latency_us
                    .saturating_record(u64::try_from(answered.latency.as_micros()).unwrap_or(u64::MAX).max(1));
                if let Some(stages) = &decision.stages {
                    for ((_, time), histogram) in STAGES.iter().zip(&mut self.stages_us) {
                        histogram.saturating_record(time(stages).max(1));
                    }
                }
                if let Some(is_bad) = answered.frame.is_bad {
                    self.comparison.get_or_insert_default().count(is_bad, decision.verdict);
                }
            }
            Err(refusal) => {
                let reason = format!("{} {}", code_name(refusal.code), refusal.reason);
                *self.refusals.entry(reason.trim_end().to_owned()).or_default() += 1;
            }
        }
    }

    /// Parts with a verdict.
    #[must_use]
    pub fn decided(&self) -> u64 {
        self.ok + self.not_ok + self.not_decidable
    }

    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refusals.values().sum()
    }

    /// From the first frame to the end.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.elapsed
    }

    /// Verdicts per second.
    #[must_use]
    pub fn throughput_per_s(&self) -> f64 {
        self.decided() as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// Whether every part got a verdict.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.refused() == 0 && self.unsent == 0 && self.unanswered == 0 && self.gave_up.is_none()
    }

    /// 0: every part has a verdict. 1: some have none.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        u8::from(!self.is_complete())
    }

    /// Median times of the service's stages in microseconds, in the order a frame passes them.
    pub fn stage_medians_us(&self) -> impl Iterator<Item = (&'static str, u64)> {
        STAGES
            .iter()
            .zip(&self.stages_us)
            .filter(|(_, h)| !h.is_empty())
            .map(|((name, _), h)| (*name, h.value_at_quantile(0.5)))
    }

    /// For people.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        self.write(&mut text).expect("writing to a string cannot fail");
        text
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "{} parts in {:.1} s, {:.1}/s, {:.1} MB/s",
            self.frames + self.unsent,
            self.elapsed.as_secs_f64(),
            self.throughput_per_s(),
            self.bytes as f64 / 1e6 / self.elapsed.as_secs_f64().max(1e-9)
        )?;
        writeln!(out, "  verdicts     {} OK, {} NOT_OK, {} NOT_DECIDABLE", self.ok, self.not_ok, self.not_decidable)?;
        for (reason, count) in &self.refusals {
            writeln!(out, "  no verdict   {count} refused: {reason}")?;
        }
        if self.unsent > 0 {
            writeln!(out, "  no verdict   {} not sent", self.unsent)?;
        }
        if self.unanswered > 0 {
            writeln!(out, "  no verdict   {} not answered; run again to learn what became of them", self.unanswered)?;
        }
        if self.retries + self.reconnects + self.duplicates + self.strays > 0 {
            writeln!(
                out,
                "  on the way   {} sent again on request, {} reconnects, {} already decided, {} stray answers",
                self.retries, self.reconnects, self.duplicates, self.strays
            )?;
        }
        if !self.latency_us.is_empty() {
            let ms = |quantile: f64| self.latency_us.value_at_quantile(quantile) as f64 / 1e3;
            writeln!(
                out,
                "  latency      p50 {:.1} ms, p90 {:.1} ms, p99 {:.1} ms, max {:.1} ms",
                ms(0.5),
                ms(0.9),
                ms(0.99),
                self.latency_us.max() as f64 / 1e3
            )?;
        }
        let stages: Vec<String> =
            self.stage_medians_us().map(|(name, us)| format!("{name} {:.2}", us as f64 / 1e3)).collect();
        if !stages.is_empty() {
            writeln!(out, "  in service   {} ms (medians)", stages.join(", "))?;
        }
        if let Some(c) = &self.comparison {
            let share = |part: u64, whole: u64| if whole == 0 { 0.0 } else { 100.0 * part as f64 / whole as f64 };
            writeln!(
                out,
                "  truth        {} bad parts: {} rejected, {} to review, {} escaped ({:.1} %)",
                c.bad(),
                c.bad_not_ok,
                c.bad_review,
                c.bad_ok,
                share(c.bad_ok, c.bad())
            )?;
            writeln!(
                out,
                "               {} good parts: {} passed, {} to review, {} overkill ({:.1} %)",
                c.good(),
                c.good_ok,
                c.good_review,
                c.good_not_ok,
                share(c.good_not_ok, c.good())
            )?;
        }
        if let Some(why) = &self.gave_up {
            writeln!(out, "  gave up      {why}")?;
        }
        Ok(())
    }

    /// The same facts for machines.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let ms = |quantile: f64| self.latency_us.value_at_quantile(quantile) as f64 / 1e3;
        let latency = (!self.latency_us.is_empty()).then(|| {
            json!({
                "p50": ms(0.5), "p90": ms(0.9), "p99": ms(0.99), "max": self.latency_us.max() as f64 / 1e3,
            })
        });
        let truth = self.comparison.map(|c| {
            json!({
                "good": { "ok": c.good_ok, "not_decidable": c.good_review, "not_ok": c.good_not_ok },
                "bad": { "ok": c.bad_ok, "not_decidable": c.bad_review, "not_ok": c.bad_not_ok },
            })
        });
        json!({
            "event": "summary",
            "frames": self.frames,
            "ok": self.ok,
            "not_ok": self.not_ok,
            "not_decidable": self.not_decidable,
            "refused": self.refusals,
            "unsent": self.unsent,
            "unanswered": self.unanswered,
            "retries": self.retries,
            "reconnects": self.reconnects,
            "duplicates": self.duplicates,
            "elapsed_s": self.elapsed.as_secs_f64(),
            "throughput_per_s": self.throughput_per_s(),
            "latency_ms": latency,
            "stage_median_us": self.stage_medians_us().collect::<BTreeMap<_, _>>(),
            "truth": truth,
            "gave_up": self.gave_up,
        })
    }
}
