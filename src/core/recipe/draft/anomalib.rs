//! Models of anomalib 2: `pred_score`, `pred_label`, `anomaly_map`, `pred_mask`.
//!
//! Their graph begins with what anomalib's pre-processor does, normalising included, and takes RGB from 0 to 1. It ends with
//! its post-processor: scores scaled so that the threshold found in validation is 0.5, and cut to 0..1.

use super::{DraftError, Image, Plan, Wishes, is_unresized, labels::Labels, lines::Lines};
use crate::core::model::ModelFacts;

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
    let mut output = Lines::default();
    output.text("kind", "anomaly", "").text("tensor", MAP, "").text("score_tensor", SCORE, "");
    output.text("activation", "none", "");
    labels.write(&mut output);
    output.known("pixel_threshold", "0.5", "Where anomalib's own pred_mask begins.");

    let mut policy = Lines::default();
    policy.text(
        "comparator",
        ">",
        "As pred_label: anomalib compares its scaled score with 0.5, where the threshold found in validation lies. Scores beyond \
         0 and 1 were cut in the graph.",
    );
    Ok(Some(Plan { origin: "anomalib 2 anomaly model".into(), input, output, labels, policy, reject: Some(0.5) }))
}
