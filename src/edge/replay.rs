//! `ReplayService`: recorded decisions decided again, for the operator on the machine.

use std::{
    cell::Cell,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::mpsc::{self, error::TrySendError};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status};

use super::{
    convert,
    history::read_code,
    pb::{
        self, replay_request::Which as Asked, replay_response::Event as Said,
        replay_service_server::ReplayService as Api,
    },
    status::bad_field,
};
use crate::{
    core::lineage::replay::{EPS, NotReplayable, Outcome},
    ports::lineage::AppendError,
    services::replay::{
        Event, REPLAYS_MAX, Ran, ReplayError, ReplayService, Replayed, Request as ReplayRequest, Which,
    },
    types::{EntryIndex, Score, Sha256Digest},
};

/// Events that may wait for a slow caller before the replay waits, too.
const EVENTS_WAITING_MAX: usize = 64;

/// How long a caller may take nothing before the replay goes on without it.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is tried again meanwhile.
const TAKE_AGAIN: Duration = Duration::from_millis(5);

/// The gRPC face of [`ReplayService`].
pub struct ReplayEdge {
    service: Arc<ReplayService>,
    /// Ends a run when the service stops: what is done by then is noted.
    stopper: CancellationToken,
}

impl ReplayEdge {
    #[must_use]
    pub fn new(service: Arc<ReplayService>, stopper: CancellationToken) -> Self {
        Self { service, stopper }
    }
}

#[tonic::async_trait]
impl Api for ReplayEdge {
    type ReplayStream = ReceiverStream<Result<pb::ReplayResponse, Status>>;

    async fn replay(&self, request: Request<pb::ReplayRequest>) -> Result<Response<Self::ReplayStream>, Status> {
        let pb::ReplayRequest { which, eps, challenge } = request.into_inner();
        let which = which_of(which)?;
        let eps = Score::new(eps.unwrap_or(EPS)).ok().filter(|eps| *eps >= Score::ZERO);
        let eps = eps.ok_or_else(|| bad_field("eps", "is a number from 0"))?;
        let challenge = match challenge.as_slice() {
            [] => None,
            seed => Some(Sha256Digest::from_slice(seed).map_err(|error| bad_field("challenge", error))?),
        };
        let request = ReplayRequest { which, eps, challenge };
        let (events, outgoing) = mpsc::channel(EVENTS_WAITING_MAX);
        let (service, stopper) = (self.service.clone(), self.stopper.clone());
        let run = move || {
            let has_left = Cell::new(false);
            let send = |message| {
                if !has_left.get() && !delivered(&events, message, &stopper) {
                    has_left.set(true);
                }
            };
            let stops = || has_left.get() || events.is_closed() || stopper.is_cancelled();
            let end = match service.run(&request, &stops, &mut |event| send(Ok(response(event)))) {
                Ok(()) if stopper.is_cancelled() => {
                    Status::unavailable("the service stops; what was replayed is noted")
                }
                Ok(()) => return,
                Err(error) => status(&error),
            };
            send(Err(end));
        };
        ReplayService::on_its_own_thread(run).map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }
}

/// Hands an event to a caller who may be slow; whether that went. A caller who takes nothing for [`PATIENCE`] has left.
fn delivered<T>(events: &mpsc::Sender<T>, mut message: T, stopper: &CancellationToken) -> bool {
    let until = Instant::now() + PATIENCE;
    loop {
        match events.try_send(message) {
            Ok(()) => return true,
            Err(TrySendError::Closed(_)) => return false,
            Err(TrySendError::Full(_)) if stopper.is_cancelled() || Instant::now() > until => return false,
            Err(TrySendError::Full(back)) => message = back,
        }
        std::thread::sleep(TAKE_AGAIN);
    }
}

fn which_of(asked: Option<Asked>) -> Result<Which, Status> {
    match asked.ok_or_else(|| bad_field("which", "is missing: entries, sample or since"))? {
        Asked::Entries(entries) => Ok(Which::Entries(entries.indexes.into_iter().map(EntryIndex).collect())),
        Asked::Sample(pb::Sample { count, since }) => {
            let count = usize::try_from(count).ok().filter(|count| (1..=REPLAYS_MAX).contains(count));
            let count = count.ok_or_else(|| bad_field("sample.count", format_args!("is 1 to {REPLAYS_MAX}")))?;
            let since = since.map(|since| convert::instant("sample.since", since)).transpose()?;
            Ok(Which::Sample { count, since })
        }
        Asked::Since(since) => Ok(Which::Since(convert::instant("since", since)?)),
    }
}

fn response(event: Event) -> pb::ReplayResponse {
    let event = match event {
        Event::Planned { decisions, passed_over } => {
            Said::Plan(pb::ReplayPlan { decisions: decisions as u64, passed_over: passed_over as u64 })
        }
        Event::Replayed(replayed) => Said::Replayed(replayed_decision(*replayed)),
        Event::Recorded(index) => Said::Recorded(index.0),
    };
    pb::ReplayResponse { event: Some(event) }
}

fn replayed_decision(replayed: Replayed) -> pb::ReplayedDecision {
    let Replayed { index, verdict, outcome, again, why } = replayed;
    let (outcome, code) = match outcome {
        Outcome::Exact => ("exact", None),
        Outcome::Within => ("within", None),
        Outcome::Differs => ("differs", None),
        Outcome::NotReplayable(reason) => ("not_replayable", Some(reason)),
    };
    let run = again.map(|Ran { verdict, largest, changed, same_pixels }| pb::ReplayRun {
        verdict: convert::verdict(verdict).into(),
        largest: largest.get(),
        changed: changed
            .into_iter()
            .map(|(label, recorded, now)| pb::ChangedScore { label, recorded: recorded.get(), now: now.get() })
            .collect(),
        same_pixels,
    });
    pb::ReplayedDecision {
        entry_index: index.0,
        verdict: convert::verdict(verdict).into(),
        outcome: outcome.into(),
        run,
        code: code.map(NotReplayable::code).unwrap_or_default().into(),
        why,
    }
}

/// One table from replay errors to gRPC codes.
fn status(error: &ReplayError) -> Status {
    let code = match error {
        ReplayError::Busy => Code::Unavailable,
        ReplayError::NoDecision { .. } | ReplayError::Nothing => Code::InvalidArgument,
        ReplayError::TooMany => Code::OutOfRange,
        ReplayError::Log(AppendError::DiskReserve { .. }) => Code::ResourceExhausted,
        ReplayError::Log(AppendError::ReadOnly(_)) | ReplayError::Runtime(_) => Code::FailedPrecondition,
        ReplayError::Log(_) => Code::Unavailable,
        ReplayError::Read(error) => read_code(error),
        ReplayError::Entry { .. } => Code::DataLoss,
        ReplayError::Archive(_) | ReplayError::Texts(_) | ReplayError::Models(_) => Code::Internal,
    };
    Status::new(code, error.to_string())
}
