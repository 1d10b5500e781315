//! `lineproof close-period`: the line says what it made, and hears what the log holds of it.

use std::{
    collections::BTreeSet,
    io::Write as _,
    process::ExitCode,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use clap::Args;
use serde_json::json;
use tokio::time::{Instant, sleep};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::{
    ConnectArgs, client,
    source::SharedLedger,
    wire::{self, Client},
};
use crate::{
    app::cli::{now, usage},
    core::lineage::ranges::Ranges,
    edge::convert,
    types::{FrameId, Instant as Time},
};

/// How long the service may stay away before the command gives up.
const RETRY_FOR: Duration = Duration::from_secs(60);
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// Counters of a period above which a mistyped number is likelier than a camera that took so many.
const COUNTERS_SURE: u64 = 1_000_000;

/// Say how many frames and parts a camera had, and write down whether the log accounts for all of them.
///
/// For a person at the end of a shift, or for the bridge to a PLC. Send it when every frame of the period has its
/// answer, and always before a camera's counter starts anew. The same command again changes nothing; with the same
/// --period and counters and another --lost, --parts or --unseen it corrects what was said.
#[derive(Debug, Args)]
#[command(after_help = "Exit status: 0 all is accounted for, 1 something is missing or nothing was written, 2 usage.")]
pub struct ClosePeriodArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    /// Name of the period, unique for the camera. Default: the time now.
    #[arg(long, value_name = "NAME")]
    period: Option<FrameId>,
    /// First frame counter. Default: the one after the last period's.
    #[arg(long, value_name = "N")]
    first: Option<u64>,
    /// Last frame counter.
    #[arg(long, value_name = "N")]
    last: u64,
    /// The camera's counter started anew since the last period.
    #[arg(long, requires = "first")]
    restarted: bool,
    /// Counters of frames that the line itself calls lost, such as 41 or 41-43.
    #[arg(long, value_name = "A-B", value_delimiter = ',', value_parser = parse_range)]
    lost: Vec<wire::CounterRange>,
    /// Parts the line counted.
    #[arg(long, value_name = "N")]
    parts: Option<u64>,
    /// Frames this camera takes of one part. Default: one.
    #[arg(long, value_name = "N", requires = "parts")]
    frames_per_part: Option<u64>,
    /// Parts of which, the line says, this camera took no frame.
    #[arg(long, value_name = "N", requires = "parts")]
    unseen: Option<u64>,
    /// When the period began: a time such as 2026-11-25T06:00:00Z.
    #[arg(long, value_name = "TIME")]
    from: Option<Time>,
    /// When the period ended.
    #[arg(long, value_name = "TIME")]
    to: Option<Time>,
    /// Close it even if it has more than 1,000,000 counters, or ends above that without --first.
    #[arg(long)]
    yes: bool,
    /// Facts for machines instead of sentences.
    #[arg(long)]
    json: bool,
}

impl ClosePeriodArgs {
    /// Why a close that can never be taken back is not sent yet.
    fn doubt(&self) -> Option<String> {
        let last = self.last;
        // Where the last period ended, only the service knows.
        let counters = last.saturating_sub(self.first.unwrap_or(1)).saturating_add(1);
        if self.yes || counters <= COUNTERS_SURE {
            return None;
        }
        Some(match self.first {
            Some(first) => format!(
                "the counters {first} to {last} are {counters} frames, and a closed period stays closed: if the camera took so many, say --yes"
            ),
            None => format!(
                "--last {last} is more than {COUNTERS_SURE}, and a closed period stays closed: say with --first N where the period begins, or say --yes"
            ),
        })
    }
}

fn parse_range(text: &str) -> Result<wire::CounterRange, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let counter = |text: &str| text.parse().map_err(|_| format!("{text:?} is no counter; write 41 or 41-43"));
    Ok(wire::CounterRange { first: counter(first)?, last: counter(last)? })
}

/// # Errors
/// When the service cannot be reached or refuses.
pub fn run(args: &ClosePeriodArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let connect = &args.connect;
    let client = match connect.tls().and_then(|tls| client::endpoint(&connect.server, tls.as_ref())) {
        // Connecting lazily needs the runtime it will run in.
        Ok(endpoint) => runtime.block_on(async { Client::new(endpoint.connect_lazy()) }),
        Err(error) => return Ok(usage(&error.to_string())),
    };
    if let Some(doubt) = args.doubt() {
        return Ok(usage(&doubt));
    }
    let mut request = empty(connect, args.period.clone().map_or_else(name_of_now, Ok)?, args.last);
    request.first_counter = args.first;
    request.counter_restarted = args.restarted;
    request.lost = args.lost.clone();
    request.parts = args.parts;
    request.frames_per_part = args.frames_per_part;
    request.parts_unseen = args.unseen;
    request.from = args.from.map(convert::timestamp);
    request.to = args.to.map(convert::timestamp);
    let closed = runtime.block_on(send(client, &request)).map_err(said_with_arguments)?;
    if args.json {
        println!("{}", facts(&request, &closed));
    } else {
        write!(std::io::stdout().lock(), "{}", words(&request, &closed))?;
    }
    Ok(ExitCode::from(u8::from(!closed.complete)))
}

/// What a run of the line PC has sent, for the closes at its end and in between.
#[derive(Clone, Debug, Default)]
pub(super) struct Sent {
    /// Counters of the frames that were answered in this run.
    answered: Ranges,
    /// The same without frames that the service knew before this run.
    fresh: Ranges,
    /// The newest entry of those frames.
    newest: Option<u64>,
    /// Counters of frames that wait for their answer, of earlier runs too.
    waiting: BTreeSet<u64>,
    /// A period closed in between lacks something.
    is_incomplete: bool,
}

impl Sent {
    /// `open`: the counters of an earlier run that have no verdict.
    pub(super) fn new(open: Vec<u64>) -> Self {
        Self { waiting: open.into_iter().collect(), ..Self::default() }
    }

    pub(super) fn taken(&mut self, counter: u64) {
        self.waiting.insert(counter);
    }

    /// `entry`: the one that holds the decision; a refused frame has none.
    pub(super) fn answered(&mut self, counter: u64, was_known: bool, entry: Option<u64>) {
        self.answered.add(counter, counter);
        self.waiting.remove(&counter);
        if !was_known {
            self.fresh.add(counter, counter);
            self.newest = self.newest.max(entry);
        }
    }

    /// The last answered counter before the first one that waits for its answer.
    fn settled(&self) -> Option<u64> {
        let before = match self.waiting.first() {
            None => u64::MAX,
            Some(waiting) => waiting.checked_sub(1)?,
        };
        self.answered.within(0, before).iter().next_back().map(|(_, last)| last)
    }

    pub(super) fn is_incomplete(&self) -> bool {
        self.is_incomplete
    }
}

/// How a line PC closes its periods.
pub(super) struct Closer<'a> {
    pub connect: &'a ConnectArgs,
    /// Empty: the time.
    pub name: &'a str,
    /// A line PC that remembers its counters goes on where the last period ended; one that does not has counted from anew.
    pub remembers: bool,
}

impl Closer<'_> {
    /// Closes the period at the end of a run. Returns whether all is accounted for.
    pub(super) async fn after_run(&self, sent: &Sent, first_remembered: Option<u64>) -> anyhow::Result<bool> {
        let ranges = if self.remembers { &sent.answered } else { &sent.fresh };
        let (first, last) = (ranges.iter().next(), ranges.iter().next_back());
        let Some(((first, _), (_, last))) = first.zip(last) else {
            eprintln!("no period closed: no frame of this run is new to the service");
            return Ok(true);
        };
        let name = if self.name.is_empty() { name_of_now()? } else { self.name.parse()? };
        if self.remembers {
            return self.go_on(name, last, first_remembered.unwrap_or(first), sent.newest).await;
        }
        let mut request = empty(self.connect, name, last);
        (request.first_counter, request.counter_restarted) = (Some(first), true);
        self.announce(&request, sent.newest).await.map_err(said).context("closing the period")
    }

    /// Closes a period every so often, as far as all frames are answered, until it is dropped. What fails is said, and
    /// the next close makes up for it.
    pub(super) async fn every(&self, pause: Duration, sent: &Mutex<Sent>, ledger: &SharedLedger) {
        let mut closed = None;
        loop {
            sleep(pause).await;
            let (settled, newest) = {
                let sent = sent.lock().unwrap_or_else(PoisonError::into_inner);
                (sent.settled(), sent.newest)
            };
            let (Some(last), Some(first)) = (settled, ledger.remembered_first()) else { continue };
            if settled == closed {
                continue;
            }
            let name = name_of_now().and_then(|now| {
                Ok(if self.name.is_empty() { now } else { FrameId::new(format!("{}-{now}", self.name))? })
            });
            let done = match name {
                Ok(name) => self.go_on(name, last, first, newest).await,
                Err(error) => Err(error),
            };
            match done {
                Ok(is_complete) => {
                    closed = settled;
                    sent.lock().unwrap_or_else(PoisonError::into_inner).is_incomplete |= !is_complete;
                }
                Err(error) => eprintln!("the period up to frame {last} is not closed: {error:#}; trying again later"),
            }
        }
    }

    /// Closes from where the last period ended, or from the first frame there ever was.
    async fn go_on(&self, name: FrameId, last: u64, first_ever: u64, newest: Option<u64>) -> anyhow::Result<bool> {
        let mut request = empty(self.connect, name, last);
        let closed = match self.announce(&request, newest).await {
            Err(status) if reason(&status).as_deref() == Some("no_previous_period") => {
                request.first_counter = Some(first_ever);
                self.announce(&request, newest).await
            }
            Err(status) if reason(&status).as_deref() == Some("nothing_new") => {
                eprintln!("no period closed: {}", status.message());
                Ok(true)
            }
            closed => closed,
        };
        closed.map_err(said).context("closing the period")
    }

    /// `newest`: the newest entry of a frame of this run, which a close of this run counts.
    async fn announce(&self, request: &wire::Close, newest: Option<u64>) -> Result<bool, Status> {
        let tls = self.connect.tls().map_err(|error| Status::invalid_argument(error.to_string()))?;
        let endpoint = client::endpoint(&self.connect.server, tls.as_ref());
        let endpoint = endpoint.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let closed = send(Client::new(endpoint.connect_lazy()), request).await?;
        // The name and the counters of an earlier run are answered with what was counted then.
        if newest.is_some_and(|entry| entry >= closed.end) {
            return Err(Status::already_exists(format!(
                "the name {0} was used already: entry {1} holds what was counted before this run, and this run is not closed; give another name, such as --close-period=$(date +%F)-{0}",
                request.period, closed.entry_index
            )));
        }
        eprint!("{}", words(request, &closed));
        Ok(closed.complete)
    }
}

/// A name that no other period of the camera has, unless two are closed within a second.
fn name_of_now() -> anyhow::Result<FrameId> {
    Ok(FrameId::new(format!("{}Z", &now()?.to_string()[..19]))?)
}

fn empty(connect: &ConnectArgs, period: FrameId, last: u64) -> wire::Close {
    wire::Close {
        line: connect.line.to_string(),
        station: connect.station.to_string(),
        camera: connect.camera.to_string(),
        period: period.to_string(),
        last_counter: last,
        ..wire::Close::default()
    }
}

/// Asks again while the service is away: the same announcement gives the same entry.
async fn send(mut client: Client, request: &wire::Close) -> Result<wire::Closed, Status> {
    let give_up = Instant::now() + RETRY_FOR;
    loop {
        match client.close_period(request.clone()).await {
            Ok(closed) => return Ok(closed.into_inner()),
            Err(status) if status.code() == Code::Unavailable && Instant::now() < give_up => sleep(RETRY_EVERY).await,
            Err(status) => return Err(status),
        }
    }
}

fn reason(status: &Status) -> Option<String> {
    status.get_details_error_info().map(|info| info.reason)
}

fn said(status: Status) -> anyhow::Error {
    anyhow::Error::msg(status.message().to_owned())
}

/// What the service says, and the arguments of `close-period` that answer it.
fn said_with_arguments(status: Status) -> anyhow::Error {
    let arguments = match reason(&status).as_deref() {
        Some("no_previous_period") => " (--first N)",
        Some("not_next") => " (--first N, or --restarted --first N)",
        Some("nothing_new") => " (if the counter started anew: --restarted --first N)",
        Some("period_name_taken") => " (--period NAME)",
        Some("left_out") => " (--parts N, --frames-per-part N)",
        _ => "",
    };
    anyhow::Error::msg(format!("{}{arguments}", status.message()))
}

fn range(range: &wire::CounterRange) -> String {
    if range.first == range.last { range.first.to_string() } else { format!("{}-{}", range.first, range.last) }
}

fn words(request: &wire::Close, closed: &wire::Closed) -> String {
    let wire::Closed { first_counter, last_counter, decided, gaps, lost, missing, entry_index, .. } = closed;
    let frames = last_counter - first_counter + 1;
    let place = format!("{} / {} / {}", request.line, request.station, request.camera);
    let written = if closed.duplicate { "was there before" } else { "is in the log" };
    let mut text = format!(
        "period {} of {place}: {frames} frames, counters {first_counter} to {last_counter}\n  {decided} decided, {gaps} noted as gaps, {lost} called lost, {missing} missing\n",
        request.period
    );
    if closed.complete {
        text.push_str(&format!("  all is accounted for; this {written} as entry {entry_index}\n"));
        return text;
    }
    let ranges: Vec<String> = closed.missing_counters.iter().map(range).collect();
    if *missing > 0 {
        text.push_str(&format!("  NOT COMPLETE: there is no trace of the frames {}\n", ranges.join(", ")));
    }
    if closed.frames_short > 0 {
        text.push_str(&format!(
            "  NOT COMPLETE: the parts you counted should have given more frames: {}\n",
            closed.frames_short
        ));
    }
    text.push_str(&format!(
        "  this {written} as entry {entry_index}, and verification of the log fails until the line says what became of them:\n  the same command again with --period {} --first {first_counter} and --lost {} or --unseen N\n",
        request.period,
        if ranges.is_empty() { "A-B".to_owned() } else { ranges.join(",") }
    ));
    text
}

fn facts(request: &wire::Close, closed: &wire::Closed) -> serde_json::Value {
    let missing: Vec<_> =
        closed.missing_counters.iter().map(|range| json!({"first": range.first, "last": range.last})).collect();
    json!({
        "camera": request.camera, "complete": closed.complete, "decided": closed.decided,
        "duplicate": closed.duplicate, "end": closed.end, "entry": closed.entry_index,
        "first": closed.first_counter, "frames_short": closed.frames_short, "gaps": closed.gaps,
        "last": closed.last_counter, "line": request.line, "lost": closed.lost, "missing": missing,
        "missing_frames": closed.missing, "period": request.period, "since": closed.since,
        "station": request.station,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_in_between_ends_before_the_first_frame_that_waits() {
        let mut sent = Sent::new(vec![4]);
        assert_eq!(sent.settled(), None);
        for counter in [5, 6, 7] {
            sent.taken(counter);
        }
        sent.answered(5, false, Some(1));
        sent.answered(7, false, Some(2));
        assert_eq!(sent.settled(), None, "frame 4 of an earlier run waits");
        sent.answered(4, true, Some(0));
        assert_eq!(sent.settled(), Some(5));
        sent.answered(6, false, None);
        assert_eq!(sent.settled(), Some(7));
        assert_eq!(sent.newest, Some(2), "a refused frame has no entry of its own");
    }
}
