//! Proposes a recipe for a model: what its exporter wrote into the file, and questions about everything else.
//!
//! Nothing is guessed. What a file does not say, such as how images were normalised in training or from which score on
//! a part is bad, becomes an open question (`open.rs`), and no service loads the recipe before somebody has answered it.

mod anomalib;
mod labels;
mod lines;
mod plain;
#[cfg(test)]
mod tests;
mod ultralytics;

use labels::Labels;
use lines::Lines;

use super::{ENCODED_BYTES_MAX, FRAME_SIDE_PX_MAX, RecipeError, TITLE_BYTES_MAX, open::Question, reader::Document};
use crate::{
    core::model::{ElementType, ModelFacts, TensorFact},
    types::{Blake3Digest, RecipeRef},
};

/// The model's name beside its recipe.
pub const MODEL_FILE: &str = "model.onnx";
/// Longest side of a frame that is proposed where nobody said how large the camera's frames are: with it every frame
/// stays below `FRAME_PIXELS_MAX`.
const FRAME_SIDE_PX: u32 = 4096;

/// What the user said of a model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wishes {
    /// What the recipe is called for people; empty: its name, and what the file was recognised as.
    pub title: String,
    /// Names of the classes in the model's order.
    pub labels: Option<Vec<String>>,
    /// Labels that are no defect; an empty list says that all are.
    pub ok_labels: Option<Vec<String>>,
    /// Width and height of the camera's frames in pixels.
    pub frame_px: Option<(u32, u32)>,
    pub review: Option<f32>,
    pub reject: Option<f32>,
}

/// A proposed recipe.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    /// What the file was recognised as, for people.
    pub origin: String,
    /// The text of `recipe.toml`.
    pub text: String,
    /// What is to be answered before it is a recipe.
    pub questions: Vec<Question>,
}

/// Why no recipe could make this model work.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DraftError {
    #[error(
        "the model has {count} classes; a recipe for {kind} has at most {most} labels. Train it on the classes that your \
         parts can have, or cut its head to those: docs/models.md says how"
    )]
    TooManyLabels { count: usize, most: usize, kind: String },
    #[error("the model has {count} classes, and {given} labels are given; give one for each, in the model's order")]
    OtherLabels { count: usize, given: usize },
    #[error("{label} is no label of the model; labels are {labels}")]
    NoSuchLabel { label: String, labels: String },
    #[error("{0}")]
    NotServed(String),
    #[error("what is proposed does not parse: {0}")]
    Recipe(RecipeError),
}

/// What one kind of file is proposed, table by table.
struct Plan {
    origin: String,
    input: Lines,
    output: Lines,
    labels: Labels,
    policy: Lines,
    /// The threshold that the tool itself decides by.
    reject: Option<f32>,
}

/// Proposes a recipe for a model that was let in.
///
/// # Errors
/// [`DraftError`] when no recipe of this model could serve.
pub fn draft(
    facts: &ModelFacts,
    digest: Blake3Digest,
    reference: &RecipeRef,
    wishes: &Wishes,
) -> Result<Draft, DraftError> {
    let image = Image::of(facts)?;
    let plan = if let Some(plan) = ultralytics::plan(facts, &image, wishes)? {
        plan
    } else if let Some(plan) = anomalib::plan(facts, &image, wishes)? {
        plan
    } else {
        plain::plan(facts, &image, wishes)?
    };
    let text = write(&plan, digest, reference, wishes)?;
    let document = Document::parse(&text).map_err(DraftError::Recipe)?;
    Ok(Draft { origin: plan.origin, questions: document.questions(), text })
}

fn write(plan: &Plan, digest: Blake3Digest, reference: &RecipeRef, wishes: &Wishes) -> Result<String, DraftError> {
    let (name, version) = reference.as_str().split_once('@').unwrap_or((reference.as_str(), ""));
    let title = if wishes.title.is_empty() { format!("{name}, {}", plan.origin) } else { wishes.title.clone() };
    let title: String = title.chars().filter(|char| !char.is_control()).take(TITLE_BYTES_MAX / 4).collect();
    let mut head = Lines::default();
    head.comment(&format!(
        "Proposed from the model file: {}. The keys are explained in docs/spec/recipe.md.",
        plan.origin
    ));
    head.comment(
        "A text that begins with ? is a question. Put the answer in its place; no service loads the recipe before all are answered.",
    );
    head.known("format", 2, "").text("name", name, "").text("version", version, "").text("title", &title, "");
    let mut model = Lines::default();
    model.text("file", MODEL_FILE, "").text("digest", &digest.to_string(), "");
    let mut policy = Lines::default();
    thresholds(&mut policy, wishes, plan.reject);
    plan.labels.ask_roles(wishes, &mut policy);
    let tables = [
        ("model", &model),
        ("frame", &frame(wishes)),
        ("input", &plan.input),
        ("output", &plan.output),
        ("policy", &plan.policy),
    ];
    let mut text = head.as_str().to_owned();
    for (name, lines) in tables {
        text += &format!("\n[{name}]\n{}", lines.as_str());
    }
    text += policy.as_str();
    text += &plan.labels.role_tables(wishes)?;
    Ok(text)
}

fn frame(wishes: &Wishes) -> Lines {
    let mut lines = Lines::default();
    lines.known("formats", r#"["png", "jpeg", "tiff", "bmp", "Mono8", "RGB8", "BGR8"]"#, "");
    let range = |min: u32, max: u32| format!("{{ min = {min}, max = {max} }}");
    let (width, height, why) = match wishes.frame_px {
        Some((width, height)) => (range(width, width), range(height, height), ""),
        None => {
            let any = range(16, FRAME_SIDE_PX);
            (any.clone(), any, "Any size is taken; the size of your camera's frames here keeps all others out.")
        }
    };
    lines.known("width_px", width, why).known("height_px", height, "");
    lines.known("encoded_bytes_max", ENCODED_BYTES_MAX / 2, "");
    lines
}

/// Thresholds that the file cannot say: they are the plant's.
fn thresholds(lines: &mut Lines, wishes: &Wishes, of_tool: Option<f32>) {
    match wishes.review {
        Some(review) => lines.known("review", number(review), ""),
        None => lines.ask(
            "review",
            "from which score on does a person look at the part?",
            "At most reject; the same as reject if nobody looks. Choose both on parts that you have judged.",
        ),
    };
    match wishes.reject.or(of_tool) {
        Some(reject) => lines.known("reject", number(reject), ""),
        None => lines.ask("reject", "from which score on is the part bad?", ""),
    };
}

/// A float as TOML writes it.
fn number(value: f32) -> String {
    format!("{value:?}")
}

/// The one image that a model takes.
struct Image<'f> {
    tensor: &'f str,
    /// 1 or 3, if the file says.
    channels: Option<u64>,
    height_px: Option<u64>,
    width_px: Option<u64>,
}

impl<'f> Image<'f> {
    fn of(facts: &'f ModelFacts) -> Result<Self, DraftError> {
        let [input] = facts.inputs.as_slice() else {
            let reason = format!(
                "it takes {} tensors; one image is proposed for. A second one for a template: docs/spec/recipe.md, [template]",
                facts.inputs.len()
            );
            return Err(DraftError::NotServed(reason));
        };
        match (input.element, input.dims.as_deref()) {
            (Some(ElementType::Float32), Some(&[batch, channels, height_px, width_px]))
                if batch.is_none_or(|batch| batch == 1) && channels.is_none_or(|channels| matches!(channels, 1 | 3)) =>
            {
                Ok(Self { tensor: &input.name, channels, height_px, width_px })
            }
            _ => Err(DraftError::NotServed(
                "its input is no float32 image [N, C, H, W] of one picture with 1 or 3 channels; export it for a batch of one"
                    .into(),
            )),
        }
    }

    /// Tensor name and size; `sides` is what the file says elsewhere, height first.
    fn write_size(&self, lines: &mut Lines, sides: Option<(u64, u64)>) {
        let (height, width) =
            (self.height_px.or(sides.map(|(height, _)| height)), self.width_px.or(sides.map(|(_, width)| width)));
        for (key, side) in [("width_px", width), ("height_px", height)] {
            match side {
                Some(side) => lines.known(key, side, ""),
                None => lines.ask(key, "how many pixels was this side of the images in training?", ""),
            };
        }
    }

    /// Width and height where both are known.
    fn size(&self, sides: Option<(u64, u64)>) -> Option<(u64, u64)> {
        let height = self.height_px.or(sides.map(|(height, _)| height))?;
        Some((self.width_px.or(sides.map(|(_, width)| width))?, height))
    }
}

/// Whether the camera's frames are known to have the size of the model's input.
fn is_unresized(size: Option<(u64, u64)>, wishes: &Wishes) -> bool {
    let frame = wishes.frame_px.map(|(width, height)| (u64::from(width), u64::from(height)));
    frame.is_some() && frame == size
}

/// As a text shows it: name and shape, `?` for an open dimension.
fn shown(tensor: &TensorFact) -> String {
    let dim = |dim: &Option<u64>| dim.map_or("?".to_owned(), |dim| dim.to_string());
    let dims = tensor.dims.as_ref().map(|dims| dims.iter().map(dim).collect::<Vec<_>>().join(", "));
    let name: String = tensor.name.chars().filter(|char| !char.is_control()).take(64).collect();
    format!("{name} [{}]", dims.as_deref().unwrap_or("no declared shape"))
}

/// Outputs that a recipe can read.
fn readable(facts: &ModelFacts) -> Vec<&TensorFact> {
    facts.outputs.iter().filter(|output| output.element.is_none_or(|element| element == ElementType::Float32)).collect()
}

const _: () = assert!(FRAME_SIDE_PX <= FRAME_SIDE_PX_MAX);
