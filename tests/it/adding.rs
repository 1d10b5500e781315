//! A new model comes in: added, answered, taken up while the service runs, and taken apart where anomalib scaled it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use lineproof::edge::pb;

use crate::harness::{Plant, Service, block_on, request, text};

fn vector(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/skew").join(name)
}

fn inspect(service: &Service, recipe: &str, number: u64, image: &str) -> Result<pb::InspectResponse, tonic::Status> {
    let image = fs::read(vector("images-model").join(image)).unwrap();
    let asked = pb::InspectRequest { recipe: recipe.into(), ..request(number, image) };
    block_on(async { service.inspection().await.inspect(asked).await }).map(tonic::Response::into_inner)
}

/// Runs a command that must end with `code`, and gives what it says.
fn run(plant: &Plant, code: i32, arguments: &[&str]) -> String {
    let output = plant.run(arguments);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    said
}

#[test]
fn an_added_model_serves_once_its_questions_are_answered() {
    let plant = Plant::new();
    let service = plant.serve();
    let model = vector("anomalib/model.onnx");
    let model = model.to_str().unwrap();
    let said = run(&plant, 0, &["model", "add", model, "--name", "cover"]);
    assert!(said.contains("added cover@1.0.0: anomalib 2 anomaly model"), "{said}");
    assert!(said.contains("`policy.review`: from which score on does a person look at the part?"), "{said}");
    let folder = plant.data().join("models/cover/1.0.0");
    assert_eq!(fs::read(folder.join("model.onnx")).unwrap(), fs::read(model).unwrap());
    let recipe = folder.join("recipe.toml");
    let proposed = fs::read_to_string(&recipe).unwrap();

    // Neither the service nor the check takes a question for an answer.
    let said = run(&plant, 1, &["model", "reload"]);
    assert!(said.contains("one question is to answer"), "{said}");
    assert_eq!(inspect(&service, "cover@1.0.0", 1, "drawn-0.png").unwrap_err().code(), tonic::Code::FailedPrecondition);
    let said = run(&plant, 2, &["model", "check", model, "--recipe", recipe.to_str().unwrap()]);
    assert!(said.contains("one question is to answer"), "{said}");

    // A version that is there is not touched, another one is added beside it.
    let said = run(&plant, 1, &["model", "add", model, "--name", "cover", "--review", "0.5"]);
    assert!(said.contains("cover@1.0.0 exists"), "{said}");
    assert_eq!(fs::read_to_string(&recipe).unwrap(), proposed);
    let said = run(&plant, 0, &["model", "add", model, "--name", "cover", "--version", "1.1.0", "--review", "0.5"]);
    assert!(said.contains("next: look through"), "{said}");

    fs::write(&recipe, proposed.replace("\"? from which score on does a person look at the part?\"", "0.4")).unwrap();
    run(&plant, 0, &["model", "reload"]);
    for (number, recipe) in [(2, "cover@1.0.0"), (3, "cover@1.1.0")] {
        assert_eq!(inspect(&service, recipe, number, "drawn-0.png").unwrap().labels[0].label, "anomaly");
    }
    assert_eq!(service.stop().code, Some(0));
    let left: Vec<_> = fs::read_dir(plant.data().join("models/cover")).unwrap().collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn nothing_is_added_of_a_model_that_no_recipe_could_serve() {
    let plant = Plant::new();
    let broken = plant.folder().join("Broken Model.onnx");
    fs::write(&broken, b"no model").unwrap();
    let said = run(&plant, 1, &["model", "add", broken.to_str().unwrap()]);
    assert!(said.contains("[not-onnx]"), "{said}");
    assert!(!plant.data().join("models/broken-model").exists());
    let labels = plant.folder().join("labels.txt");
    fs::write(&labels, "one\ntwo\n").unwrap();
    let model = vector("timm-classify/model.onnx");
    let with_labels = ["model", "add", model.to_str().unwrap(), "--labels", labels.to_str().unwrap()];
    let said = run(&plant, 1, &with_labels);
    assert!(said.contains("has 3 classes, and 2 labels are given"), "{said}");
    run(&plant, 2, &["model", "add", "nowhere.onnx"]);
    run(&plant, 2, &["model", "add", model.to_str().unwrap(), "--frame", "large"]);
}

#[test]
fn raw_scores_of_anomalib_part_the_same_images_as_its_scaled_ones() {
    let plant = Plant::new();
    let old = plant.folder().join("model.onnx");
    fs::copy(vector("anomalib/model.onnx"), &old).unwrap();
    let old = old.to_str().unwrap();
    let said = run(&plant, 0, &["model", "unbake", old]);
    assert!(said.contains("+ Identity \"amax\" -> raw_pred_score") && said.contains("made from   blake3:"), "{said}");
    let said = run(&plant, 2, &["model", "unbake", old]);
    assert!(said.contains("model.raw.onnx exists"), "{said}");
    let said =
        run(&plant, 1, &["model", "unbake", vector("smp-segment/model.onnx").to_str().unwrap(), "--out", "x.onnx"]);
    assert!(said.contains("no output pred_score"), "{said}");

    let raw = plant.folder().join("model.raw.onnx");
    run(&plant, 0, &["model", "add", old, "--name", "scaled", "--review", "0.5"]);
    let recipe = plant.data().join("models/raw/1.0.0/recipe.toml");
    run(&plant, 0, &["model", "add", raw.to_str().unwrap(), "--name", "raw"]);
    // Whoever wants no person to look answers review as reject, which is anomalib's threshold.
    let proposed = fs::read_to_string(&recipe).unwrap();
    assert!(proposed.contains("score_tensor = \"raw_pred_score\""), "{proposed}");
    let reject = proposed.lines().find_map(|line| line.strip_prefix("reject = ")).unwrap();
    fs::write(&recipe, proposed.replace("\"? from which score on does a person look at the part?\"", reject)).unwrap();

    let service = plant.serve();
    let mut verdicts = Vec::new();
    for number in 0..4 {
        let image = format!("drawn-{number}.png");
        let scaled = inspect(&service, "scaled@1.0.0", number + 1, &image).unwrap();
        let raw = inspect(&service, "raw@1.0.0", number + 101, &image).unwrap();
        assert_eq!(scaled.verdict(), raw.verdict(), "{image}");
        assert!(raw.labels[0].score > 1.0, "{image}: {}", raw.labels[0].score);
        verdicts.push(raw.verdict());
    }
    assert!(verdicts.contains(&pb::Verdict::Ok) && verdicts.contains(&pb::Verdict::NotOk), "{verdicts:?}");
    assert_eq!(service.stop().code, Some(0));
}
