//! One table from refusals to gRPC codes.
//!
//! What a code promises (G7): `INVALID_ARGUMENT`, `RESOURCE_EXHAUSTED`, `FAILED_PRECONDITION`, `ALREADY_EXISTS` and
//! `NOT_FOUND` mean that no decision was recorded for these bytes; the others leave it unknown, and a retry with the
//! same frame id tells.

use std::collections::HashMap;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::pb;
use crate::{
    ports::lineage::{AppendError, ReadError},
    services::{inspect::request::Refusal, parts::PartError, periods::CloseError},
};

/// The domain of `google.rpc.ErrorInfo`.
const DOMAIN: &str = "lineproof.v1";

/// The gRPC code of a refusal.
#[must_use]
pub fn code(refusal: &Refusal) -> Code {
    match refusal {
        Refusal::DigestMismatch { .. } | Refusal::BadFrame(_) | Refusal::Log(AppendError::Invalid(_)) => {
            Code::InvalidArgument
        }
        Refusal::UnknownSource(_) => Code::NotFound,
        Refusal::NoRecipe(_) | Refusal::RecipeUnavailable { .. } | Refusal::Log(AppendError::ReadOnly(_)) => {
            Code::FailedPrecondition
        }
        Refusal::Overload { .. } | Refusal::Log(AppendError::DiskReserve { .. }) => Code::ResourceExhausted,
        Refusal::Deadline { .. } => Code::DeadlineExceeded,
        Refusal::FrameIdReused { .. } => Code::AlreadyExists,
        Refusal::Log(AppendError::Stopped(_) | AppendError::Closed | AppendError::FrameUnknown(_))
        | Refusal::ShuttingDown => Code::Unavailable,
        Refusal::InferenceFault(_) | Refusal::Internal(_) => Code::Internal,
    }
}

/// The refusal as the status of a unary call, with `ErrorInfo` and `RetryInfo`.
#[must_use]
pub fn status(refusal: &Refusal) -> Status {
    let mut details = ErrorDetails::with_error_info(refusal.reason(), DOMAIN, HashMap::new());
    if let Some(after) = refusal.retry_after() {
        details.set_retry_info(Some(after));
    }
    Status::with_error_details(code(refusal), refusal.to_string(), details)
}

/// The refusal as a message within a stream.
#[must_use]
pub fn message(refusal: &Refusal) -> pb::Refusal {
    let retry_after = refusal.retry_after().map(|after| prost_types::Duration {
        seconds: i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(after.subsec_nanos()).unwrap_or(0),
    });
    pb::Refusal {
        code: code(refusal) as i32,
        reason: refusal.reason().to_owned(),
        message: refusal.to_string(),
        retry_after,
    }
}

/// Why there is no verdict on a part.
#[must_use]
pub fn of_part(error: &PartError) -> Status {
    let (code, reason) = match error {
        PartError::NotJoined(_) => (Code::FailedPrecondition, "not_joined"),
        PartError::Never(_) => (Code::FailedPrecondition, "never_joined"),
        PartError::NotYet(_) => (Code::DeadlineExceeded, "not_yet"),
        PartError::Read(ReadError::NoEntry { .. }) => (Code::NotFound, "no_entry"),
        PartError::Read(_) => (Code::Internal, "log_unreadable"),
    };
    let details = ErrorDetails::with_error_info(reason, DOMAIN, HashMap::new());
    Status::with_error_details(code, error.to_string(), details)
}

/// Why a period was not closed.
#[must_use]
pub fn of_close(error: &CloseError) -> Status {
    let (code, reason) = match error {
        CloseError::Append(error) => return status(&Refusal::Log(error.clone())),
        CloseError::UnknownSource(_) => (Code::NotFound, "unknown_station"),
        CloseError::Invalid(_) | CloseError::NoFirst => (Code::InvalidArgument, "announcement"),
        CloseError::NoPrevious => (Code::FailedPrecondition, "no_previous_period"),
        CloseError::NothingNew { .. } => (Code::FailedPrecondition, "nothing_new"),
        CloseError::NotNext { .. } => (Code::FailedPrecondition, "not_next"),
        CloseError::NameTaken { .. } => (Code::AlreadyExists, "period_name_taken"),
        CloseError::LeftOut { .. } => (Code::FailedPrecondition, "left_out"),
        CloseError::Index(_) => (Code::Unavailable, "index_rebuilding"),
        CloseError::Read(_) => (Code::Internal, "log_unreadable"),
    };
    let details = ErrorDetails::with_error_info(reason, DOMAIN, HashMap::new());
    Status::with_error_details(code, error.to_string(), details)
}

/// A field of a request that does not say what it should.
#[must_use]
pub fn bad_field(field: &str, reason: impl std::fmt::Display) -> Status {
    let details = ErrorDetails::with_bad_request_violation(field, reason.to_string());
    Status::with_error_details(Code::InvalidArgument, format!("{field}: {reason}"), details)
}
