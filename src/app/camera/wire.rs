//! Between what a line PC says and the messages on the wire; the only file here that knows them.

use std::time::{Duration, SystemTime};

use tonic::Code;

use super::words::{Decision, LabelScore, LineConfig, Outcome, OutgoingFrame, Refusal, StageTimes};
use crate::{edge::pb, types::Verdict};

pub type Request = pb::InspectRequest;
pub type Close = pb::ClosePeriodRequest;
pub type Closed = pb::ClosePeriodResponse;
pub type CounterRange = pb::CounterRange;
pub type Client = pb::inspection_service_client::InspectionServiceClient<tonic::transport::Channel>;

/// What is sent for one frame, the same each time it is sent.
pub fn request(config: &LineConfig, frame: &OutgoingFrame) -> Request {
    Request {
        line: config.line.to_string(),
        station: config.station.to_string(),
        camera: config.camera.to_string(),
        frame_id: frame.frame_id.to_string(),
        frame_counter: frame.frame_counter,
        trigger_counter: None,
        captured_at: Some(frame.captured_at.unwrap_or_else(SystemTime::now).into()),
        product: config.product.to_string(),
        serial: frame.serial.clone(),
        lot: frame.lot.clone(),
        recipe: config.recipe.as_ref().map(ToString::to_string).unwrap_or_default(),
        image_blake3: blake3::hash(&frame.image).as_bytes().to_vec(),
        image: Some(pb::Image {
            data: frame.image.clone(),
            raw: frame.raw.map(|raw| pb::RawLayout {
                pfnc: raw.format.code(),
                width_px: raw.width_px,
                height_px: raw.height_px,
                stride_bytes: raw.stride_bytes,
            }),
        }),
        useful_for: config.useful_for.and_then(|time| time.try_into().ok()),
    }
}

/// The frame an answer is for, and the answer. A verdict this program does not know is no verdict.
pub fn answer(response: pb::InspectStreamResponse) -> (String, Outcome) {
    let outcome = match response.outcome {
        Some(pb::inspect_stream_response::Outcome::Decided(decided)) => decision(decided),
        Some(pb::inspect_stream_response::Outcome::Refused(refused)) => Err(Refusal {
            code: Code::from_i32(refused.code),
            reason: refused.reason,
            message: refused.message,
            retry_after: refused.retry_after.and_then(|time| Duration::try_from(time).ok()),
        }),
        None => Err(unreadable("the answer holds neither a verdict nor a refusal")),
    };
    (response.frame_id, outcome)
}

fn decision(decided: pb::InspectResponse) -> Outcome {
    let verdict = match decided.verdict() {
        pb::Verdict::Ok => Verdict::Ok,
        pb::Verdict::NotOk => Verdict::NotOk,
        pb::Verdict::NotDecidable => Verdict::NotDecidable,
        pb::Verdict::Undefined => return Err(unreadable("the answer holds a verdict this program does not know")),
    };
    Ok(Decision {
        verdict,
        reasons: decided.reasons,
        score: decided.score,
        labels: decided.labels.into_iter().map(|label| LabelScore { label: label.label, score: label.score }).collect(),
        entry_index: decided.entry_index,
        leaf_hash: decided.leaf_hash,
        recipe: decided.recipe,
        is_duplicate: decided.duplicate,
        stages: decided.timings.map(|timings| StageTimes {
            queue_us: timings.queue_us,
            check_us: timings.check_us,
            decode_us: timings.decode_us,
            preprocess_us: timings.preprocess_us,
            infer_us: timings.infer_us,
            decide_us: timings.decide_us,
            seal_us: timings.seal_us,
            commit_us: timings.commit_us,
            total_us: timings.total_us,
        }),
    })
}

fn unreadable(message: &str) -> Refusal {
    Refusal {
        code: Code::DataLoss,
        reason: "unreadable_answer".to_owned(),
        message: format!("{message}; use a line PC and a service of the same release"),
        retry_after: None,
    }
}
