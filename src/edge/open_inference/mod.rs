//! `inference.GRPCInferenceService`: the Open Inference Protocol, for clients that speak it already. What a model, an input
//! and a parameter are here is in `docs/open-inference.md`.

mod frame;
mod models;
mod tensors;

use std::{
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_stream::{Stream, StreamExt as _, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status, Streaming};

use self::{
    frame::{Origin, Origins, Parameters},
    models::Models,
};
use super::{access::Caller, convert, inspection::InspectionLimits, status};
use crate::{
    core::lineage::entry::GapReason,
    services::inspect::{
        InspectHandle,
        request::{Outcome, Refusal},
    },
};

/// What `proto/inference/v2` says, compiled.
pub mod pb {
    tonic::include_proto!("inference");
}

pub use frame::OriginDefaults;

/// The gRPC face of [`InspectHandle`] in the Open Inference Protocol.
pub struct OpenInferenceEdge {
    service: InspectHandle,
    origins: Arc<Origins>,
    limits: InspectionLimits,
    stopper: CancellationToken,
}

impl OpenInferenceEdge {
    /// `defaults` says where a frame comes from that does not say it itself; `stopper` ends open streams.
    #[must_use]
    pub fn new(
        service: InspectHandle,
        defaults: OriginDefaults,
        limits: InspectionLimits,
        stopper: CancellationToken,
    ) -> Self {
        Self { service, origins: Arc::new(Origins::new(defaults)), limits, stopper }
    }

    fn models(&self) -> Models {
        Models::of(self.service.recipes())
    }
}

type Answers = Pin<Box<dyn Stream<Item = Result<pb::ModelStreamInferResponse, Status>> + Send>>;

#[tonic::async_trait]
impl pb::grpc_inference_service_server::GrpcInferenceService for OpenInferenceEdge {
    async fn server_live(
        &self,
        _request: Request<pb::ServerLiveRequest>,
    ) -> Result<Response<pb::ServerLiveResponse>, Status> {
        Ok(Response::new(pb::ServerLiveResponse { live: true }))
    }

    async fn server_ready(
        &self,
        _request: Request<pb::ServerReadyRequest>,
    ) -> Result<Response<pb::ServerReadyResponse>, Status> {
        let ready = !self.stopper.is_cancelled() && self.service.log_refusal().is_none();
        Ok(Response::new(pb::ServerReadyResponse { ready }))
    }

    async fn model_ready(
        &self,
        request: Request<pb::ModelReadyRequest>,
    ) -> Result<Response<pb::ModelReadyResponse>, Status> {
        let pb::ModelReadyRequest { name, version } = request.into_inner();
        let ready = self.models().is_ready(&name, &version)? && self.service.log_refusal().is_none();
        Ok(Response::new(pb::ModelReadyResponse { ready }))
    }

    async fn server_metadata(
        &self,
        _request: Request<pb::ServerMetadataRequest>,
    ) -> Result<Response<pb::ServerMetadataResponse>, Status> {
        Ok(Response::new(pb::ServerMetadataResponse {
            name: env!("CARGO_PKG_NAME").into(),
            version: env!("CARGO_PKG_VERSION").into(),
            extensions: ["model_configuration", "model_repository", "parameters"].map(str::to_owned).into(),
        }))
    }

    async fn model_metadata(
        &self,
        request: Request<pb::ModelMetadataRequest>,
    ) -> Result<Response<pb::ModelMetadataResponse>, Status> {
        let pb::ModelMetadataRequest { name, version } = request.into_inner();
        let models = self.models();
        let recipe = models.serving(&name, &version)?;
        let versions = models.versions(&name);
        Ok(Response::new(tensors::metadata(&recipe.recipe, versions)))
    }

    async fn model_config(
        &self,
        request: Request<pb::ModelConfigRequest>,
    ) -> Result<Response<pb::ModelConfigResponse>, Status> {
        let pb::ModelConfigRequest { name, version } = request.into_inner();
        let recipe = self.models().serving(&name, &version)?;
        Ok(Response::new(pb::ModelConfigResponse { config: Some(tensors::config(&recipe.recipe)) }))
    }

    async fn repository_index(
        &self,
        request: Request<pb::RepositoryIndexRequest>,
    ) -> Result<Response<pb::RepositoryIndexResponse>, Status> {
        let pb::RepositoryIndexRequest { repository_name, ready } = request.into_inner();
        if !repository_name.is_empty() {
            return Err(Status::not_found(format!("there is no repository {repository_name:?} here; name none")));
        }
        Ok(Response::new(pb::RepositoryIndexResponse { models: self.models().index(ready) }))
    }

    async fn model_infer(
        &self,
        request: Request<pb::ModelInferRequest>,
    ) -> Result<Response<pb::ModelInferResponse>, Status> {
        let sender = Sender {
            caller: Caller::of(&request)?,
            received: Instant::now(),
            timeout: convert::grpc_timeout(request.metadata()),
        };
        let started = start(&self.service, &self.origins, &self.limits, request.into_inner(), sender)?;
        started.answer().await.map(Response::new)
    }

    type ModelStreamInferStream = Answers;

    async fn model_stream_infer(
        &self,
        request: Request<Streaming<pb::ModelInferRequest>>,
    ) -> Result<Response<Answers>, Status> {
        let caller = Caller::of(&request)?;
        let (answers, outgoing) = mpsc::channel(self.limits.stream_frames_max);
        let stream = InferStream {
            service: self.service.clone(),
            origins: self.origins.clone(),
            limits: self.limits,
            caller,
            stopper: self.stopper.clone(),
        };
        tokio::spawn(stream.serve(request.into_inner(), answers));
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }
}

/// Who sent a request, when, and how long the call lasts.
struct Sender {
    caller: Caller,
    received: Instant,
    timeout: Option<Duration>,
}

/// An admitted frame, and what its answer is to look like.
struct Started {
    outcome: oneshot::Receiver<Outcome>,
    asked: tensors::Asked,
}

impl Started {
    async fn answer(self) -> Result<pb::ModelInferResponse, Status> {
        let outcome =
            self.outcome.await.unwrap_or_else(|_| Err(Refusal::Internal("a frame was dropped unanswered".into())));
        outcome.map(|answer| self.asked.response(&answer)).map_err(|refusal| status_of(&refusal))
    }
}

/// Checks a request and admits its frame. Once its camera is known, whatever is wrong with it is a gap in the log.
fn start(
    service: &InspectHandle,
    origins: &Origins,
    limits: &InspectionLimits,
    mut request: pb::ModelInferRequest,
    sender: Sender,
) -> Result<Started, Status> {
    let parameters = Parameters(std::mem::take(&mut request.parameters));
    let Origin { source, frame, counter } = origins.of(&parameters, &request.id)?;
    sender.caller.may_speak_for(&source.line, &source.station)?;
    if !service.knows(&source) {
        return Err(status_of(&Refusal::UnknownSource(source)));
    }
    let counter = counter.unwrap_or_else(|| service.next_counter(&source));
    let noted = |status: Status| {
        let reason = if status.code() == Code::NotFound { GapReason::NoRecipe } else { GapReason::BadFrame };
        service.note_refused(&source, reason, counter, &frame);
        status
    };
    let book = service.recipes();
    let asked = tensors::Asked::of(&request, &Models::of(Arc::clone(&book))).map_err(noted)?;
    let place = (source.clone(), frame.clone(), counter);
    let frame = origins.frame(request, &parameters, place, (&asked, &book), limits, sender).map_err(noted)?;
    let outcome = service.start(frame).map_err(|refusal| status_of(&refusal))?;
    Ok(Started { outcome, asked })
}

/// As everywhere, but that a model that is not there is not found.
fn status_of(refusal: &Refusal) -> Status {
    match refusal {
        Refusal::NoRecipe(reason) => Status::not_found(reason.clone()),
        other => status::status(other),
    }
}

/// One open stream.
struct InferStream {
    service: InspectHandle,
    origins: Arc<Origins>,
    limits: InspectionLimits,
    caller: Caller,
    stopper: CancellationToken,
}

impl InferStream {
    /// Reads requests until the client ends the stream or leaves, or the service stops. Answers come in the order of the
    /// requests; as many frames are under way as the limit says.
    async fn serve(
        self,
        mut requests: Streaming<pb::ModelInferRequest>,
        answers: mpsc::Sender<Result<pb::ModelStreamInferResponse, Status>>,
    ) {
        let under_way = Arc::new(Semaphore::new(self.limits.stream_frames_max));
        let (waiting, mut in_order) = mpsc::channel(self.limits.stream_frames_max);
        let answering = tokio::spawn(async move {
            while let Some((id, started, permit)) = in_order.recv().await {
                let answer = match started {
                    Ok(started) => Started::answer(started).await,
                    Err(status) => Err(status),
                };
                drop(permit);
                if answers.send(Ok(stream_response(id, answer))).await.is_err() {
                    // The client left; what was admitted is decided all the same.
                    return;
                }
            }
        });
        loop {
            let Ok(permit) = Arc::clone(&under_way).acquire_owned().await else { break };
            let next = tokio::select! {
                biased;
                () = self.stopper.cancelled() => break,
                next = requests.next() => next,
            };
            let Some(Ok(request)) = next else { break };
            let sender = Sender { caller: self.caller.clone(), received: Instant::now(), timeout: None };
            let id = request.id.clone();
            let started = start(&self.service, &self.origins, &self.limits, request, sender);
            if waiting.send((id, started, permit)).await.is_err() {
                break;
            }
        }
        drop(waiting);
        if answering.await.is_err() {
            tracing::error!("the answers of a stream ended with a panic");
        }
    }
}

fn stream_response(id: String, answer: Result<pb::ModelInferResponse, Status>) -> pb::ModelStreamInferResponse {
    match answer {
        Ok(response) => pb::ModelStreamInferResponse { error_message: String::new(), infer_response: Some(response) },
        Err(status) => pb::ModelStreamInferResponse {
            error_message: format!("[{}] {}", name_of(status.code()), status.message()),
            infer_response: Some(pb::ModelInferResponse { id, ..pb::ModelInferResponse::default() }),
        },
    }
}

/// The code's name, as the protocol's clients show it.
fn name_of(code: Code) -> &'static str {
    match code {
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::Unavailable => "UNAVAILABLE",
        _ => "INTERNAL",
    }
}
