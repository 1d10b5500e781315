//! `make real`: real parts through the running service, over the socket, against their labels and against the Python
//! pipeline that trained the models. Writes docs/accuracy.md. Without the data sets it says so and ends well.

#[path = "it/harness.rs"]
#[allow(dead_code, reason = "the journeys of tests/it use the rest")]
mod harness;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use lineproof::edge::pb;

use harness::{Plant, block_on};

/// Largest difference to the Python pipeline's scores on the same pixels.
const SCORE_DIFFERENCE_MAX: f64 = 1e-4;

/// One frame to send, and what is known of it.
struct Sample {
    name: String,
    label: String,
    /// The file that is sent and that Python scores.
    path: PathBuf,
}

/// What the service said of a sample.
struct Judged {
    verdict: String,
    scores: BTreeMap<String, f64>,
}

/// What Python says of the same file.
struct Reference {
    verdict: String,
    scores: BTreeMap<String, f64>,
}

fn main() {
    let data =
        std::env::var_os("LINEPROOF_DATASETS").map_or_else(|| PathBuf::from("../shared/datasets"), PathBuf::from);
    let sets = ["bsdata/data", "xsdd/datas"].map(|name| data.join(name));
    if let Some(missing) = sets.iter().find(|set| !set.is_dir()) {
        println!("skipped: no data ({} is no folder; LINEPROOF_DATASETS names another place)", missing.display());
        return;
    }
    let python = std::env::var("LINEPROOF_PYTHON").unwrap_or_else(|_| "python3".into());
    let plant = Plant::new();
    for model in ["ball-screw-pitting", "steel-surface-type"] {
        copy_folder(
            &PathBuf::from(format!("models/{model}/1.0.0")),
            &plant.data().join(format!("models/{model}/1.0.0")),
        );
        let calibration = format!("calibration/{model}-1.0.0.toml");
        fs::copy(&calibration, plant.data().join(&calibration)).expect("the calibration");
    }
    let service = plant.serve();
    let frames = plant.folder().join("frames");
    fs::create_dir_all(&frames).expect("a folder for crops");

    let crops = ball_screw_crops(&data.join("bsdata/data"), &frames);
    let judged = inspect_all(&service, "ball-screw-pitting@1.0.0", &crops);
    let screw = Compared::new(&judged, &score(&python, "ball-screw-pitting", &crops));
    let mut report = ball_screw_report(&crops, &judged, &screw);

    let strips = steel_strips(&data.join("xsdd"));
    let judged = inspect_all(&service, "steel-surface-type@1.0.0", &strips);
    let decoded = Compared::new(&judged, &score(&python, "steel-surface-type", &strips));
    let as_png = as_png(&strips, &frames);
    let judged_png = inspect_all(&service, "steel-surface-type@1.0.0", &as_png);
    let strip = Compared::new(&judged_png, &score(&python, "steel-surface-type", &as_png));
    report += &steel_report(&strips, &judged, &strip, &decoded);

    let ended = service.stop();
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    let output = plant.run(&["fsck"]);
    assert!(output.status.success(), "{}", harness::text(&output));
    print!("{report}");
    fs::write("docs/accuracy.md", page(&report)).expect("docs/accuracy.md");
    for (name, compared) in [("ball-screw-pitting", &screw), ("steel-surface-type", &strip)] {
        assert!(compared.max_difference <= SCORE_DIFFERENCE_MAX, "{name}: {}", compared.max_difference);
        assert_eq!(compared.flips, 0, "{name}: verdicts differ from Python's");
    }
}

/// The crops of `models/ball-screw-pitting/crops.csv`, cut from the official test pictures and stored without loss.
fn ball_screw_crops(pictures: &Path, folder: &Path) -> Vec<Sample> {
    let list = fs::read_to_string("models/ball-screw-pitting/crops.csv").expect("crops.csv");
    let mut open: Option<(String, image::DynamicImage)> = None;
    let mut samples = Vec::new();
    for (number, row) in list.lines().skip(1).enumerate() {
        let fields: Vec<&str> = row.split(',').collect();
        let [name, x, y, width, height, label] = fields[..] else { panic!("not a crop: {row}") };
        if open.as_ref().is_none_or(|(opened, _)| opened != name) {
            open = Some((name.to_owned(), image::open(pictures.join(name)).expect("a picture")));
        }
        let (_, picture) = open.as_ref().expect("just opened");
        let side = |text: &str| text.parse::<u32>().expect("a number of pixels");
        let path = folder.join(format!("crop-{number:05}.png"));
        picture.crop_imm(side(x), side(y), side(width), side(height)).save(&path).expect("a crop is written");
        samples.push(Sample { name: format!("{name} {x},{y}"), label: label.to_owned(), path });
    }
    samples
}

/// The test part of `models/steel-surface-type/split.csv`, as the files are.
fn steel_strips(folder: &Path) -> Vec<Sample> {
    let list = fs::read_to_string("models/steel-surface-type/split.csv").expect("split.csv");
    let sample = |row: &str| {
        let fields: Vec<&str> = row.split(',').collect();
        let [path, label, split] = fields[..] else { panic!("not a row: {row}") };
        let label = label.replace(' ', "-");
        (split == "test").then(|| Sample { name: path.to_owned(), label, path: folder.join(path) })
    };
    list.lines().skip(1).filter_map(sample).collect()
}

/// The same pixels without a lossy format, so that two decoders cannot differ.
fn as_png(samples: &[Sample], folder: &Path) -> Vec<Sample> {
    let convert = |(number, sample): (usize, &Sample)| {
        let path = folder.join(format!("strip-{number:05}.png"));
        image::open(&sample.path).expect("a picture").save(&path).expect("a picture is written");
        Sample { name: sample.name.clone(), label: sample.label.clone(), path }
    };
    samples.iter().enumerate().map(convert).collect()
}

/// Streams the samples through the service, in order.
fn inspect_all(service: &harness::Service, recipe: &str, samples: &[Sample]) -> Vec<Judged> {
    block_on(async {
        let mut client = service.inspection().await;
        let mut judged = Vec::new();
        for (number, sample) in samples.iter().enumerate() {
            let bytes = fs::read(&sample.path).expect("a sample");
            let mut request = harness::request(number as u64, bytes);
            request.frame_id =
                blake3::hash(format!("{recipe} {}", sample.path.display()).as_bytes()).to_hex().to_string();
            request.recipe = recipe.into();
            request.serial = sample.name.clone();
            let answer = client.inspect(request).await.unwrap_or_else(|s| panic!("{}: {s}", sample.name)).into_inner();
            let verdict = match answer.verdict() {
                pb::Verdict::Ok => "OK",
                pb::Verdict::NotOk => "NOT_OK",
                pb::Verdict::NotDecidable => "NOT_DECIDABLE",
                pb::Verdict::Undefined => panic!("{}: no verdict", sample.name),
            };
            let scores = answer.labels.iter().map(|label| (label.label.clone(), f64::from(label.score))).collect();
            judged.push(Judged { verdict: verdict.to_owned(), scores });
        }
        judged
    })
}

/// The Python pipeline's scores of the same files.
fn score(python: &str, model: &str, samples: &[Sample]) -> Vec<Reference> {
    let output = Command::new(python)
        .arg("models/common/score.py")
        .arg(format!("models/{model}/1.0.0/recipe.toml"))
        .args(samples.iter().map(|sample| &sample.path))
        .output()
        .expect("python runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let reference = |line: &str| {
        let value: serde_json::Value = serde_json::from_str(line).expect("a JSON line");
        let scores = value["scores"].as_object().expect("scores");
        Reference {
            verdict: value["verdict"].as_str().expect("a verdict").to_owned(),
            scores: scores.iter().map(|(label, score)| (label.clone(), score.as_f64().expect("a score"))).collect(),
        }
    };
    String::from_utf8(output.stdout).expect("UTF-8").lines().map(reference).collect()
}

/// How far two pipelines agree.
struct Compared {
    frames: usize,
    max_difference: f64,
    flips: usize,
}

impl Compared {
    fn new(ours: &[Judged], theirs: &[Reference]) -> Self {
        assert_eq!(ours.len(), theirs.len());
        let difference = |(ours, theirs): (&Judged, &Reference)| {
            assert!(ours.scores.keys().eq(theirs.scores.keys()), "labels differ");
            ours.scores.iter().map(|(label, score)| (score - theirs.scores[label]).abs()).fold(0.0, f64::max)
        };
        let pairs = || ours.iter().zip(theirs);
        Self {
            frames: ours.len(),
            max_difference: pairs().map(difference).fold(0.0, f64::max),
            flips: pairs().filter(|(ours, theirs)| ours.verdict != theirs.verdict).count(),
        }
    }

    fn row(&self, what: &str) -> String {
        format!("| {what} | {} | {:.1e} | {} |\n", self.frames, self.max_difference, self.flips)
    }
}

const PARITY_HEAD: &str =
    "\n| the service against Python | frames | largest score difference | verdicts that differ |\n|---|---|---|---|\n";

fn ball_screw_report(crops: &[Sample], judged: &[Judged], parity: &Compared) -> String {
    let count = |label: &str, verdict: &str| {
        crops.iter().zip(judged).filter(|(crop, judged)| crop.label == label && judged.verdict == verdict).count()
    };
    let total = |label: &str| crops.iter().filter(|crop| crop.label == label).count();
    let (bad, good) = (total("bad"), total("good"));
    let mut text = String::from("## ball-screw-pitting 1.0.0 on the official test part of BSData\n\n");
    let _ = writeln!(
        text,
        "Level: **crops**, as `models/ball-screw-pitting/crops.csv` lists them: {bad} bad, {good} good, {} excluded.\n\
         No picture is verified good, so there is no overkill of pictures to measure; see the model card.\n",
        total("excluded")
    );
    text += "| | share | 95 % interval (Wilson) |\n|---|---|---|\n";
    text += &share_row("escape: bad crop OK", count("bad", "OK"), bad);
    text += &share_row("overkill: good crop NOT_OK", count("good", "NOT_OK"), good);
    text += &share_row("bad crop to a person", count("bad", "NOT_DECIDABLE"), bad);
    text += &share_row("good crop to a person", count("good", "NOT_DECIDABLE"), good);
    text += PARITY_HEAD;
    text += &parity.row("the same pixels (crops as PNG)");
    text + "\n"
}

fn steel_report(strips: &[Sample], judged: &[Judged], parity: &Compared, decoded: &Compared) -> String {
    let top = |judged: &Judged| {
        judged.scores.iter().max_by(|a, b| a.1.total_cmp(b.1)).map(|(label, _)| label.clone()).expect("seven labels")
    };
    let right = strips.iter().zip(judged).filter(|(strip, judged)| strip.label == top(judged)).count();
    let sure = judged.iter().filter(|judged| judged.verdict == "NOT_OK").count();
    let sure_right = strips
        .iter()
        .zip(judged)
        .filter(|(strip, judged)| judged.verdict == "NOT_OK" && strip.label == top(judged))
        .count();
    let mut text = String::from("## steel-surface-type 1.0.0 on the test part of X-SDD\n\n");
    text += "The split is ours (`models/steel-surface-type/split.csv`); there is none of the data set's.\n\n";
    text += "| | share | 95 % interval (Wilson) |\n|---|---|---|\n";
    text += &share_row("accuracy: the top label is the right one", right, strips.len());
    text += &share_row("decided without a person", sure, strips.len());
    text += &share_row("accuracy among those", sure_right, sure);
    text += PARITY_HEAD;
    text += &parity.row("the same pixels (PNG)");
    text += &decoded.row("the files as they are: two JPEG decoders");
    text + "\n"
}

fn share_row(what: &str, hits: usize, of: usize) -> String {
    let (low, high) = wilson(hits, of);
    let share = 100.0 * hits as f64 / of.max(1) as f64;
    format!("| {what} | {hits} of {of}, {share:.1} % | {:.1} to {:.1} % |\n", 100.0 * low, 100.0 * high)
}

/// The Wilson score interval at 95 % (Wilson 1927).
fn wilson(hits: usize, of: usize) -> (f64, f64) {
    if of == 0 {
        return (0.0, 1.0);
    }
    let (z, n) = (1.959_964, of as f64);
    let p = hits as f64 / n;
    let middle = p + z * z / (2.0 * n);
    let spread = z * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + z * z / n;
    ((middle - spread) / scale, (middle + spread) / scale)
}

fn page(report: &str) -> String {
    format!(
        "# Accuracy on real parts\n\n\
         Written by `make real`: the built binary serves, every frame goes over gRPC, the verdicts are compared with the data\n\
         sets' labels and with `models/common/score.py`, the pipeline that the models were trained with. The data sets are not\n\
         part of this project; without them `make real` says \"skipped: no data\". What the figures mean and what they do not is\n\
         in the model cards. The third model, machined-surface, knows simulated parts only, so there is nothing real to test it on.\n\n\
         {report}"
    )
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        fs::copy(&path, to.join(path.file_name().expect("a name"))).expect("a file is copied");
    }
}
