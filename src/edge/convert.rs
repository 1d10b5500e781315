//! Between prost messages and the service's types. Everything is checked here, once.

use std::time::{Duration, Instant};

use tonic::{Code, Status, metadata::MetadataMap};

use super::{
    access::Caller,
    inspection::InspectionLimits,
    pb,
    status::{self, bad_field},
};
use crate::{
    core::{
        decide::{Bounds, DefectArea, DetectedBox},
        frame::RawLayout,
        lineage::{
            entry::{COUNTER_MAX, Decision, LabelRecord},
            part::ViewRecord,
            period::{CounterRange, RANGES_MAX},
            private::PrivateField,
        },
    },
    ports::index::{Filter, RecipeFilter},
    services::{
        inspect::{
            gaps::Source,
            request::{Answer, FrameRequest, Refusal, Timings},
        },
        parts::JoinedPart,
        periods::{CloseRequest, Closed},
        retention::Noted,
    },
    types::{self, Blake3Digest, PixelFormat, Verdict},
};

/// Checks every field of a frame, and that it comes from whom its station belongs to.
pub fn frame_request(
    message: pb::InspectRequest,
    caller: &Caller,
    received: Instant,
    limits: &InspectionLimits,
) -> Result<FrameRequest, Status> {
    let image = message.image.ok_or_else(|| bad_field("image", "is missing"))?;
    if image.data.is_empty() {
        return Err(bad_field("image.data", "is empty"));
    }
    if image.data.len() > limits.frame_bytes_max {
        let (len, max) = (image.data.len(), limits.frame_bytes_max);
        return Err(bad_field("image.data", format!("has {len} bytes; this service takes {max}")));
    }
    for (name, counter) in
        [("frame_counter", Some(message.frame_counter)), ("trigger_counter", message.trigger_counter)]
    {
        if counter.is_some_and(|counter| counter > COUNTER_MAX) {
            return Err(bad_field(name, format!("is above {COUNTER_MAX}")));
        }
    }
    let source = Source {
        line: field("line", message.line)?,
        station: field("station", message.station)?,
        camera: field("camera", message.camera)?,
    };
    caller.may_speak_for(&source.line, &source.station)?;
    Ok(FrameRequest {
        source,
        frame: field("frame_id", message.frame_id)?,
        counter: message.frame_counter,
        trigger: message.trigger_counter,
        captured: message.captured_at.map(|time| instant("captured_at", time)).transpose()?,
        product: field("product", message.product)?,
        serial: field("serial", message.serial)?,
        lot: optional_field("lot", message.lot)?,
        recipe: optional_field("recipe", message.recipe)?,
        claimed: Some(Blake3Digest::from_slice(&message.image_blake3).map_err(|e| bad_field("image_blake3", e))?),
        image: image.data,
        raw: image.raw.map(raw_layout).transpose()?,
        client: caller.identity.said(),
        received,
        useful_for: message.useful_for.map_or(Ok(limits.useful_for), |value| duration("useful_for", value))?,
    })
}

/// Checks every field of an announcement.
pub fn close_request(message: pb::ClosePeriodRequest, client: Option<String>) -> Result<CloseRequest, Status> {
    if message.lost.len() > RANGES_MAX {
        return Err(bad_field("lost", format!("has {} ranges; at most {RANGES_MAX} are allowed", message.lost.len())));
    }
    let lost = message.lost.iter().map(|range| CounterRange { first: range.first, last: range.last });
    Ok(CloseRequest {
        source: Source {
            line: field("line", message.line)?,
            station: field("station", message.station)?,
            camera: field("camera", message.camera)?,
        },
        period: field("period", message.period)?,
        first: message.first_counter,
        last: message.last_counter,
        restarted: message.counter_restarted,
        lost: lost.collect(),
        parts: message.parts,
        frames_per_part: message.frames_per_part,
        unseen: message.parts_unseen,
        from: message.from.map(|time| instant("from", time)).transpose()?,
        to: message.to.map(|time| instant("to", time)).transpose()?,
        client,
    })
}

/// A close as its caller hears of it.
#[must_use]
pub fn closed(closed: &Closed) -> pb::ClosePeriodResponse {
    let close = &closed.close;
    let range = |range: &CounterRange| pb::CounterRange { first: range.first, last: range.last };
    pb::ClosePeriodResponse {
        entry_index: closed.receipt.index.0,
        leaf_hash: closed.receipt.leaf_hash.0.to_vec(),
        duplicate: closed.is_duplicate,
        complete: close.is_complete(),
        first_counter: close.announced.first,
        last_counter: close.announced.last,
        decided: close.decided,
        gaps: close.gaps,
        lost: close.lost_frames,
        missing: close.missing_frames,
        missing_counters: close.missing.iter().map(range).collect(),
        frames_short: close.announced.frames_short(),
        since: close.since,
        end: close.end,
    }
}

/// A name, checked by its type.
pub fn field<T: std::str::FromStr>(name: &str, text: String) -> Result<T, Status>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|error| bad_field(name, error))
}

/// The same, where empty means none.
pub fn optional_field<T: std::str::FromStr>(name: &str, text: String) -> Result<Option<T>, Status>
where
    T::Err: std::fmt::Display,
{
    if text.is_empty() { Ok(None) } else { field(name, text).map(Some) }
}

fn raw_layout(raw: pb::RawLayout) -> Result<RawLayout, Status> {
    let format = PixelFormat::from_code(raw.pfnc).map_err(|error| bad_field("image.raw.pfnc", error))?;
    let (width_px, height_px) = (raw.width_px, raw.height_px);
    Ok(RawLayout { format, width_px, height_px, stride_bytes: (raw.stride_bytes != 0).then_some(raw.stride_bytes) })
}

pub fn instant(name: &str, time: prost_types::Timestamp) -> Result<types::Instant, Status> {
    let nanos = time
        .seconds
        .checked_mul(1_000_000_000)
        .and_then(|nanos| nanos.checked_add(i64::from(time.nanos)))
        .ok_or_else(|| bad_field(name, "is outside the years 1970 to 2262"))?;
    types::Instant::from_unix_nanos(nanos).map_err(|error| bad_field(name, error))
}

/// The private values of an entry that were destroyed.
#[must_use]
pub fn erased(erased: &[(PrivateField, Noted)]) -> Vec<pb::ErasedValue> {
    let message = |(field, (index, entry)): &(PrivateField, Noted)| pb::ErasedValue {
        field: field.name().to_owned(),
        entry_index: index.0,
        erased_at: Some(timestamp(entry.time)),
        rule: entry.rule.clone(),
    };
    erased.iter().map(message).collect()
}

#[must_use]
pub fn timestamp(time: types::Instant) -> prost_types::Timestamp {
    let nanos = time.unix_nanos();
    prost_types::Timestamp {
        seconds: nanos.div_euclid(1_000_000_000),
        nanos: i32::try_from(nanos.rem_euclid(1_000_000_000)).expect("below 10^9"),
    }
}

pub fn duration(name: &str, value: prost_types::Duration) -> Result<Duration, Status> {
    Duration::try_from(value).map_err(|_| bad_field(name, "is no positive duration"))
}

/// The call's own deadline, as the `grpc-timeout` header gives it: at most eight digits and a unit.
#[must_use]
pub fn grpc_timeout(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(amount * 3600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

/// The answer to a unary call.
#[must_use]
pub fn answer(answer: &Answer) -> pb::InspectResponse {
    let decision = &answer.decision;
    pb::InspectResponse {
        frame_id: decision.frame.id.to_string(),
        verdict: verdict(decision.verdict).into(),
        reasons: decision.reasons.clone(),
        score: decision.scores.decision.get(),
        labels: labels(decision, &answer.areas),
        entry_index: answer.receipt.index.0,
        leaf_hash: answer.receipt.leaf_hash.0.to_vec(),
        recipe: decision.recipe.name.to_string(),
        recipe_digest: decision.recipe.digest.to_string(),
        duplicate: answer.timings.is_none(),
        decided_at: Some(timestamp(decision.time)),
        timings: answer.timings.map(timings),
    }
}

/// A verdict on a whole part.
#[must_use]
pub fn part(joined: &JoinedPart) -> pb::GetPartResponse {
    let view = |view: &ViewRecord| pb::PartView {
        view: view.view.to_string(),
        line: view.line.to_string(),
        station: view.station.to_string(),
        camera: view.camera.to_string(),
        verdict: view.verdict.map_or(pb::Verdict::Undefined, verdict).into(),
        entry_index: view.entry.map(|entry| entry.0),
    };
    pb::GetPartResponse {
        verdict: verdict(joined.part.verdict).into(),
        complete: joined.part.is_complete(),
        views: joined.part.views.iter().map(view).collect(),
        entry_index: joined.receipt.index.0,
        leaf_hash: joined.receipt.leaf_hash.0.to_vec(),
        decided_at: Some(timestamp(joined.part.time)),
    }
}

#[must_use]
pub fn decided(frame_id: String, made: &Answer) -> pb::InspectStreamResponse {
    use pb::inspect_stream_response::Outcome;
    pb::InspectStreamResponse { frame_id, outcome: Some(Outcome::Decided(answer(made))) }
}

#[must_use]
pub fn refused(frame_id: String, refusal: &Refusal) -> pb::InspectStreamResponse {
    use pb::inspect_stream_response::Outcome;
    pb::InspectStreamResponse { frame_id, outcome: Some(Outcome::Refused(status::message(refusal))) }
}

/// A frame whose fields could not be read, within a stream.
#[must_use]
pub fn refused_unread(frame_id: String, status: &Status) -> pb::InspectStreamResponse {
    use pb::inspect_stream_response::Outcome;
    let refusal = pb::Refusal {
        code: status.code() as i32,
        reason: if status.code() == Code::PermissionDenied { "station" } else { "bad_request" }.into(),
        message: status.message().to_owned(),
        retry_after: None,
    };
    pb::InspectStreamResponse { frame_id, outcome: Some(Outcome::Refused(refusal)) }
}

#[must_use]
pub fn verdict(verdict: Verdict) -> pb::Verdict {
    match verdict {
        Verdict::Ok => pb::Verdict::Ok,
        Verdict::NotDecidable => pb::Verdict::NotDecidable,
        Verdict::NotOk => pb::Verdict::NotOk,
    }
}

/// A verdict that a decision can have.
#[must_use]
pub fn verdict_of(verdict: pb::Verdict) -> Option<Verdict> {
    match verdict {
        pb::Verdict::Ok => Some(Verdict::Ok),
        pb::Verdict::NotOk => Some(Verdict::NotOk),
        pb::Verdict::NotDecidable => Some(Verdict::NotDecidable),
        pb::Verdict::Undefined => None,
    }
}

/// Scores with thresholds, and with areas and boxes where the model gave some.
#[must_use]
pub fn labels(decision: &Decision, areas: &[DefectArea]) -> Vec<pb::LabelScore> {
    let label = |(position, record): (usize, &LabelRecord)| {
        let area = areas.get(position);
        pb::LabelScore {
            label: record.label.clone(),
            score: record.score.get(),
            review_threshold: record.review.map(types::Score::get),
            reject_threshold: record.reject.map(types::Score::get),
            area_px: area.and_then(|area| area.area_px),
            // The recorded decision of a frame sent again has no areas; what it says of places it still says.
            r#box: area.and_then(|area| area.bounds).or(record.at).map(bounds),
            boxes: area.map(|area| area.boxes.iter().map(detected).collect()).unwrap_or_default(),
        }
    };
    decision.scores.labels.iter().enumerate().map(label).collect()
}

fn bounds(bounds: Bounds) -> pb::Box {
    let Bounds { x_px, y_px, width_px, height_px } = bounds;
    pb::Box { x_px, y_px, width_px, height_px }
}

fn detected(found: &DetectedBox) -> pb::DetectedBox {
    pb::DetectedBox { r#box: Some(bounds(found.bounds)), score: found.score.get() }
}

fn timings(timings: Timings) -> pb::Timings {
    let us = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    pb::Timings {
        queue_us: us(timings.queue),
        check_us: us(timings.check),
        decode_us: us(timings.decode),
        preprocess_us: us(timings.preprocess),
        infer_us: us(timings.infer),
        decide_us: us(timings.decide),
        seal_us: us(timings.seal),
        commit_us: us(timings.commit),
        total_us: us(timings.total),
    }
}

/// What a search asks for.
pub fn filter(message: Option<pb::DecisionFilter>) -> Result<Filter, Status> {
    let Some(message) = message else { return Ok(Filter::default()) };
    let verdicts = message.verdicts().map(known_verdict).collect::<Result<Vec<_>, _>>()?;
    let score = |name, value: Option<f32>| {
        value.map(|value| types::Score::new(value).map_err(|error| bad_field(name, error))).transpose()
    };
    Ok(Filter {
        from: message.from.map(|time| instant("filter.from", time)).transpose()?,
        to: message.to.map(|time| instant("filter.to", time)).transpose()?,
        line: optional_field("filter.line", message.line)?,
        station: optional_field("filter.station", message.station)?,
        camera: optional_field("filter.camera", message.camera)?,
        product: optional_field("filter.product", message.product)?,
        serial: optional_field("filter.serial", message.serial)?,
        lot: optional_field("filter.lot", message.lot)?,
        verdicts,
        recipe: recipe_filter(message.recipe)?,
        score_min: score("filter.score_min", message.score_min)?,
        score_max: score("filter.score_max", message.score_max)?,
        ..Filter::default()
    })
}

fn recipe_filter(text: String) -> Result<Option<RecipeFilter>, Status> {
    if text.starts_with(Blake3Digest::PREFIX) {
        return field("filter.recipe", text).map(|digest| Some(RecipeFilter::Digest(digest)));
    }
    Ok(optional_field("filter.recipe", text)?.map(RecipeFilter::Name))
}

fn known_verdict(verdict: pb::Verdict) -> Result<Verdict, Status> {
    verdict_of(verdict).ok_or_else(|| bad_field("filter.verdicts", "no decision has the verdict UNDEFINED"))
}

/// The same filter on its way out.
#[must_use]
pub fn filter_message(filter: &Filter) -> pb::DecisionFilter {
    fn text<T: ToString>(value: Option<&T>) -> String {
        value.map(ToString::to_string).unwrap_or_default()
    }
    let recipe = match &filter.recipe {
        None => String::new(),
        Some(RecipeFilter::Name(name)) => name.to_string(),
        Some(RecipeFilter::Digest(digest)) => digest.to_string(),
    };
    pb::DecisionFilter {
        from: filter.from.map(timestamp),
        to: filter.to.map(timestamp),
        line: text(filter.line.as_ref()),
        station: text(filter.station.as_ref()),
        camera: text(filter.camera.as_ref()),
        product: text(filter.product.as_ref()),
        serial: text(filter.serial.as_ref()),
        lot: text(filter.lot.as_ref()),
        verdicts: filter.verdicts.iter().map(|verdict| self::verdict(*verdict).into()).collect(),
        recipe,
        score_min: filter.score_min.map(types::Score::get),
        score_max: filter.score_max.map(types::Score::get),
    }
}
