//! Models of Ultralytics, which say in `metadata_props` what they are: `task`, `names`, `imgsz`, `channels`; and those of YOLOv5, which
//! say `names` and `stride` only.
//!
//! Sources: `LetterBox` and `classify_transforms` in `ultralytics/data/augment.py`, and `conf`, `iou` and `max_det` of its `predict`.

use super::{
    DraftError, Image, Plan, Wishes,
    labels::{Labels, python_names},
    lines::Lines,
    number, readable, shown,
};
use crate::core::{
    model::{ModelFacts, TensorFact},
    recipe::{LABELS_MAX, PLACED_LABELS_MAX},
};

/// Lowest score of a box in `predict`.
const CONF: f32 = 0.25;

/// What the file says of itself.
struct Said<'f> {
    facts: &'f ModelFacts,
    names: Option<Vec<String>>,
    /// Height and width.
    sides: Option<(u64, u64)>,
}

impl<'f> Said<'f> {
    fn get(&self, key: &str) -> Option<&'f str> {
        self.facts.metadata.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    fn of(facts: &'f ModelFacts) -> Self {
        let said = Self { facts, names: None, sides: None };
        Self { names: said.get("names").and_then(python_names), sides: said.get("imgsz").and_then(sides), ..said }
    }

    fn version(&self) -> String {
        self.get("version").unwrap_or("of unknown version").to_owned()
    }
}

/// `[320, 640]`, height first.
fn sides(text: &str) -> Option<(u64, u64)> {
    let (height, width) = text.trim().strip_prefix('[')?.strip_suffix(']')?.split_once(',')?;
    Some((height.trim().parse().ok()?, width.trim().parse().ok()?))
}

pub(super) fn plan(facts: &ModelFacts, image: &Image<'_>, wishes: &Wishes) -> Result<Option<Plan>, DraftError> {
    let said = Said::of(facts);
    let (Some(_), Some(_)) = (said.get("names"), said.get("stride")) else { return Ok(None) };
    match said.get("task") {
        None | Some("detect") => detection(&said, image, wishes).map(Some),
        Some("classify") => classification(&said, image, wishes).map(Some),
        Some(task) => Err(DraftError::NotServed(other_task(task))),
    }
}

fn other_task(task: &str) -> String {
    let task: String = task.chars().filter(char::is_ascii_alphanumeric).take(32).collect();
    match task.as_str() {
        "segment" => "this Ultralytics head gives masks made of prototypes (task \"segment\"), which no recipe reads; nor are its \
             boxes read, for their rows carry mask coefficients. Train and export the same data as task \"detect\", or a model that \
             gives a map for every class, such as those of segmentation-models-pytorch"
            .into(),
        other => format!(
            "this Ultralytics head does {other:?}, which no recipe reads; \"detect\" and \"classify\" are served. Train and export it as one of those"
        ),
    }
}

fn input(said: &Said<'_>, image: &Image<'_>) -> Result<Lines, DraftError> {
    let channels = image.channels.or_else(|| said.get("channels")?.parse().ok());
    let mut lines = Lines::default();
    lines.text("tensor", image.tensor, "");
    match channels {
        Some(1) => lines.text("colour", "gray", ""),
        Some(3) => lines.text("colour", "rgb", ""),
        _ => return Err(DraftError::NotServed("its images have neither 1 nor 3 channels".into())),
    };
    image.write_size(&mut lines, said.sides);
    Ok(lines)
}

/// Pixels from 0 to 1, and nothing more.
fn unscaled(lines: &mut Lines) {
    let channels = if lines.as_str().contains("colour = \"gray\"") { 1 } else { 3 };
    let list = |value: &str| format!("[{}]", vec![value; channels].join(", "));
    lines.known("mean", list("0.0"), "").known("std", list("1.0"), "");
}

fn detection(said: &Said<'_>, image: &Image<'_>, wishes: &Wishes) -> Result<Plan, DraftError> {
    let outputs = readable(said.facts);
    let [tensor] = outputs.as_slice() else {
        let all = outputs.iter().map(|output| shown(output)).collect::<Vec<_>>().join(", ");
        return Err(DraftError::NotServed(format!("a detection head has one output, this file has {all}")));
    };
    let labels = Labels::new(wishes, said.names.clone(), None, PLACED_LABELS_MAX, "detection")?;
    let layout = layout(said, tensor, labels.count)?;

    let mut input = input(said, image)?;
    let args = said.get("args").unwrap_or("");
    let open_sizes = "It was exported for sizes of any kind, with which `predict` pads less than here: ask it with rect=False to compare.";
    let why = if args.contains("'dynamic': True") { open_sizes } else { "" };
    input.text("resize", "opencv-linear", why).text("fit", "letterbox", "").known("pad", 114, "");
    unscaled(&mut input);

    let mut output = Lines::default();
    output.text("kind", "detection", "").text("tensor", &tensor.name, "").text("layout", layout, "");
    output.text("activation", "none", "");
    labels.write(&mut output);
    output.known("box_score_min", number(CONF), "What `predict` does by default; lower it if review is to be lower.");
    if layout == "nms" {
        output.known("boxes_max", 300, "");
    } else {
        // `iou` of YOLOv5's detect.py is another one than that of Ultralytics' predict.
        let iou_max = if layout == "yolo-v5" { 0.45 } else { 0.7 };
        output.text("box_labels", "best", "").known("iou_max", number(iou_max), "").known("boxes_max", 300, "");
    }
    output.known("box_side_px_min", 1, "A box with a shorter side in frame pixels is none.");

    let mut policy = Lines::default();
    policy.text("comparator", ">=", "A label's score is that of its best box; 0 without one.");
    let tool = if said.get("task").is_some() { format!("Ultralytics {}", said.version()) } else { "YOLOv5".into() };
    Ok(Plan { origin: format!("{tool} detection head"), input, output, labels, policy, reject: None })
}

/// The word of the recipe format for how this head's rows lie.
fn layout(said: &Said<'_>, tensor: &TensorFact, classes: Option<usize>) -> Result<&'static str, DraftError> {
    let dims = match tensor.dims.as_deref() {
        None => [None; 2],
        Some(&[_, second, third]) => [second, third],
        Some(_) => return Err(unlike(said, tensor, classes)),
    };
    let fits = |dim: Option<u64>, wanted: Option<u64>| dim.is_none() || wanted.is_none() || dim == wanted;
    let with = |more: u64| classes.map(|classes| classes as u64 + more);
    let is_suppressed =
        said.get("end2end") == Some("True") || said.get("args").is_some_and(|args| args.contains("'nms': True"));
    let (layout, is_right) = if said.get("task").is_none() {
        ("yolo-v5", fits(dims[1], with(5)))
    } else if is_suppressed {
        ("nms", fits(dims[1], Some(6)))
    } else {
        ("yolo-v8", fits(dims[0], with(4)))
    };
    if is_right { Ok(layout) } else { Err(unlike(said, tensor, classes)) }
}

fn unlike(said: &Said<'_>, tensor: &TensorFact, classes: Option<usize>) -> DraftError {
    let (tool, shape) = (said.version(), shown(tensor));
    let classes = classes.map_or("its".to_owned(), |classes| classes.to_string());
    DraftError::NotServed(format!(
        "it says that it is a detection head of {classes} classes (Ultralytics {tool}), but its output {shape} is none that a recipe \
         reads: [1, 4 + classes, rows], [1, rows, 6] after suppression, or YOLOv5's [1, rows, 5 + classes]"
    ))
}

fn classification(said: &Said<'_>, image: &Image<'_>, wishes: &Wishes) -> Result<Plan, DraftError> {
    let outputs = readable(said.facts);
    let (Some(tensor), true) = (outputs.first(), outputs.len() == 1) else {
        return Err(DraftError::NotServed("a classification head has one output, this file has others".into()));
    };
    let count = match tensor.dims.as_deref() {
        Some(&[_, count]) => count.and_then(|count| usize::try_from(count).ok()),
        _ => {
            return Err(DraftError::NotServed(format!(
                "a classification head gives [1, classes], not {}",
                shown(tensor)
            )));
        }
    };
    let labels = Labels::new(wishes, said.names.clone(), count, LABELS_MAX, "classification")?;

    let mut input = input(said, image)?;
    input.text("resize", "pillow-bilinear", "");
    let is_square = image.size(said.sides).is_some_and(|(width, height)| width == height);
    match wishes.frame_px {
        // Two different sides are resized to just those; equal ones by the shorter side, and then cut.
        _ if !is_square => input.text("fit", "stretch", ""),
        Some((width, height)) if width == height => input.text("fit", "stretch", "Frames are square, so nothing is cut off."),
        _ => input.ask(
            "fit",
            "are all frames square?",
            "`predict` resizes by the shorter side and cuts the middle out. With square frames nothing is cut: answer \"stretch\". With \
             others, first cut them to squares, in the camera or by a [region] with crop = true, and then answer \"stretch\".",
        ),
    };
    unscaled(&mut input);

    let mut output = Lines::default();
    output.text("kind", "classification", "").text("tensor", &tensor.name, "");
    match tensor.made_by.as_str() {
        "Softmax" | "Sigmoid" => output.text("activation", "none", "The graph ends in it."),
        _ => output.ask(
            "activation",
            "softmax, sigmoid or none?",
            "Ultralytics' own export ends in a softmax; this file does not.",
        ),
    };
    labels.write(&mut output);
    let mut policy = Lines::default();
    policy.text("comparator", ">=", "");
    let origin = format!("Ultralytics {} classification head", said.version());
    Ok(Plan { origin, input, output, labels, policy, reject: None })
}
