//! `lineproof replay`: decides recorded frames again; and the service's own nightly sample.

use std::{collections::BTreeMap, io::IsTerminal as _, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use clap::Args;
use tokio_util::sync::CancellationToken;

use super::{
    cli::{DataArgs, now, usage},
    client::{self, Office},
    config,
    erase::counted,
    evidence::{parse_id, say},
    history::parse_time,
};
use crate::{
    core::lineage::replay::{EPS, NotReplayable, Outcome},
    edge::{
        convert,
        pb::{self, replay_request::Which, replay_response::Event},
    },
    services::replay::{self, ReplayError, ReplayService, Request},
    types::{Instant, Score, Verdict},
};

const DAY_NANOS: i64 = 86_400_000_000_000;
/// After this a night is over, whatever the clock says.
const NIGHT_MAX: Duration = Duration::from_secs(25 * 3600);
/// How often the service looks whether it is time; a clock may be set meanwhile.
const LOOK: Duration = Duration::from_secs(20);

/// Decide recorded frames again, and say whether the same comes out.
///
/// The archived image is decoded, prepared and inferred with the model, recipe, calibration and settings that the decision
/// names. What comes out is noted in the log. Exit status: 0 whatever could be run came out as recorded, 1 a decision
/// differs, an image is damaged, or nothing could be run.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("which").required(true).args(["ids", "sample", "since"]).multiple(true))]
pub struct ReplayArgs {
    /// Entry index of a decision, or LINE/CAMERA/FRAME-ID; several are fine
    #[arg(value_name = "ID", conflicts_with_all = ["sample", "since"])]
    ids: Vec<String>,
    /// So many decisions, drawn at random from those whose images were kept
    #[arg(long, value_name = "N")]
    sample: Option<u32>,
    /// All decisions since then whose images were kept; with --sample: drawn from those. 2026-11-23, 2026-11-23T06:00:00Z,
    /// or an age such as 30m, 8h or 7d
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Largest difference of a score that does not count as another
    #[arg(long, value_name = "EPS", default_value_t = EPS)]
    eps: f32,
    /// One JSON object per decision
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DataArgs,
}

/// # Errors
/// When the data directory does not answer, or an id names no decision.
pub fn run(args: &ReplayArgs) -> anyhow::Result<ExitCode> {
    if !(args.eps.is_finite() && args.eps >= 0.0) {
        return Ok(usage("--eps is a number from 0"));
    }
    if args.sample == Some(0) {
        return Ok(usage("--sample is at least 1"));
    }
    let now = now()?;
    let since = match args.since.as_deref().map(|text| parse_time(text, now)).transpose() {
        Ok(since) => since.map(convert::timestamp),
        Err(reason) => return Ok(usage(&format!("--since: {reason}"))),
    };
    let seen = client::with_office(&args.data.data, async |office| {
        let which = match (args.sample, since) {
            (Some(count), since) => Which::Sample(pb::Sample { count, since }),
            (None, Some(since)) => Which::Since(since),
            (None, None) => Which::Entries(pb::EntryIndexes { indexes: indexes(office, &args.ids).await? }),
        };
        let mut shown = Shown { json: args.json, each: !args.ids.is_empty(), bar: progress_bar(args.json) };
        let result = ask(office, request(which, args.eps), |event| shown.show(event)).await;
        shown.bar.finish_and_clear();
        result
    })?;
    if !args.json {
        print!("{}", seen.words(args.eps));
        if let Some(asked) = args.sample.filter(|asked| u64::from(*asked) > seen.planned) {
            println!("{} of the {asked} asked for were found: of no others the images were kept", seen.planned);
        }
    }
    if seen.broken_off {
        println!("broken off; what was decided again is noted");
    } else if seen.total() < seen.planned {
        bail!("the service ended the replay after {} of {} decisions; its log says why", seen.total(), seen.planned);
    }
    let damaged = seen.codes.get("image_damaged").copied().unwrap_or_default();
    let is_good = seen.count("differs") == 0 && seen.ran() > 0 && damaged == 0 && !seen.broken_off;
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// What a run gave.
#[derive(Default)]
pub(super) struct Seen {
    outcomes: BTreeMap<String, u64>,
    codes: BTreeMap<String, u64>,
    largest: f32,
    planned: u64,
    passed_over: u64,
    /// The user wanted no more of it.
    broken_off: bool,
    /// The entries that note it.
    pub recorded: Vec<u64>,
}

/// Has decisions replayed, and gives every event to `show` as it comes.
pub(super) async fn ask(
    office: &Office,
    request: pb::ReplayRequest,
    mut show: impl FnMut(&Event) -> anyhow::Result<()>,
) -> anyhow::Result<Seen> {
    let mut events = office.replay().replay(request).await.map_err(client::said)?.into_inner();
    let mut seen = Seen::default();
    loop {
        let message = tokio::select! {
            message = events.message() => message.map_err(client::said)?,
            // Leaving the call ends the run after its current decision.
            _ = tokio::signal::ctrl_c() => {
                seen.broken_off = true;
                return Ok(seen);
            }
        };
        let Some(message) = message else { return Ok(seen) };
        let event = message.event.context("the service said nothing")?;
        match &event {
            Event::Plan(plan) => (seen.planned, seen.passed_over) = (plan.decisions, plan.passed_over),
            Event::Replayed(replayed) => {
                *seen.outcomes.entry(replayed.outcome.clone()).or_default() += 1;
                if !replayed.code.is_empty() {
                    *seen.codes.entry(replayed.code.clone()).or_default() += 1;
                }
                seen.largest = replayed.run.as_ref().map_or(0.0, |run| run.largest).max(seen.largest);
            }
            Event::Recorded(index) => seen.recorded.push(*index),
        }
        show(&event)?;
    }
}

fn request(which: Which, eps: f32) -> pb::ReplayRequest {
    pb::ReplayRequest { which: Some(which), eps: Some(eps), challenge: Vec::new() }
}

impl Seen {
    pub fn count(&self, outcome: &str) -> u64 {
        self.outcomes.get(outcome).copied().unwrap_or_default()
    }

    fn total(&self) -> u64 {
        self.outcomes.values().sum()
    }

    fn ran(&self) -> u64 {
        self.count("exact") + self.count("within") + self.count("differs")
    }

    /// The result in a few lines.
    pub fn words(&self, eps: f32) -> String {
        let ran = counted(self.ran(), "decision was", "decisions were");
        let (exact, within, differs) = (self.count("exact"), self.count("within"), self.count("differs"));
        let mut text = format!("{ran} decided again: {exact} bit-exact, {within} within {eps:e}, ");
        text.push_str(&if differs == 0 { "none differs".to_owned() } else { format!("{differs} DIFFER") });
        if within + differs > 0 {
            text.push_str(&format!(" (largest difference {:.1e})", self.largest));
        }
        text.push('\n');
        let not: Vec<String> = self.codes.iter().map(|(code, count)| format!("{count} {code}")).collect();
        if !not.is_empty() {
            text.push_str(&format!("not replayable: {}\n", not.join(", ")));
        }
        if self.passed_over > 0 {
            text.push_str(&format!("{} passed over, because their images were never kept\n", self.passed_over));
        }
        let recorded: Vec<String> = self.recorded.iter().map(ToString::to_string).collect();
        if !recorded.is_empty() {
            text.push_str(&format!("recorded as entry {}\n", recorded.join(", ")));
        }
        text
    }
}

/// Entry indexes of what the user named.
async fn indexes(office: &Office, ids: &[String]) -> anyhow::Result<Vec<u64>> {
    let mut indexes = Vec::new();
    for id in ids {
        let by = parse_id(id)?;
        if let pb::get_decision_request::By::EntryIndex(index) = by {
            indexes.push(index);
            continue;
        }
        let request = pb::GetDecisionRequest { by: Some(by) };
        let found = office.history().get_decision(request).await.map_err(client::said)?.into_inner();
        indexes.push(found.decision.with_context(|| format!("there is no decision {id}"))?.entry_index);
    }
    Ok(indexes)
}

/// Shows events as they come.
struct Shown {
    json: bool,
    /// Whether decisions that came out exact are told one by one.
    each: bool,
    bar: indicatif::ProgressBar,
}

impl Shown {
    fn show(&mut self, event: &Event) -> anyhow::Result<()> {
        match event {
            Event::Plan(plan) => self.bar.set_length(plan.decisions),
            Event::Replayed(replayed) => {
                self.bar.inc(1);
                if self.json || self.each || replayed.outcome != "exact" {
                    let line = if self.json { json(replayed)?.to_string() } else { words(replayed)? };
                    self.bar.suspend(|| say(format_args!("{line}")))?;
                }
            }
            Event::Recorded(index) if self.json => {
                say(format_args!("{}", serde_json::json!({ "recorded": index })))?;
            }
            Event::Recorded(_) => {}
        }
        Ok(())
    }
}

fn progress_bar(json: bool) -> indicatif::ProgressBar {
    if json || !std::io::stderr().is_terminal() {
        return indicatif::ProgressBar::hidden();
    }
    let style = indicatif::ProgressStyle::with_template("{wide_bar} {pos}/{len} {per_sec} {eta}");
    indicatif::ProgressBar::new(0).with_style(style.expect("the template is valid"))
}

fn words(replayed: &pb::ReplayedDecision) -> anyhow::Result<String> {
    let recorded = verdict(replayed.verdict)?;
    let result = match (replayed.outcome.as_str(), &replayed.run) {
        ("exact", _) => "bit-exact".to_owned(),
        ("within", Some(run)) => format!("the same within {:.1e}{}", run.largest, other_pixels(run)),
        ("differs", Some(run)) => {
            let now = verdict(run.verdict)?;
            let verdict = if now == recorded { String::new() } else { format!(" now {now};") };
            let scores =
                run.changed.iter().map(|score| format!(" {} {} -> {}", score.label, score.recorded, score.now));
            let scores: Vec<String> = scores.collect();
            let other = if verdict.is_empty() && scores.is_empty() { " other reasons or thresholds" } else { "" };
            format!("DIFFERS:{verdict}{}{other}{}", scores.join(","), other_pixels(run))
        }
        _ => format!("not replayable: {}", replayed.why),
    };
    Ok(format!("entry {:<8} {recorded:<13} {result}", replayed.entry_index))
}

fn other_pixels(run: &pb::ReplayRun) -> &'static str {
    if run.same_pixels { "" } else { " (the image decodes to other pixels than it did)" }
}

fn json(replayed: &pb::ReplayedDecision) -> anyhow::Result<serde_json::Value> {
    let mut object = serde_json::json!({
        "entry": replayed.entry_index, "verdict": verdict(replayed.verdict)?.to_string(), "outcome": replayed.outcome,
    });
    if let Some(run) = &replayed.run {
        let changed = run.changed.iter();
        let changed = changed
            .map(|score| serde_json::json!({ "label": score.label, "recorded": score.recorded, "now": score.now }));
        object["largest"] = run.largest.into();
        object["now"] = verdict(run.verdict)?.to_string().into();
        object["changed"] = changed.collect();
        object["same_pixels"] = run.same_pixels.into();
    } else {
        object["code"] = replayed.code.clone().into();
        object["why"] = replayed.why.clone().into();
    }
    Ok(object)
}

fn verdict(number: i32) -> anyhow::Result<Verdict> {
    let message = pb::Verdict::try_from(number)?;
    match convert::verdict_of(message) {
        Some(verdict) => Ok(verdict),
        None => bail!("the service named no verdict"),
    }
}

/// Replays a sample of the last day's decisions every day at the configured time, until `stopper` fires.
pub(super) async fn keep_running(service: Arc<ReplayService>, config: config::Replay, stopper: CancellationToken) {
    let mut next = next_after(service.clock.now().0, config.at_minute());
    let mut last = tokio::time::Instant::now();
    loop {
        tokio::select! {
            () = stopper.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        let now = service.clock.now().0;
        // A clock that was once far ahead stands still until the time is there; nights go by all the same.
        if now < next && last.elapsed() < NIGHT_MAX {
            continue;
        }
        let (service, stopper) = (service.clone(), stopper.clone());
        let sample = config.nightly_sample;
        let (said, heard) = tokio::sync::oneshot::channel();
        let run = move || drop(said.send(nightly(&service, sample, now, &stopper)));
        if let Err(error) = ReplayService::on_its_own_thread(run) {
            tracing::error!(%error, "the nightly replay did not start");
        }
        match heard.await {
            // Somebody else's is under way; this one comes after it.
            Ok(Err(ReplayError::Busy)) => continue,
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the nightly replay did not end well; the next is in a day"),
            Err(_) => tracing::error!("the nightly replay ended unexpectedly; the next is in a day"),
        }
        (next, last) = (next_after(now, config.at_minute()), tokio::time::Instant::now());
    }
}

/// The first time after `now` that is so many minutes into a UTC day.
fn next_after(now: Instant, minute: u32) -> Instant {
    let day = now.unix_nanos().div_euclid(DAY_NANOS) * DAY_NANOS + i64::from(minute) * 60_000_000_000;
    let next = if day > now.unix_nanos() { day } else { day + DAY_NANOS };
    Instant::from_unix_nanos(next).unwrap_or(now)
}

fn nightly(service: &ReplayService, sample: u32, now: Instant, stopper: &CancellationToken) -> Result<(), ReplayError> {
    let since = Instant::from_unix_nanos(now.unix_nanos() - DAY_NANOS).unwrap_or(Instant::EPOCH);
    let which = replay::Which::Sample { count: sample as usize, since: Some(since) };
    let request = Request { which, eps: Score::new(EPS).expect("a constant"), challenge: None };
    let (mut ran, mut differ, mut not) = (0, 0, BTreeMap::<NotReplayable, u64>::new());
    service.run(&request, &|| stopper.is_cancelled(), &mut |event| {
        let replay::Event::Replayed(replayed) = event else { return };
        match replayed.outcome {
            Outcome::NotReplayable(reason) => *not.entry(reason).or_default() += 1,
            Outcome::Differs => {
                (ran, differ) = (ran + 1, differ + 1);
                tracing::error!(entry = %replayed.index, "the nightly replay gives another result than the decision; `lineproof replay {}` says more", replayed.index);
            }
            Outcome::Exact | Outcome::Within => ran += 1,
        }
    })?;
    // Retention takes images by rule; whatever else keeps a decision from running is a fault.
    let faults =
        not.iter().filter(|(reason, _)| !matches!(reason, NotReplayable::ImageGone | NotReplayable::NotArchived));
    let faults: Vec<String> = faults.map(|(reason, count)| format!("{count} {}", reason.code())).collect();
    if faults.is_empty() {
        let not: u64 = not.values().sum();
        tracing::info!(ran, differ, not_replayable = not, "the nightly replay ran");
    } else {
        let faults = faults.join(", ");
        tracing::error!(
            ran,
            differ,
            faults,
            "the nightly replay could not run every decision; docs/replay.md says what to do"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_run_is_at_the_configured_time_of_this_day_or_the_next() {
        let at = |text: &str| text.parse::<Instant>().unwrap();
        assert_eq!(next_after(at("2026-11-23T01:00:00Z"), 150), at("2026-11-23T02:30:00Z"));
        assert_eq!(next_after(at("2026-11-23T02:30:00Z"), 150), at("2026-11-24T02:30:00Z"));
        assert_eq!(next_after(at("2026-11-23T23:59:59Z"), 0), at("2026-11-24T00:00:00Z"));
    }
}
