//! From what was measured and judged to the decision entry.

use super::{examine::Examined, request::FrameRequest};
use crate::{
    core::{
        decide::{Judged, LabelScore},
        lineage::{
            entry::{
                ClockState, Commitments, Decision, DecisionKind, ENTRY_VERSION, FrameRecord, ImageRecord, LabelRecord,
                ModelRecord, QualityRecord, RecipeRecord, RuntimeRecord, ScoresRecord,
            },
            private::{Opening, PrivateField, SALT_BYTES},
        },
        quality::QualityReport,
        recipe::Recipe,
    },
    ports::archive::RetentionClass,
    ports::recipes::LoadedRecipe,
    services::retention::rules::{ClassRule, class_of},
    types::{Blake3Digest, Instant, ProductId, Verdict},
};

/// Which images are kept.
#[derive(Clone, Debug)]
pub struct ArchiveRule {
    pub not_ok: bool,
    pub not_decidable: bool,
    /// Share of OK frames, 0 to 1.
    pub ok_share: f64,
    /// Classes of the operator's; a frame that none takes is filed by its verdict.
    pub classes: Vec<ClassRule>,
}

/// What is known of a frame beside what was seen on it.
pub(super) struct Facts {
    pub encoded: Blake3Digest,
    /// The retention class, or `none:<reason>`.
    pub archive: String,
    pub time: Instant,
    pub clock: ClockState,
}

/// The class an image is archived under, or why it is not. OK images are chosen by their digest, so that nobody can
/// choose which, and the choice can be checked from the entry alone.
pub(super) fn retention_class(
    rule: &ArchiveRule,
    verdict: Verdict,
    product: &ProductId,
    encoded: Blake3Digest,
) -> Result<RetentionClass, &'static str> {
    let (keep, class) = match verdict {
        Verdict::NotOk => (rule.not_ok, "not_ok"),
        Verdict::NotDecidable => (rule.not_decidable, "not_decidable"),
        Verdict::Ok => (digest_fraction(encoded) < rule.ok_share, "ok_sample"),
    };
    if !keep {
        return Err("none:not_selected");
    }
    if let Some(rule) = class_of(&rule.classes, verdict, product) {
        return Ok(rule.class.clone());
    }
    Ok(RetentionClass::new(class).expect("the built-in class names are valid"))
}

/// The digest's first eight bytes as a fraction of all values, 0 up to 1.
#[expect(clippy::cast_precision_loss, reason = "53 bits are enough to choose a share by")]
fn digest_fraction(digest: Blake3Digest) -> f64 {
    let mut head = [0; 8];
    head.copy_from_slice(&digest.0[..8]);
    (u64::from_be_bytes(head) >> 11) as f64 / (1_u64 << 53) as f64
}

/// The private values of a frame, each with a fresh salt.
pub(super) fn openings(request: &FrameRequest) -> Vec<Opening> {
    let values = [
        (PrivateField::Client, request.client.clone()),
        (PrivateField::Lot, request.lot.as_ref().map(|lot| lot.as_str().to_owned())),
        (PrivateField::Serial, Some(request.serial.as_str().to_owned())),
    ];
    let salted = |(field, value): (_, Option<String>)| value.map(|value| Opening { field, salt: salt(), value });
    values.into_iter().filter_map(salted).collect()
}

/// Fresh random bytes from the operating system.
pub(crate) fn salt() -> [u8; SALT_BYTES] {
    let mut salt = [0; SALT_BYTES];
    getrandom::fill(&mut salt).expect("the operating system gives random bytes");
    salt
}

/// The commitments to `openings`.
pub(crate) fn commitments(openings: &[Opening]) -> Commitments {
    let of = |field| openings.iter().find(|opening| opening.field == field).map(Opening::commitment);
    Commitments { client: of(PrivateField::Client), lot: of(PrivateField::Lot), serial: of(PrivateField::Serial) }
}

/// Name, version and, where the build says so, the source revision.
#[must_use]
pub fn software() -> String {
    match option_env!("LINEPROOF_BUILD") {
        Some(build) if !build.is_empty() => format!("lineproof {}+{build}", env!("CARGO_PKG_VERSION")),
        _ => format!("lineproof {}", env!("CARGO_PKG_VERSION")),
    }
}

/// The quality values as a decision has them.
pub(crate) fn quality_record(quality: &QualityReport) -> QualityRecord {
    QualityRecord { focus: quality.focus, mean: quality.mean, saturated: quality.saturated }
}

/// The reasons as a decision has them.
pub(crate) fn reasons(judged: &Judged) -> Vec<String> {
    judged.reasons.iter().map(ToString::to_string).collect()
}

/// Scores and thresholds as a decision has them.
pub(crate) fn scores(recipe: &Recipe, judged: &Judged) -> ScoresRecord {
    let label = |score: &LabelScore| LabelRecord {
        at: score.at,
        boxes: score.boxes,
        label: score.label.clone(),
        reject: score.reject,
        review: score.review,
        score: score.score,
    };
    ScoresRecord {
        comparator: recipe.policy.comparator.symbol().to_owned(),
        decision: judged.score,
        labels: judged.scores.iter().map(label).collect(),
    }
}

/// Builds the entry.
pub(super) fn decision(
    request: &FrameRequest,
    recipe: &LoadedRecipe,
    examined: &Examined<'_>,
    facts: Facts,
    openings: &[Opening],
    runtime: RuntimeRecord,
) -> Decision {
    let Examined { frame, pixels, quality, judged } = examined;
    let mut decision = Decision {
        calibration: recipe.calibration_digest(),
        camera: request.source.camera.clone(),
        captured: request.captured,
        clock: facts.clock,
        frame: FrameRecord { counter: request.counter, id: request.frame.clone(), trigger: request.trigger },
        image: ImageRecord {
            archive: facts.archive,
            bytes: request.image.len() as u64,
            encoded: facts.encoded,
            format: frame.source_format().to_owned(),
            height: frame.height_px,
            pfnc: format!("0x{:08X}", frame.pixel_format().code()),
            pixels: *pixels,
            width: frame.width_px,
        },
        kind: DecisionKind::Kind,
        line: request.source.line.clone(),
        model: ModelRecord { digest: recipe.recipe.model.digest, version: recipe.recipe.version.clone() },
        private: commitments(openings),
        product: request.product.clone(),
        quality: quality_record(quality),
        reasons: reasons(judged),
        recipe: RecipeRecord { digest: recipe.recipe.digest, name: recipe.recipe.reference() },
        runtime,
        scores: scores(&recipe.recipe, judged),
        software: software(),
        station: request.source.station.clone(),
        time: facts.time,
        v: ENTRY_VERSION,
        verdict: judged.verdict,
    };
    decision.v = decision.version();
    decision
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bad_or_doubtful_image_is_kept_and_about_the_asked_share_of_good_ones() {
        let rule = ArchiveRule { not_ok: true, not_decidable: true, ok_share: 0.1, classes: Vec::new() };
        let product: ProductId = "flange".parse().unwrap();
        let kept = |verdict| {
            (0..2000_u32)
                .filter(|n| retention_class(&rule, verdict, &product, Blake3Digest::of(&n.to_le_bytes())).is_ok())
                .count()
        };
        assert_eq!(kept(Verdict::NotOk), 2000);
        assert_eq!(kept(Verdict::NotDecidable), 2000);
        assert!((150..250).contains(&kept(Verdict::Ok)), "{}", kept(Verdict::Ok));
        let all = ArchiveRule { ok_share: 1.0, ..rule.clone() };
        assert!(retention_class(&all, Verdict::Ok, &product, Blake3Digest([0xff; 32])).is_ok());
        let none = ArchiveRule { ok_share: 0.0, ..rule };
        assert!(retention_class(&none, Verdict::Ok, &product, Blake3Digest([0; 32])).is_err());
    }
}
