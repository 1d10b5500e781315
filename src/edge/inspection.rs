//! `InspectionService`: one frame, or a stream of them.

use std::{
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::{Stream, StreamExt as _, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::{access::Caller, convert, pb, pb::inspection_service_server::InspectionService, status};
use crate::{
    services::{
        inspect::{InspectHandle, request::Refusal},
        parts::PartsHandle,
        periods::PeriodService,
    },
    types::EntryIndex,
};

/// What a part verdict may take to be recorded, beyond its views' time.
const PART_RECORD: Duration = Duration::from_secs(1);
/// Longest time one call may wait for a part verdict.
const PART_WAIT_MAX: Duration = Duration::from_secs(3601);

/// What the edge adds to a frame.
#[derive(Clone, Copy, Debug)]
pub struct InspectionLimits {
    /// Longest frame in bytes.
    pub frame_bytes_max: usize,
    /// Frames of one stream under way; reading stops until one is answered.
    pub stream_frames_max: usize,
    /// How long an answer is of use when nobody says.
    pub useful_for: Duration,
}

/// The gRPC face of [`InspectHandle`].
pub struct InspectionEdge {
    service: InspectHandle,
    periods: Arc<PeriodService>,
    parts: PartsHandle,
    limits: InspectionLimits,
    stopper: CancellationToken,
}

impl InspectionEdge {
    /// `stopper` ends open streams: no frame is read after it fires, what was admitted is answered.
    #[must_use]
    pub fn new(
        service: InspectHandle,
        periods: Arc<PeriodService>,
        parts: PartsHandle,
        limits: InspectionLimits,
        stopper: CancellationToken,
    ) -> Self {
        Self { service, periods, parts, limits, stopper }
    }
}

type Answers = Pin<Box<dyn Stream<Item = Result<pb::InspectStreamResponse, Status>> + Send>>;

#[tonic::async_trait]
impl InspectionService for InspectionEdge {
    async fn inspect(&self, request: Request<pb::InspectRequest>) -> Result<Response<pb::InspectResponse>, Status> {
        let received = Instant::now();
        let caller = Caller::of(&request)?;
        let grpc_timeout = convert::grpc_timeout(request.metadata());
        let mut frame = convert::frame_request(request.into_inner(), &caller, received, &self.limits)?;
        if let Some(timeout) = grpc_timeout {
            frame.useful_for = frame.useful_for.min(timeout);
        }
        let answer = self.service.inspect(frame).await.map_err(|refusal| status::status(&refusal))?;
        Ok(Response::new(convert::answer(&answer)))
    }

    type InspectStreamStream = Answers;

    async fn inspect_stream(
        &self,
        request: Request<Streaming<pb::InspectRequest>>,
    ) -> Result<Response<Answers>, Status> {
        let caller = Caller::of(&request)?;
        let (answers, outgoing) = mpsc::channel(self.limits.stream_frames_max);
        let stream = FrameStream {
            service: self.service.clone(),
            limits: self.limits,
            caller,
            stopper: self.stopper.clone(),
            under_way: Arc::new(Semaphore::new(self.limits.stream_frames_max)),
            answers,
        };
        tokio::spawn(stream.serve(request.into_inner()));
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }

    async fn get_part(&self, request: Request<pb::GetPartRequest>) -> Result<Response<pb::GetPartResponse>, Status> {
        let (caller, grpc_timeout) = (Caller::of(&request)?, convert::grpc_timeout(request.metadata()));
        let pb::GetPartRequest { entry_index, wait } = request.into_inner();
        // By itself as long as the part may take, and what recording it takes.
        let wait = wait.map(|wait| convert::duration("wait", wait)).transpose()?;
        let wait = wait.unwrap_or_else(|| self.parts.longest_wait() + PART_RECORD).min(PART_WAIT_MAX);
        let wait = grpc_timeout.map_or(wait, |timeout| wait.min(timeout));
        let found = tokio::select! {
            found = self.parts.of_decision(EntryIndex(entry_index), wait) => found,
            () = self.stopper.cancelled() => return Err(status::status(&Refusal::ShuttingDown)),
        };
        let joined = found.map_err(|error| status::of_part(&error))?;
        // Whoever sees one view of a part is told of the part.
        caller.may_speak_for_one_of(joined.part.views.iter().map(|view| (&view.line, &view.station)))?;
        Ok(Response::new(convert::part(&joined)))
    }

    async fn close_period(
        &self,
        request: Request<pb::ClosePeriodRequest>,
    ) -> Result<Response<pb::ClosePeriodResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = convert::close_request(request.into_inner(), caller.identity.said())?;
        caller.may_speak_for(&request.source.line, &request.source.station)?;
        let periods = Arc::clone(&self.periods);
        // Runs to its end even if the caller leaves: asking again finds what was written.
        let closed = tokio::task::spawn_blocking(move || periods.close(request)).await;
        let closed = closed.map_err(|_| Status::internal("closing the period failed unexpectedly; ask again"))?;
        closed.map(|closed| Response::new(convert::closed(&closed))).map_err(|error| status::of_close(&error))
    }
}

/// One open stream of a line PC.
struct FrameStream {
    service: InspectHandle,
    limits: InspectionLimits,
    caller: Caller,
    stopper: CancellationToken,
    under_way: Arc<Semaphore>,
    answers: mpsc::Sender<Result<pb::InspectStreamResponse, Status>>,
}

impl FrameStream {
    /// Reads frames until the client ends the stream or leaves, or the service stops. What was admitted is decided
    /// and answered either way: the stream of answers ends when the last of its senders is dropped.
    async fn serve(self, mut frames: Streaming<pb::InspectRequest>) {
        loop {
            let Ok(permit) = Arc::clone(&self.under_way).acquire_owned().await else { return };
            let next = tokio::select! {
                biased;
                () = self.stopper.cancelled() => return,
                next = frames.next() => next,
            };
            match next {
                Some(Ok(frame)) => self.admit(frame, permit).await,
                Some(Err(status)) => {
                    let _ = self.answers.send(Err(status)).await;
                    return;
                }
                None => return,
            }
        }
    }

    async fn admit(&self, frame: pb::InspectRequest, permit: OwnedSemaphorePermit) {
        let frame_id = frame.frame_id.clone();
        let request = match convert::frame_request(frame, &self.caller, Instant::now(), &self.limits) {
            Ok(request) => request,
            Err(status) => return self.answer(convert::refused_unread(frame_id, &status)).await,
        };
        match self.service.start(request) {
            Err(refusal) => self.answer(convert::refused(frame_id, &refusal)).await,
            Ok(outcome) => {
                let answers = self.answers.clone();
                tokio::spawn(async move {
                    let outcome = outcome
                        .await
                        .unwrap_or_else(|_| Err(Refusal::Internal("a frame was dropped unanswered".into())));
                    let message = match outcome {
                        Ok(answer) => convert::decided(frame_id, &answer),
                        Err(refusal) => convert::refused(frame_id, &refusal),
                    };
                    let _ = answers.send(Ok(message)).await;
                    drop(permit);
                });
            }
        }
    }

    async fn answer(&self, message: pb::InspectStreamResponse) {
        let _ = self.answers.send(Ok(message)).await;
    }
}
