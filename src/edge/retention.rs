//! `RetentionService`: erasure and legal holds, for the operator on the machine.

use std::sync::Arc;

use tonic::{Code, Request, Response, Status};

use super::{
    convert,
    history::read_code,
    pb,
    pb::{erase_request::Value, retention_service_server::RetentionService as Api},
    status::bad_field,
};
use crate::{
    core::lineage::private::PrivateField,
    ports::{index::IndexError, lineage::AppendError},
    services::retention::{EraseRequest, Hold, HoldRequest, RetentionError, RetentionService, run::Plan},
    types::EntryIndex,
};

/// The gRPC face of [`RetentionService`].
pub struct RetentionEdge {
    service: Arc<RetentionService>,
}

impl RetentionEdge {
    #[must_use]
    pub fn new(service: Arc<RetentionService>) -> Self {
        Self { service }
    }

    /// Runs `work` on a thread that may block on the disk. It goes on when the caller leaves.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&RetentionService) -> Result<T, RetentionError> + Send + 'static,
    ) -> Result<T, Status> {
        let service = self.service.clone();
        match tokio::task::spawn_blocking(move || work(&service)).await {
            Ok(result) => result.map_err(|error| status(&error)),
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}

#[tonic::async_trait]
impl Api for RetentionEdge {
    async fn erase(&self, request: Request<pb::EraseRequest>) -> Result<Response<pb::EraseResponse>, Status> {
        let pb::EraseRequest { value, rule, dry_run } = request.into_inner();
        let (field, value) = match value.ok_or_else(|| bad_field("value", "is missing: serial, lot or client"))? {
            Value::Serial(value) => (PrivateField::Serial, value),
            Value::Lot(value) => (PrivateField::Lot, value),
            Value::Client(value) => (PrivateField::Client, value),
        };
        let request = EraseRequest { field, value, rule, dry_run };
        let erased = self.blocking(move |service| service.erase(&request)).await?;
        Ok(Response::new(pb::EraseResponse {
            count: erased.entries.count(),
            entries: erased.entries.to_string(),
            decisions: erased.decisions,
            in_clear: erased.in_clear,
            recorded: erased.recorded.into_iter().map(|index| index.0).collect(),
        }))
    }

    async fn add_hold(&self, request: Request<pb::AddHoldRequest>) -> Result<Response<pb::AddHoldResponse>, Status> {
        let pb::AddHoldRequest { rule, serial, lot, client, product, line, from, to } = request.into_inner();
        let text = |value: String| (!value.is_empty()).then_some(value);
        let request = HoldRequest {
            rule,
            serial: text(serial),
            lot: text(lot),
            client: text(client),
            product: convert::optional_field("product", product)?,
            line: convert::optional_field("line", line)?,
            from: from.map(|time| convert::instant("from", time)).transpose()?,
            to: to.map(|time| convert::instant("to", time)).transpose()?,
        };
        let hold = self.blocking(move |service| service.add_hold(&request)).await?;
        Ok(Response::new(pb::AddHoldResponse { hold: hold.0 }))
    }

    async fn release_hold(
        &self,
        request: Request<pb::ReleaseHoldRequest>,
    ) -> Result<Response<pb::ReleaseHoldResponse>, Status> {
        let pb::ReleaseHoldRequest { hold, rule } = request.into_inner();
        let index = self.blocking(move |service| service.release_hold(EntryIndex(hold), &rule)).await?;
        Ok(Response::new(pb::ReleaseHoldResponse { entry_index: index.0 }))
    }

    async fn run(&self, request: Request<pb::RunRequest>) -> Result<Response<pb::RunResponse>, Status> {
        let dry_run = request.into_inner().dry_run;
        let work = move |service: &RetentionService| {
            if dry_run { Ok((service.plan()?, Vec::new())) } else { service.run() }
        };
        let (plan, recorded) = self.blocking(work).await?;
        let recorded = recorded.into_iter().map(|index| index.0).collect();
        Ok(Response::new(pb::RunResponse { due: due(&plan), recorded }))
    }

    async fn list_holds(
        &self,
        _request: Request<pb::ListHoldsRequest>,
    ) -> Result<Response<pb::ListHoldsResponse>, Status> {
        let holds = self.blocking(|service| Ok(service.book.holds()?)).await?;
        Ok(Response::new(pb::ListHoldsResponse { holds: holds.iter().map(hold).collect() }))
    }
}

fn due(plan: &Plan) -> Vec<pb::Due> {
    let images = plan.images.iter().map(|due| pb::Due {
        what: "images".into(),
        class: due.class.as_str().to_owned(),
        before: Some(convert::timestamp(due.before)),
        rule: due.rule.clone(),
        packs: due.packs.len() as u64,
        images: due.packs.iter().map(|pack| pack.images).sum(),
        bytes: due.packs.iter().map(|pack| pack.bytes).sum(),
        kept: due.kept,
        ..pb::Due::default()
    });
    let private = plan.private.iter().map(|due| pb::Due {
        what: "private".into(),
        class: due.class.as_str().to_owned(),
        before: Some(convert::timestamp(due.before)),
        rule: due.rule.clone(),
        entries: due.entries.len() as u64,
        values: due.entries.iter().map(|(_, fields)| fields.len() as u64).sum(),
        kept: due.kept,
        ..pb::Due::default()
    });
    images.chain(private).collect()
}

fn hold(hold: &Hold) -> pb::Hold {
    let opened = |field| {
        let opening = hold.openings.iter().find(|opening| opening.field == field);
        opening.map(|opening| opening.value.clone()).unwrap_or_default()
    };
    let entry = &hold.entry;
    let what = pb::AddHoldRequest {
        rule: entry.rule.clone(),
        serial: opened(PrivateField::Serial),
        lot: opened(PrivateField::Lot),
        client: opened(PrivateField::Client),
        product: entry.product.as_ref().map(ToString::to_string).unwrap_or_default(),
        line: entry.line.as_ref().map(ToString::to_string).unwrap_or_default(),
        from: entry.from.map(convert::timestamp),
        to: entry.to.map(convert::timestamp),
    };
    pb::Hold { hold: hold.index.0, since: Some(convert::timestamp(entry.time)), what: Some(what) }
}

/// One table from retention errors to gRPC codes.
fn status(error: &RetentionError) -> Status {
    let code = match error {
        RetentionError::Nothing(_) | RetentionError::NoHold(_) => Code::NotFound,
        RetentionError::Rule(_)
        | RetentionError::Value { .. }
        | RetentionError::Everything
        | RetentionError::NoTime { .. } => Code::InvalidArgument,
        RetentionError::Held { .. } | RetentionError::NamedByHold { .. } => Code::FailedPrecondition,
        RetentionError::Log(AppendError::DiskReserve { .. }) => Code::ResourceExhausted,
        RetentionError::Log(AppendError::ReadOnly(_)) => Code::FailedPrecondition,
        RetentionError::Unfinished(_) | RetentionError::Log(_) => Code::Unavailable,
        RetentionError::Read(error) => read_code(error),
        RetentionError::Index(IndexError::Rebuilding { .. }) => Code::Unavailable,
        RetentionError::Images(_) | RetentionError::Index(_) | RetentionError::Entry(_) => Code::Internal,
    };
    Status::new(code, error.to_string())
}
