//! What a person, or a program, at the line PC sees.

use serde_json::json;

use super::{
    progress::Progress,
    summary::Summary,
    words::{Answered, LineEvent, code_name},
};

/// How much is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// A line per part and a summary.
    Text,
    /// JSON, one object per line.
    Json,
    /// The summary only.
    Quiet,
}

pub struct Show {
    style: Style,
    progress: Progress,
    answered: u64,
}

impl Show {
    pub fn new(style: Style, total: Option<u64>) -> Self {
        Self { style, progress: Progress::new(total, "parts"), answered: 0 }
    }

    pub fn event(&mut self, event: &LineEvent<'_>) {
        match self.style {
            Style::Json => self.progress.line(&json_line(event).to_string()),
            Style::Text => self.text(event),
            Style::Quiet => {}
        }
        if matches!(event, LineEvent::Answered(_) | LineEvent::Unsent(_)) {
            self.answered += 1;
            self.progress.at(self.answered);
        }
    }

    fn text(&self, event: &LineEvent<'_>) {
        match event {
            LineEvent::Answered(answered) => self.progress.line(&verdict_line(answered)),
            LineEvent::Unsent(unsent) => self.progress.line(&format!("not sent: {}: {}", unsent.name, unsent.reason)),
            LineEvent::Retrying { frame, refusal, after } => self.progress.note(&format!(
                "{}: {} {}; again in {after:.1?}",
                frame.frame_id,
                code_name(refusal.code),
                refusal.reason
            )),
            LineEvent::Reconnecting { why, after, pending } => {
                self.progress.note(&format!("connection lost ({why}); {pending} parts wait, again in {after:.1?}"));
            }
        }
    }

    pub fn summary(&self, summary: &Summary) {
        self.progress.finish();
        match self.style {
            Style::Json => println!("{}", summary.to_json()),
            Style::Text | Style::Quiet => print!("{}", summary.to_text()),
        }
    }
}

fn verdict_line(answered: &Answered<'_>) -> String {
    let Answered { frame, outcome, latency, .. } = answered;
    let ms = latency.as_secs_f64() * 1e3;
    match outcome {
        Ok(decision) => {
            let label = decision.top_label().map(|top| top.label.as_str()).unwrap_or_default();
            let again = if decision.is_duplicate { "  already decided" } else { "" };
            format!(
                "{:>7}  {:<24} {:<13} {:>6.3} {label:<10} {ms:>8.1} ms  entry {}{again}",
                frame.frame_counter, frame.serial, decision.verdict, decision.score, decision.entry_index
            )
        }
        Err(refusal) => format!(
            "{:>7}  {:<24} no verdict    {} {}: {}",
            frame.frame_counter,
            frame.serial,
            code_name(refusal.code),
            refusal.reason,
            refusal.message
        ),
    }
}

fn json_line(event: &LineEvent<'_>) -> serde_json::Value {
    match event {
        LineEvent::Answered(Answered { frame, outcome: Ok(decision), latency, attempts }) => json!({
            "event": "verdict",
            "counter": frame.frame_counter,
            "frame_id": frame.frame_id,
            "serial": frame.serial,
            "verdict": decision.verdict,
            "score": decision.score,
            "labels": decision.labels.iter().map(|l| (l.label.clone(), l.score.into())).collect::<serde_json::Map<_, _>>(),
            "reasons": decision.reasons,
            "recipe": decision.recipe,
            "entry_index": decision.entry_index,
            "leaf_hash": data_encoding::HEXLOWER.encode(&decision.leaf_hash),
            "duplicate": decision.is_duplicate,
            "is_bad": frame.is_bad,
            "latency_ms": latency.as_secs_f64() * 1e3,
            "attempts": attempts,
        }),
        LineEvent::Answered(Answered { frame, outcome: Err(refusal), latency, attempts }) => json!({
            "event": "refused",
            "counter": frame.frame_counter,
            "frame_id": frame.frame_id,
            "serial": frame.serial,
            "code": code_name(refusal.code),
            "reason": refusal.reason,
            "message": refusal.message,
            "latency_ms": latency.as_secs_f64() * 1e3,
            "attempts": attempts,
        }),
        LineEvent::Unsent(unsent) => json!({ "event": "unsent", "name": unsent.name, "reason": unsent.reason }),
        LineEvent::Retrying { frame, refusal, after } => json!({
            "event": "retrying",
            "frame_id": frame.frame_id,
            "code": code_name(refusal.code),
            "reason": refusal.reason,
            "after_ms": after.as_secs_f64() * 1e3,
        }),
        LineEvent::Reconnecting { why, after, pending } => json!({
            "event": "reconnecting",
            "why": why,
            "pending": pending,
            "after_ms": after.as_secs_f64() * 1e3,
        }),
    }
}
