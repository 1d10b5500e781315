//! `HistoryService`: searching decisions.

use std::sync::Arc;

use tonic::{Code, Request, Response, Status};

use super::{
    access::Caller,
    convert, pb,
    pb::{get_decision_request::By, history_service_server::HistoryService as Api},
    status::bad_field,
};
use crate::{
    core::{
        access::Narrowed,
        lineage::{entry::AccessEvent, private::PrivateField},
    },
    ports::{
        index::{Bucket, CountBy, Filter, GroupBy, IndexError, Order, VerdictCounts},
        lineage::ReadError,
    },
    services::history::{HistoryError, HistoryService, ListRequest, Row},
    types::{EntryIndex, FrameKey, Instant, Sha256Digest},
};

/// The gRPC face of [`HistoryService`].
pub struct HistoryEdge {
    service: Arc<HistoryService>,
}

impl HistoryEdge {
    #[must_use]
    pub fn new(service: Arc<HistoryService>) -> Self {
        Self { service }
    }
}

#[tonic::async_trait]
impl Api for HistoryEdge {
    async fn get_decision(
        &self,
        request: Request<pb::GetDecisionRequest>,
    ) -> Result<Response<pb::GetDecisionResponse>, Status> {
        let caller = Caller::of(&request)?;
        let by = request.into_inner().by.ok_or_else(|| bad_field("by", "is missing: entry_index or frame"))?;
        let row = match by {
            By::EntryIndex(index) => {
                self.service.blocking(move |service| service.decision(EntryIndex(index), true)).await
            }
            By::Frame(frame) => {
                let key = FrameKey {
                    line: convert::field("frame.line", frame.line)?,
                    camera: convert::field("frame.camera", frame.camera)?,
                    frame: convert::field("frame.frame_id", frame.frame_id)?,
                };
                self.service.blocking(move |service| service.decision_of(&key, true)).await
            }
        };
        let row = row.map_err(|error| status(&error))?;
        if !row.decision().is_some_and(|decision| caller.scope().admits(&decision.product, decision.time)) {
            // As if there were none: what is not granted is not spoken of.
            return Err(Status::not_found("there is no such decision among those that are granted to you"));
        }
        caller.note(AccessEvent::Read, Some(row.index)).await;
        Ok(found(row))
    }

    async fn list_decisions(
        &self,
        request: Request<pb::ListDecisionsRequest>,
    ) -> Result<Response<pb::ListDecisionsResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let list = ListRequest {
            filter: granted(&caller, convert::filter(request.filter)?)?,
            order: if request.oldest_first { Order::OldestFirst } else { Order::NewestFirst },
            page_rows: request.page_size as usize,
            cursor: request.cursor,
            reveal: true,
        };
        let page = self.service.blocking(move |service| service.list(&list)).await.map_err(|error| status(&error))?;
        let decisions = page.rows.into_iter().filter_map(decision_row).collect();
        Ok(Response::new(pb::ListDecisionsResponse { decisions, next_cursor: page.next_cursor }))
    }

    async fn count_decisions(
        &self,
        request: Request<pb::CountDecisionsRequest>,
    ) -> Result<Response<pb::CountDecisionsResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let bucket = match request.bucket {
            None => None,
            Some(width) => {
                let width = convert::duration("bucket", width)?;
                let width_nanos = i64::try_from(width.as_nanos()).map_err(|_| bad_field("bucket", "is too long"))?;
                (width_nanos > 0).then_some(Bucket { width_nanos, origin: Instant::EPOCH })
            }
        };
        let group = match request.group_by() {
            pb::GroupBy::None => None,
            pb::GroupBy::Line => Some(GroupBy::Line),
            pb::GroupBy::Product => Some(GroupBy::Product),
            pb::GroupBy::Recipe => Some(GroupBy::Recipe),
        };
        let filter = granted(&caller, convert::filter(request.filter)?)?;
        let by = CountBy { bucket, group };
        let cells =
            self.service.blocking(move |service| service.count(&filter, by)).await.map_err(|error| status(&error))?;
        let mut total = VerdictCounts::default();
        let mut buckets = Vec::new();
        for cell in cells {
            total.ok += cell.counts.ok;
            total.not_ok += cell.counts.not_ok;
            total.not_decidable += cell.counts.not_decidable;
            if cell.start.is_some() || cell.group.is_some() {
                let start = cell.start.map(|start| prost_types::Timestamp {
                    seconds: start.div_euclid(1_000_000_000),
                    nanos: i32::try_from(start.rem_euclid(1_000_000_000)).expect("below 10^9"),
                });
                let VerdictCounts { ok, not_ok, not_decidable } = cell.counts;
                let group = cell.group.unwrap_or_default();
                buckets.push(pb::CountBucket { start, ok, not_ok, not_decidable, group });
            }
        }
        let VerdictCounts { ok, not_ok, not_decidable } = total;
        Ok(Response::new(pb::CountDecisionsResponse { buckets, ok, not_ok, not_decidable }))
    }
}

/// The search within what the caller may see.
fn granted(caller: &Caller, filter: Filter) -> Result<Filter, Status> {
    let narrowed = caller.scope().narrow(filter.product.as_ref(), filter.from, filter.to);
    let Narrowed { product, from, to } = narrowed.map_err(|error| caller.not_granted(&error))?;
    Ok(Filter { product, from, to, ..filter })
}

fn found(row: Row) -> Response<pb::GetDecisionResponse> {
    Response::new(pb::GetDecisionResponse { decision: decision_row(row) })
}

/// A row of the answer; `None` for an entry that is no decision.
fn decision_row(row: Row) -> Option<pb::DecisionRow> {
    let opened = |field| row.opened(field).unwrap_or_default().to_owned();
    let (serial, lot) = (opened(PrivateField::Serial), opened(PrivateField::Lot));
    let leaf_hash = leaf_hash(&row.bytes).0.to_vec();
    let decision = row.decision()?;
    Some(pb::DecisionRow {
        entry_index: row.index.0,
        leaf_hash,
        decided_at: Some(convert::timestamp(decision.time)),
        line: decision.line.to_string(),
        station: decision.station.to_string(),
        camera: decision.camera.to_string(),
        frame_id: decision.frame.id.to_string(),
        frame_counter: decision.frame.counter,
        product: decision.product.to_string(),
        serial,
        lot,
        verdict: convert::verdict(decision.verdict).into(),
        reasons: decision.reasons.clone(),
        score: decision.scores.decision.get(),
        labels: convert::labels(decision, &[]),
        recipe: decision.recipe.name.to_string(),
        recipe_digest: decision.recipe.digest.to_string(),
        model_digest: decision.model.digest.to_string(),
        image_digest: decision.image.encoded.to_string(),
        entry: row.bytes.clone(),
        erased: convert::erased(&row.erased),
    })
}

fn leaf_hash(entry: &[u8]) -> Sha256Digest {
    crate::core::lineage::tree::leaf_hash(entry)
}

/// One table from history errors to gRPC codes.
#[must_use]
pub fn status(error: &HistoryError) -> Status {
    let code = match error {
        HistoryError::Rebuilding { .. } => Code::Unavailable,
        HistoryError::NoFrame(_) | HistoryError::NoDecision { .. } => Code::NotFound,
        HistoryError::PageSize(_) | HistoryError::Cursor(_) => Code::InvalidArgument,
        HistoryError::Index(IndexError::Query(_)) => Code::InvalidArgument,
        HistoryError::Index(_) => Code::Internal,
        HistoryError::Log(error) => read_code(error),
        HistoryError::Entry { .. } => Code::DataLoss,
    };
    Status::new(code, error.to_string())
}

/// The same for reads of the log.
#[must_use]
pub fn read_code(error: &ReadError) -> Code {
    match error {
        ReadError::NoEntry { .. } => Code::NotFound,
        ReadError::Size { .. } => Code::OutOfRange,
        ReadError::Damaged { .. } => Code::DataLoss,
        ReadError::Io { .. } => Code::Internal,
        ReadError::Index(_) => Code::Unavailable,
    }
}
