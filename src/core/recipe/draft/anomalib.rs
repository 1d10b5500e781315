//! Models of anomalib 2: `pred_score`, `pred_label`, `anomaly_map`, `pred_mask`.
//!
//! Their graph begins with what anomalib's pre-processor does, normalising included, and takes RGB from 0 to 1. It ends with
//! its post-processor: scores scaled so that the threshold found in validation is 0.5, and cut to 0..1.

use super::{DraftError, Image, Plan, Wishes, is_unresized, labels::Labels, lines::Lines, number};
use crate::core::model::{
    ModelFacts,
    unbake::{RAW_OUTPUTS, threshold_property},
};

const SCORE: &str = "pred_score";
const MAP: &str = "anomaly_map";

pub(super) fn plan(facts: &ModelFacts, image: &Image<'_>, wishes: &Wishes) -> Result<Option<Plan>, DraftError> {
    let has = |name: &str| facts.outputs.iter().any(|output| output.name == name);
    if !has(SCORE) || !(has(MAP) || has("pred_label")) {
        return Ok(None);
    }
    if !has(MAP) {
        return Err(DraftError::NotServed(
            "this anomalib model gives a score and no map; a recipe of kind \"anomaly\" reads both. Export one of anomalib's \
             models that locates anomalies"
                .into(),
        ));
    }
    if image.channels == Some(1) {
        return Err(DraftError::NotServed("an anomalib model takes 3 channels, its input has 1".into()));
    }

    let mut input = Lines::default();
    input.text("tensor", image.tensor, "");
    input.text("colour", "rgb", "");
    image.write_size(&mut input, None);
    if is_unresized(image.size(None), wishes) {
        input.text("resize", "none", "");
    } else {
        input.text(
            "resize",
            "pillow-bilinear",
            "Nearest to anomalib's own resizing, which computes in floats and so differs by up to half a gray level. Frames of \
             just this size are passed on as they are.",
        );
    }
    input.text("fit", "stretch", "");
    input.known("mean", "[0.0, 0.0, 0.0]", "The graph normalises by itself.").known("std", "[1.0, 1.0, 1.0]", "");

    let labels = Labels::new(
        &Wishes { labels: wishes.labels.clone().or_else(|| Some(vec!["anomaly".into()])), ..wishes.clone() },
        None,
        Some(1),
        1,
        "an anomaly model",
    )?;
    let [raw_score, raw_map] = RAW_OUTPUTS.map(|(_, name)| raw_threshold(facts, name));
    let mut output = Lines::default();
    output.text("kind", "anomaly", "");
    if raw_map.is_some() && raw_score.is_some() {
        output.text("tensor", RAW_OUTPUTS[1].1, "Before anomalib scales and cuts them.");
        output.text("score_tensor", RAW_OUTPUTS[0].1, "");
    } else {
        output.text("tensor", MAP, "").text("score_tensor", SCORE, "");
    }
    output.text("activation", "none", "");
    labels.write(&mut output);
    let (pixel_threshold, reject) = raw_map.zip(raw_score).unwrap_or((0.5, 0.5));
    output.known("pixel_threshold", number(pixel_threshold), "Where anomalib's own pred_mask begins.");

    let mut policy = Lines::default();
    let (why, origin) = if raw_score.is_some() {
        (
            "As pred_label. reject is the threshold that anomalib found in validation, on the raw scale.",
            "anomalib 2 anomaly model, raw scores",
        )
    } else {
        (
            "As pred_label: anomalib compares its scaled score with 0.5, where the threshold found in validation lies. Scores \
             beyond 0 and 1 were cut in the graph; `lineproof model unbake` gives the raw ones out.",
            "anomalib 2 anomaly model",
        )
    };
    policy.text("comparator", ">", why);
    Ok(Some(Plan { origin: origin.into(), input, output, labels, policy, reject: Some(reject) }))
}

/// The threshold of a raw output that `model unbake` added.
fn raw_threshold(facts: &ModelFacts, name: &str) -> Option<f32> {
    let property = threshold_property(name);
    let (_, value) = facts.metadata.iter().find(|(key, _)| *key == property)?;
    let is_there = facts.outputs.iter().any(|output| output.name == name);
    value.parse().ok().filter(|value: &f32| value.is_finite() && is_there)
}
