//! `AuditService`: checkpoints, proofs and evidence.

use std::{io, sync::Arc};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status};

use super::{
    access::Caller,
    convert,
    history::read_code,
    pb,
    pb::{audit_service_server::AuditService as Api, get_passport_request::Of},
    status::bad_field,
};
use crate::{
    core::export::{manifest::Selection, writer::ExportError},
    services::audit::{Asker, AuditError, AuditService},
    types::{EntryIndex, Serial, Sha256Digest},
};

/// Bytes of an export in one message.
const CHUNK_BYTES: usize = 256 << 10;
/// Chunks that may wait for a slow client before the export waits, too.
const CHUNKS_WAITING_MAX: usize = 4;

/// The gRPC face of [`AuditService`].
pub struct AuditEdge {
    service: Arc<AuditService>,
}

impl AuditEdge {
    #[must_use]
    pub fn new(service: Arc<AuditService>) -> Self {
        Self { service }
    }

    /// Runs `work` on a thread that may block on the disk.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&AuditService) -> Result<T, AuditError> + Send + 'static,
    ) -> Result<T, Status> {
        let service = self.service.clone();
        match tokio::task::spawn_blocking(move || work(&service)).await {
            Ok(result) => result.map_err(|error| status(&error)),
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}

#[tonic::async_trait]
impl Api for AuditEdge {
    async fn get_checkpoint(
        &self,
        _request: Request<pb::GetCheckpointRequest>,
    ) -> Result<Response<pb::GetCheckpointResponse>, Status> {
        let read = |service: &AuditService| Ok((service.checkpoint()?, service.witnessed()?));
        let (latest, witnessed) = self.blocking(read).await?;
        let witnessed = witnessed.map(|witnessed| witnessed.note.to_string()).unwrap_or_default();
        Ok(Response::new(pb::GetCheckpointResponse { note: latest.note.to_string(), witnessed }))
    }

    async fn get_inclusion_proof(
        &self,
        request: Request<pb::GetInclusionProofRequest>,
    ) -> Result<Response<pb::GetInclusionProofResponse>, Status> {
        let pb::GetInclusionProofRequest { entry_index, tree_size } = request.into_inner();
        let answer = self
            .blocking(move |service| {
                let size = size_or_published(service, tree_size)?;
                let index = EntryIndex(entry_index);
                let leaf = crate::core::lineage::tree::leaf_hash(&service.reader.entry(index)?);
                let hashes = service.reader.inclusion_proof(index, size)?;
                Ok(pb::GetInclusionProofResponse {
                    leaf_hash: leaf.0.to_vec(),
                    tree_size: size,
                    hashes: bytes_of(&hashes),
                })
            })
            .await?;
        Ok(Response::new(answer))
    }

    async fn get_consistency_proof(
        &self,
        request: Request<pb::GetConsistencyProofRequest>,
    ) -> Result<Response<pb::GetConsistencyProofResponse>, Status> {
        let pb::GetConsistencyProofRequest { old_size, new_size } = request.into_inner();
        let answer = self
            .blocking(move |service| {
                let new_size = size_or_published(service, new_size)?;
                let hashes = service.reader.consistency_proof(old_size, new_size)?;
                Ok(pb::GetConsistencyProofResponse { new_size, hashes: bytes_of(&hashes) })
            })
            .await?;
        Ok(Response::new(answer))
    }

    async fn get_passport(
        &self,
        request: Request<pb::GetPassportRequest>,
    ) -> Result<Response<pb::GetPassportResponse>, Status> {
        let caller = Caller::of(&request)?;
        let asker = asker(&caller);
        let passports = match request.into_inner().of {
            None => return Err(bad_field("of", "is missing: serial or entry_index")),
            Some(Of::Serial(serial)) => {
                let serial: Serial = convert::field("serial", serial)?;
                self.blocking(move |service| service.passports_by_serial(&serial, &asker)).await?
            }
            Some(Of::EntryIndex(index)) => {
                let index = EntryIndex(index);
                vec![self.blocking(move |service| service.passport_by_index(index, &asker)).await?]
            }
        };
        let passports = passports
            .into_iter()
            .map(|passport| pb::Passport {
                entry_index: passport.index.0,
                erased: convert::erased(&passport.erased),
                receipt: passport.receipt,
                text: passport.text,
            })
            .collect();
        Ok(Response::new(pb::GetPassportResponse { passports }))
    }

    type ExportStream = ReceiverStream<Result<pb::ExportResponse, Status>>;

    async fn export(&self, request: Request<pb::ExportRequest>) -> Result<Response<Self::ExportStream>, Status> {
        let caller = Caller::of(&request)?;
        let (selection, asker) = (selection(request.into_inner().filter)?, asker(&caller));
        let (chunks, outgoing) = mpsc::channel(CHUNKS_WAITING_MAX);
        let service = self.service.clone();
        tokio::task::spawn_blocking(move || {
            let mut sink = ChunkSink { chunks: chunks.clone(), buffer: Vec::with_capacity(CHUNK_BYTES) };
            let exported = service.export(&selection, &asker, &mut sink, &mut |_| {});
            let sent = exported
                .map_err(|error| match error {
                    AuditError::Scope(error) => caller.not_granted(&error),
                    error => status(&error),
                })
                .and_then(|_| io::Write::flush(&mut sink).map_err(|_| Status::cancelled("the client left")));
            if let Err(status) = sent {
                // A client that left does not hear it.
                let _ = chunks.blocking_send(Err(status));
            }
        });
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }
}

/// Sends what is written as chunks; an error once the client has left, so that the export ends.
struct ChunkSink {
    chunks: mpsc::Sender<Result<pb::ExportResponse, Status>>,
    buffer: Vec<u8>,
}

impl io::Write for ChunkSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(CHUNK_BYTES - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..taken]);
        if self.buffer.len() == CHUNK_BYTES {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let data = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK_BYTES));
        let message = pb::ExportResponse { data: Bytes::from(data).into() };
        self.chunks.blocking_send(Ok(message)).map_err(|_| io::Error::other("the client left"))
    }
}

fn size_or_published(service: &AuditService, size: u64) -> Result<u64, AuditError> {
    if size == 0 { Ok(service.checkpoint()?.size) } else { Ok(size) }
}

fn bytes_of(hashes: &[Sha256Digest]) -> Vec<Vec<u8>> {
    hashes.iter().map(|hash| hash.0.to_vec()).collect()
}

fn asker(caller: &Caller) -> Asker {
    Asker { who: caller.opening(), scope: caller.scope().clone() }
}

fn selection(filter: Option<pb::DecisionFilter>) -> Result<Selection, Status> {
    let recipe = filter.as_ref().map(|filter| filter.recipe.clone()).unwrap_or_default();
    let recipe = convert::optional_field("filter.recipe", recipe)?;
    let filter = convert::filter(filter)?;
    Ok(Selection {
        camera: filter.camera,
        from: filter.from,
        line: filter.line,
        lot: filter.lot,
        part: filter.serial,
        product: filter.product,
        recipe,
        score_max: filter.score_max,
        score_min: filter.score_min,
        station: filter.station,
        to: filter.to,
        verdicts: filter.verdicts,
    }
    .normal())
}

/// One table from audit errors to gRPC codes.
fn status(error: &AuditError) -> Status {
    let code = match error {
        AuditError::NoPart { .. } | AuditError::Export(ExportError::Nothing) => Code::NotFound,
        AuditError::Export(ExportError::TooMany { .. } | ExportError::TooManyPeriods { .. }) => Code::OutOfRange,
        AuditError::NotGranted { .. } | AuditError::Scope(_) => Code::PermissionDenied,
        AuditError::NotYet { .. } | AuditError::Note(_) => Code::Unavailable,
        AuditError::Read(error) => read_code(error),
        AuditError::NoProof { .. } | AuditError::Index(_) | AuditError::Export(_) | AuditError::Witnessed(_) => {
            Code::Internal
        }
    };
    Status::new(code, error.to_string())
}
