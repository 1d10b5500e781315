//! Models that say nothing of themselves, such as those that timm, torchvision and segmentation-models-pytorch have torch export: the shape
//! of their one output tells classification from segmentation, and the rest is asked.

use super::{DraftError, Image, Plan, Wishes, is_unresized, labels::Labels, lines::Lines, readable, shown};
use crate::core::{
    model::{ModelFacts, TensorFact},
    recipe::LABELS_MAX,
};

pub(super) fn plan(facts: &ModelFacts, image: &Image<'_>, wishes: &Wishes) -> Result<Plan, DraftError> {
    let outputs = readable(facts);
    let one = match outputs.as_slice() {
        [] => return Err(DraftError::NotServed("a recipe reads outputs of float32, and it has none".into())),
        [one] => Some(*one),
        _ => None,
    };
    let dims = one.and_then(|tensor| tensor.dims.as_deref());
    let (kind, classes) = match dims {
        Some(&[_, classes]) => (Some("classification"), classes),
        Some(&[_, classes, _, _]) => (Some("segmentation"), classes),
        _ => (None, None),
    };
    let count = classes.and_then(|count| usize::try_from(count).ok());
    let labels = Labels::new(wishes, None, count, LABELS_MAX, kind.unwrap_or("this kind of model"))?;

    let mut output = Lines::default();
    let mut policy = Lines::default();
    match (kind, one) {
        (Some(kind), Some(tensor)) => {
            output.text("kind", kind, &format!("By the shape of its only output, {}.", shown(tensor)));
            output.text("tensor", &tensor.name, "");
            activation(&mut output, tensor, count);
            labels.write(&mut output);
            if kind == "segmentation" {
                map(&mut output, tensor);
            }
        }
        _ => unknown(&mut output, &labels, &outputs),
    }
    policy.text("comparator", ">=", "");
    let origin = kind.map_or("model of unknown kind".to_owned(), |kind| format!("{kind} model, exporter unknown"));
    Ok(Plan { origin, input: input(image, wishes), output, labels, policy, reject: None })
}

fn input(image: &Image<'_>, wishes: &Wishes) -> Lines {
    let mut lines = Lines::default();
    lines.text("tensor", image.tensor, "");
    match image.channels {
        Some(1) => lines.text("colour", "gray", ""),
        _ => lines.ask(
            "colour",
            "rgb or bgr?",
            "In which order colours were in training: rgb with Pillow and torchvision, bgr with OpenCV as it reads.",
        ),
    };
    image.write_size(&mut lines, None);
    if is_unresized(image.size(None), wishes) {
        lines.text("resize", "none", "").text("fit", "stretch", "");
    } else {
        lines.ask(
            "resize",
            "how were images resized in training?",
            "pillow-bilinear, pillow-bicubic (timm's usual one), pillow-lanczos, pillow-nearest, opencv-linear, or none if frames have this size.",
        );
        lines.ask(
            "fit",
            "stretch or letterbox?",
            "stretch brings both sides to size, letterbox (with pad = 0 to 255) keeps the shape. If training resized by the shorter side and \
             cut the middle out, as timm's and torchvision's transforms do: give square frames, evaluate with crop_pct=1.0, and answer stretch.",
        );
    }
    let usual = "Of each channel, of pixels from 0 to 1. ImageNet's are usual, [0.485, 0.456, 0.406] and [0.229, 0.224, 0.225]; [0.0, 0.0, 0.0] \
                 and [1.0, 1.0, 1.0] if nothing was done.";
    lines.ask("mean", "which mean was subtracted in training?", usual);
    lines.ask("std", "by which standard deviation was divided in training?", "");
    lines
}

fn activation(lines: &mut Lines, tensor: &TensorFact, count: Option<usize>) {
    match tensor.made_by.as_str() {
        "Softmax" | "Sigmoid" => {
            lines.text("activation", "none", &format!("The graph ends in {}.", tensor.made_by.to_ascii_lowercase()))
        }
        _ if count == Some(1) => lines.ask("activation", "sigmoid or none?", "sigmoid if training took it to make a score from 0 to 1 of this number."),
        _ => lines.ask(
            "activation",
            "softmax, sigmoid or none?",
            "softmax if one label of all is right, sigmoid if any number of them can be; the loss of the training tells: cross-entropy or binary cross-entropy.",
        ),
    };
}

fn map(lines: &mut Lines, tensor: &TensorFact) {
    lines.ask(
        "map_score",
        "how does a map become one score?",
        "\"max\"; \"top-k-mean\" with top_k = 32, the mean of the 32 largest values; or \"area-share\", the share of pixels from pixel_threshold on.",
    );
    if matches!(tensor.made_by.as_str(), "Softmax" | "Sigmoid") {
        lines.known("pixel_threshold", "0.5", "");
    } else {
        lines.ask(
            "pixel_threshold",
            "from which value on is a pixel a defect?",
            "0.5 is usual after sigmoid or softmax.",
        );
    }
}

fn unknown(lines: &mut Lines, labels: &Labels, outputs: &[&TensorFact]) {
    let all = outputs.iter().take(16).map(|output| shown(output)).collect::<Vec<_>>().join(", ");
    lines.ask(
        "kind",
        "classification, segmentation, anomaly or detection?",
        &format!("It gives {all}. Each kind has more keys: docs/spec/recipe.md. None of them fits? Then no recipe makes it work."),
    );
    lines.ask("tensor", "which output is read?", "");
    lines.ask("activation", "softmax, sigmoid or none?", "");
    labels.write(lines);
}
