//! Training-serving skew: a model that a tool exported, added by `model add`, must say of an image what the tool itself says of it.
//!
//! `scripts/skew.py` exports the models and writes down what each tool's own inference says. Its smallest ones lie in
//! `tests/vectors/skew`; `make skew` makes larger ones, asks about a hundred images, and writes docs/skew.md.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use lineproof::edge::pb;
use serde::Deserialize;

use crate::harness::{Plant, Service, block_on, request, skipped, text};

/// Largest difference of a score.
const SCORE_DIFFERENCE_MAX: f64 = 1e-4;
/// Largest distance of a corner from the tool's, which is no whole number, in pixels of the frame.
const CORNER_PX_MAX: f64 = 1.0;
/// Smallest intersection over union with the tool's box, brought outwards to whole pixels.
const IOU_MIN: f64 = 0.99;
/// How far a corner may lie from a whole pixel and still be that pixel: float32 of coordinates up to some thousand.
const CORNER_EPSILON_PX: f64 = 1e-3;

/// What a tool said of its model.
#[derive(Deserialize)]
struct Case {
    /// Versions, by package.
    tools: BTreeMap<String, String>,
    /// Arguments of `model add`.
    add: Vec<String>,
    /// Answers to what it asks, by key.
    answers: BTreeMap<String, String>,
    images: Vec<Said>,
}

#[derive(Deserialize)]
struct Said {
    file: PathBuf,
    scores: BTreeMap<String, f64>,
    boxes: Vec<SaidBox>,
    verdict: String,
}

#[derive(Deserialize)]
struct SaidBox {
    label: String,
    score: f64,
    /// Left, top, right, bottom in pixels of the frame.
    corners: [f64; 4],
}

/// How far the service was from the tool.
#[derive(Default)]
struct Compared {
    name: String,
    tools: String,
    images: usize,
    real: usize,
    not_ok: usize,
    flips: usize,
    score_difference: f64,
    boxes: usize,
    /// Boxes at the frame's border that the tool does not give.
    more: usize,
    corner_px: f64,
    iou: f64,
    /// What must not be, a sentence each.
    wrong: Vec<String>,
}

#[test]
fn committed_models_of_each_tool_score_as_the_tool_does() {
    let compared = compare(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/skew"));
    assert_eq!(compared.len(), 3, "one of each tool whose exports may be kept here");
    for case in &compared {
        assert!(case.wrong.is_empty(), "{}: {}", case.name, case.wrong.join("\n"));
        assert!(case.not_ok > 0 && case.not_ok < case.images, "{}: only one verdict", case.name);
    }
}

#[test]
fn a_hundred_images_score_as_each_tool_scores_them() {
    let Some(folder) = std::env::var_os("LINEPROOF_SKEW").filter(|path| !path.is_empty()) else {
        return skipped("no LINEPROOF_SKEW: `make skew` exports models and compares a hundred images of each");
    };
    let compared = compare(Path::new(&folder));
    let page = page(&compared);
    println!("{page}");
    let wrong: Vec<&String> = compared.iter().flat_map(|case| &case.wrong).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/skew.md"), page).unwrap();
}

/// Adds every case's model to one plant, sends it its images, and compares.
fn compare(folder: &Path) -> Vec<Compared> {
    let mut cases: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.retain(|path| path.join("case.json").is_file());
    cases.sort();
    let plant = Plant::new();
    let read: Vec<(PathBuf, Case)> = cases.into_iter().map(|path| (path.clone(), read(&path))).collect();
    for (path, case) in &read {
        add(&plant, path, case);
    }
    let service = plant.serve();
    let compared =
        read.iter().enumerate().map(|(number, (path, case))| compare_case(&service, path, case, number)).collect();
    let ended = service.stop();
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    compared
}

fn read(path: &Path) -> Case {
    serde_json::from_slice(&fs::read(path.join("case.json")).unwrap()).unwrap()
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

/// `model add`, and an answer in the place of every question.
fn add(plant: &Plant, path: &Path, case: &Case) {
    let model = path.join("model.onnx");
    let labels = path.join("labels.txt");
    let in_place =
        |argument: &String| if argument == "labels.txt" { labels.display().to_string() } else { argument.clone() };
    let given: Vec<String> = case.add.iter().map(in_place).collect();
    let mut arguments = vec!["model", "add", model.to_str().unwrap(), "--json", "--name"];
    let name = name(path);
    arguments.push(&name);
    arguments.extend(given.iter().map(String::as_str));
    let output = plant.run(&arguments);
    assert!(output.status.success(), "{name}: {}", text(&output));
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let recipe = plant.data().join("models").join(&name).join("1.0.0/recipe.toml");
    let mut lines: Vec<String> = fs::read_to_string(&recipe).unwrap().lines().map(str::to_owned).collect();
    let questions = said["questions"].as_array().unwrap();
    let asked: Vec<&str> = questions.iter().map(|question| question["key"].as_str().unwrap()).collect();
    let mut answered: Vec<&str> = case.answers.keys().map(String::as_str).collect();
    answered.sort_by_key(|key| asked.iter().position(|asked| asked == key));
    assert_eq!(asked, answered, "{name}: what is asked and what is answered");
    for question in questions {
        let (key, line) = (question["key"].as_str().unwrap(), question["line"].as_u64().unwrap() as usize);
        lines[line - 1] = format!("{} = {}", key.rsplit('.').next().unwrap(), case.answers[key]);
    }
    fs::write(&recipe, lines.join("\n")).unwrap();
}

fn compare_case(service: &Service, path: &Path, case: &Case, number: usize) -> Compared {
    let tools = case.tools.iter().map(|(name, version)| format!("{name} {version}")).collect::<Vec<_>>().join(", ");
    let mut compared = Compared { name: name(path), tools, iou: 1.0, ..Compared::default() };
    let recipe = format!("{}@1.0.0", compared.name);
    block_on(async {
        let mut client = service.inspection().await;
        for (at, said) in case.images.iter().enumerate() {
            let image = fs::read(path.join(&said.file)).unwrap();
            let frame = (number * 1000 + at) as u64 + 1;
            let asked = pb::InspectRequest { recipe: recipe.clone(), ..request(frame, image) };
            let answer = client.inspect(asked).await.unwrap_or_else(|status| panic!("{recipe}: {status}")).into_inner();
            compared.take(path, said, &answer);
        }
    });
    compared
}

impl Compared {
    fn take(&mut self, path: &Path, said: &Said, answer: &pb::InspectResponse) {
        let file = name(&said.file);
        self.images += 1;
        self.real += usize::from(file.starts_with("real"));
        let verdict = match answer.verdict() {
            pb::Verdict::Ok => "OK",
            pb::Verdict::NotOk => "NOT_OK",
            pb::Verdict::NotDecidable => "NOT_DECIDABLE",
            pb::Verdict::Undefined => "UNDEFINED",
        };
        self.not_ok += usize::from(verdict == "NOT_OK");
        if verdict != said.verdict {
            self.flips += 1;
            self.wrong.push(format!("{file}: {verdict}, the tool says {}", said.verdict));
        }
        assert_eq!(answer.labels.len(), said.scores.len(), "{file}");
        let mut boxes = 0;
        for label in &answer.labels {
            self.score(&file, &label.label, f64::from(label.score), said.scores[&label.label]);
            boxes += label.boxes.len();
        }
        if boxes < said.boxes.len() {
            self.wrong.push(format!("{file}: {boxes} boxes, the tool gives {}", said.boxes.len()));
        }
        let mut left: Vec<(&str, &pb::DetectedBox)> = answer
            .labels
            .iter()
            .flat_map(|label| label.boxes.iter().map(|found| (label.label.as_str(), found)))
            .collect();
        for expected in &said.boxes {
            let nearest = (0..left.len())
                .filter(|at| left[*at].0 == expected.label)
                .min_by(|a, b| unlike(left[*a].1, expected).total_cmp(&unlike(left[*b].1, expected)));
            let Some(nearest) = nearest else {
                self.wrong.push(format!("{file}: no box of {} is left for the tool's", expected.label));
                continue;
            };
            let (_, found) = left.swap_remove(nearest);
            self.boxes += 1;
            self.score(&file, "a box", f64::from(found.score), expected.score);
            let (corner, iou) = (corner_px(found, expected), iou(found, expected));
            self.corner_px = self.corner_px.max(corner);
            self.iou = self.iou.min(iou);
            if corner > CORNER_PX_MAX + CORNER_EPSILON_PX || iou < IOU_MIN {
                self.wrong
                    .push(format!("{file}: {found:?} is {corner} px and an IoU of {iou} from {:?}", expected.corners));
            }
        }
        // The tool may have suppressed one at the border by one in the letterbox's padding, which to a recipe is none.
        let (width, height) = image::image_dimensions(path.join(&said.file)).unwrap();
        for (label, found) in left {
            let [x0, y0, x1, y1] = corners(found);
            self.more += 1;
            println!("{}/{file}: the tool has no {label} at {found:?}", self.name);
            if x0 > 0.0 && y0 > 0.0 && x1 < f64::from(width) && y1 < f64::from(height) {
                self.wrong.push(format!("{file}: the tool has no {label} at {found:?}"));
            }
        }
    }

    fn score(&mut self, file: &str, what: &str, ours: f64, theirs: f64) {
        let difference = (ours - theirs).abs();
        self.score_difference = self.score_difference.max(difference);
        if difference > SCORE_DIFFERENCE_MAX || difference.is_nan() {
            self.wrong.push(format!("{file}: {what} scores {ours}, the tool says {theirs}"));
        }
    }
}

fn corners(found: &pb::DetectedBox) -> [f64; 4] {
    let place = found.r#box.as_ref().expect("a box has a place");
    [place.x_px, place.y_px, place.x_px + place.width_px, place.y_px + place.height_px].map(f64::from)
}

/// The largest distance of two corners' coordinates.
fn corner_px(found: &pb::DetectedBox, said: &SaidBox) -> f64 {
    corners(found).iter().zip(said.corners).map(|(ours, theirs)| (ours - theirs).abs()).fold(0.0, f64::max)
}

/// Boxes cut at the frame's border may lie in one place: of those the score tells which is which.
fn unlike(found: &pb::DetectedBox, said: &SaidBox) -> f64 {
    const PX_OF_ONE_SCORE: f64 = 1e4;
    corner_px(found, said) + PX_OF_ONE_SCORE * (f64::from(found.score) - said.score).abs()
}

fn iou(found: &pb::DetectedBox, said: &SaidBox) -> f64 {
    let ours = corners(found);
    // A corner just beside a whole pixel may be brought to either side of it.
    let nearest = |at: usize, outwards: fn(f64) -> f64| {
        let either = [-CORNER_EPSILON_PX, CORNER_EPSILON_PX].map(|more| outwards(said.corners[at] + more));
        if (either[0] - ours[at]).abs() < (either[1] - ours[at]).abs() { either[0] } else { either[1] }
    };
    let theirs = [nearest(0, f64::floor), nearest(1, f64::floor), nearest(2, f64::ceil), nearest(3, f64::ceil)];
    let area = |of: [f64; 4]| (of[2] - of[0]).max(0.0) * (of[3] - of[1]).max(0.0);
    let common = area([ours[0].max(theirs[0]), ours[1].max(theirs[1]), ours[2].min(theirs[2]), ours[3].min(theirs[3])]);
    common / (area(ours) + area(theirs) - common)
}

/// docs/skew.md.
fn page(compared: &[Compared]) -> String {
    let mut page = String::from(PAGE_HEAD);
    for case in compared {
        let boxes = match case.boxes {
            0 => "- | - | -".to_owned(),
            boxes => format!("{boxes}, and {} more | {:.2} px | {:.4}", case.more, case.corner_px, case.iou),
        };
        // Writing to a String does not fail.
        let _ = writeln!(
            page,
            "| {} | {} | {}, {} of them real | {} | {:.1e} | {boxes} | {} |",
            case.name, case.tools, case.images, case.real, case.not_ok, case.score_difference, case.flips
        );
    }
    page + PAGE_END
}

const PAGE_HEAD: &str = "# Training-serving skew

A model must see on the line what it saw in training. `make skew` exports models of each tool with random weights from a fixed seed,
has `lineproof model add` write their recipes, and sends the same images to the running service, over the socket, and to the tool's own
inference with its own preprocessing. Images are PNG, so that no two JPEG decoders meet. This page is written by that command.

Allowed: scores within 1e-4; every box of the tool, and none more but at the frame's border; each corner within 1 px of the tool's, which is no whole number, and an IoU of at least 0.99 with its box
brought outwards to whole pixels; not one other verdict, at a threshold that parts the images into two kinds.

| case | versions | images | NOT_OK | largest score difference | boxes | corners within | smallest IoU | other verdicts |
|---|---|---|---|---|---|---|---|---|
";

const PAGE_END: &str = "
- `ultralytics-detect*`: YOLOv8n with two classes on letterboxed frames of any shape, with and without suppression in the graph, against `predict` of the exported file. A random
  head's boxes are close calls by the hundred; against `predict` of the PyTorch model, whose float sums run in another order, one image of 94 had a box more, one of 3,659 boxes' scores was
  1.1e-4 off, and four corners 0.004 px beyond the bound. `predict` keeps boxes that lie in the letterbox's padding only, with no area on the frame; to a recipe they are none, and
  they are left out of the tool's. Where such a box suppressed one at the frame's border, the recipe gives that one more. `predict` gives at most 300 boxes of all labels, a recipe 300 of each: images with so many are left out.
- `ultralytics-classify`: YOLOv8n's classifier on square frames, against `predict` of the PyTorch model, as all below.
- `timm-classify`, `torchvision-classify`: ResNet-18 and MobileNetV3 with their own evaluation transforms on square frames, without cutting a border off (`crop_pct=1.0`,
  `crop_size = resize_size`). With their usual cut of the middle a recipe cannot do the same: [models](models.md).
- `smp-segment`: Unet with a ResNet-18 encoder, its `get_preprocessing_fn`, OpenCV's linear resizing; score: mean of the 32 largest values.
- `anomalib`: PatchCore with a ResNet-18 and a random memory bank by `Engine.predict`, on frames of just the model's size. On others anomalib resizes in floats and
  the recipe in 8 bits: [models](models.md).

`tests/vectors/skew` holds smaller models of the same tools with four drawn images each, and `make test` compares those.
";
