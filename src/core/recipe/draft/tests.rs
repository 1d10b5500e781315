use std::collections::BTreeMap;

use super::{super::Recipe, *};
use crate::core::recipe::{BoxLayout, Colour, Comparator, Fit, OutputKind, Resize, Role};

fn tensor(name: &str, dims: &[u64], made_by: &str) -> TensorFact {
    let dims = dims.iter().map(|dim| (*dim > 0).then_some(*dim)).collect();
    TensorFact { name: name.into(), element: Some(ElementType::Float32), dims: Some(dims), made_by: made_by.into() }
}

fn facts(input: &[u64], outputs: Vec<TensorFact>, metadata: &[(&str, &str)]) -> ModelFacts {
    ModelFacts {
        bytes: 1,
        ir_version: 8,
        opset: 17,
        producer: "pytorch 2.15.0".into(),
        inputs: vec![tensor("images", input, "")],
        outputs,
        operators: BTreeMap::new(),
        parameters: 0,
        multiplications: 0,
        largest_tensor: (0, String::new()),
        folded_bytes: 0,
        metadata: metadata.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
    }
}

fn proposed(facts: &ModelFacts, wishes: &Wishes) -> Result<Draft, DraftError> {
    draft(facts, Blake3Digest::of(b"model"), &RecipeRef::new("seat-cover@1.2.0").unwrap(), wishes)
}

fn asked(draft: &Draft) -> Vec<&str> {
    draft.questions.iter().map(|question| question.key.as_str()).collect()
}

/// The text with answers in the place of questions, by key; "" takes the line out.
fn answered(draft: &Draft, answers: &[(&str, &str)]) -> Recipe {
    let mut lines: Vec<&str> = draft.text.lines().collect();
    let mut owned = Vec::new();
    assert_eq!(asked(draft), answers.iter().map(|(key, _)| *key).collect::<Vec<_>>());
    for (question, (key, answer)) in draft.questions.iter().zip(answers) {
        let key = key.rsplit('.').next().unwrap();
        assert!(lines[question.line - 1].starts_with(&format!("{key} = ")), "{}", lines[question.line - 1]);
        owned.push((question.line - 1, if answer.is_empty() { String::new() } else { format!("{key} = {answer}") }));
    }
    for (line, text) in &owned {
        lines[*line] = text;
    }
    Recipe::parse(&lines.join("\n")).unwrap_or_else(|error| panic!("{error}\n{}", draft.text))
}

fn ultralytics<'t>(task: &'t str, names: &'t str) -> Vec<(&'t str, &'t str)> {
    vec![
        ("version", "8.4.190"),
        ("stride", "32"),
        ("task", task),
        ("imgsz", "[320, 640]"),
        ("names", names),
        ("args", "{'batch': 1, 'nms': None, 'dynamic': False}"),
        ("channels", "3"),
        ("end2end", "False"),
    ]
}

const TWO: &str = "{0: 'scratch', 1: 'deep dent'}";

#[test]
fn a_head_of_ultralytics_leaves_only_thresholds_and_roles_to_ask() {
    let facts = facts(&[1, 3, 320, 640], vec![tensor("output0", &[1, 6, 2100], "Concat")], &ultralytics("detect", TWO));
    let draft = proposed(&facts, &Wishes::default()).unwrap();
    assert!(draft.text.contains("\"deep dent\" is deep-dent"), "{}", draft.text);
    let answers = [("policy.review", "0.3"), ("policy.reject", "0.5"), ("policy.class", "")];
    let recipe = answered(&draft, &answers);
    assert_eq!(recipe.reference().as_str(), "seat-cover@1.2.0");
    assert_eq!((recipe.input.width_px, recipe.input.height_px, recipe.input.colour), (640, 320, Colour::Rgb));
    assert_eq!((recipe.input.resize, recipe.input.fit), (Resize::OpencvLinear, Fit::Letterbox { pad: 114 }));
    assert_eq!((recipe.input.mean, recipe.input.std), (vec![0.0; 3], vec![1.0; 3]));
    let OutputKind::Detection(detection) = recipe.output.kind else { panic!("{:?}", recipe.output.kind) };
    assert_eq!((detection.layout, detection.score_min, detection.iou_max), (BoxLayout::YoloV8, 0.25, Some(0.7)));
    assert_eq!(recipe.output.labels, ["scratch", "deep-dent"]);

    // With everything said there is no question, and the recipe is one at once.
    let wishes =
        Wishes { review: Some(0.3), reject: Some(0.5), ok_labels: Some(vec!["deep dent".into()]), ..Wishes::default() };
    let draft = proposed(&facts, &wishes).unwrap();
    assert_eq!(answered(&draft, &[]).policy.labels[1].role, Role::Ok);
}

#[test]
fn suppressed_and_open_heads_are_told_apart_by_what_the_file_says() {
    let mut said = ultralytics("detect", TWO);
    said[5].1 = "{'nms': True, 'dynamic': True}";
    let suppressed = facts(&[0, 3, 0, 0], vec![tensor("output0", &[0, 300, 6], "")], &said);
    let recipe = answered(
        &proposed(&suppressed, &Wishes { reject: Some(0.5), review: Some(0.5), ..Wishes::default() }).unwrap(),
        &[("policy.class", "")],
    );
    assert_eq!((recipe.input.width_px, recipe.input.height_px), (640, 320));
    assert!(
        matches!(recipe.output.kind, OutputKind::Detection(of) if of.layout == BoxLayout::Nms && of.iou_max.is_none())
    );
    // YOLOv5 says no task.
    let five = facts(&[1, 3, 64, 64], vec![tensor("output0", &[1, 252, 7], "")], &[("stride", "32"), ("names", TWO)]);
    assert!(proposed(&five, &Wishes::default()).unwrap().text.contains("layout = \"yolo-v5\""));
}

#[test]
fn heads_that_no_recipe_reads_are_refused_with_a_way_out() {
    let names = |count: usize| {
        let names: Vec<String> = (0..count).map(|number| format!("{number}: 'c{number}'")).collect();
        format!("{{{}}}", names.join(", "))
    };
    let eighty = names(80);
    let refusal = |task: &str, names: &str, outputs| {
        proposed(&facts(&[1, 3, 320, 640], outputs, &ultralytics(task, names)), &Wishes::default())
            .unwrap_err()
            .to_string()
    };
    let said = refusal("detect", &eighty, vec![tensor("output0", &[1, 84, 2100], "")]);
    assert!(
        said.contains("80 classes; a recipe for detection has at most 16 labels") && said.contains("docs/models.md"),
        "{said}"
    );
    // Mask coefficients stand in its rows, so its boxes are not those of a detection head either.
    let masks = vec![tensor("output0", &[1, 38, 2100], ""), tensor("output1", &[1, 32, 80, 80], "")];
    let said = refusal("segment", TWO, masks);
    assert!(said.contains("masks made of prototypes") && said.contains("as task \"detect\""), "{said}");
    assert!(refusal("obb", TWO, vec![tensor("output0", &[1, 7, 2100], "")]).contains("does \"obb\""));
    let said = refusal("detect", TWO, vec![tensor("output0", &[1, 7, 2100], "")]);
    assert!(said.contains("output0 [1, 7, 2100] is none that a recipe reads"), "{said}");
    let said = refusal("classify", &names(25), vec![tensor("output0", &[1, 25], "Softmax")]);
    assert!(said.contains("25 classes") && said.contains("at most 24"), "{said}");
}

#[test]
fn a_classifier_of_ultralytics_asks_whether_frames_are_square() {
    let mut said = ultralytics("classify", TWO);
    said[3].1 = "[64, 64]";
    let facts = facts(&[1, 3, 64, 64], vec![tensor("output0", &[1, 2], "Softmax")], &said);
    let thresholds = Wishes { review: Some(0.2), reject: Some(0.5), ok_labels: Some(vec![]), ..Wishes::default() };
    assert_eq!(asked(&proposed(&facts, &thresholds).unwrap()), ["input.fit"]);
    assert_eq!(
        asked(&proposed(&facts, &Wishes { frame_px: Some((200, 100)), ..thresholds.clone() }).unwrap()),
        ["input.fit"]
    );
    let recipe = answered(&proposed(&facts, &Wishes { frame_px: Some((200, 200)), ..thresholds }).unwrap(), &[]);
    assert_eq!((recipe.input.resize, recipe.input.fit), (Resize::PillowBilinear, Fit::Stretch));
    assert_eq!(recipe.output.activation, crate::core::recipe::Activation::None);
}

#[test]
fn a_model_of_anomalib_decides_as_anomalib_does() {
    let outputs = vec![tensor("pred_score", &[0, 1], "Where"), tensor("anomaly_map", &[0, 1, 256, 256], "Where")];
    let facts = facts(&[0, 3, 224, 224], outputs, &[]);
    let recipe = answered(&proposed(&facts, &Wishes::default()).unwrap(), &[("policy.review", "0.4")]);
    assert_eq!((recipe.policy.comparator, recipe.output.labels), (Comparator::Above, vec!["anomaly".to_owned()]));
    assert!(matches!(recipe.policy.labels[0].role, Role::Defect { reject, .. } if reject.get() == 0.5));
    assert!(matches!(recipe.output.kind, OutputKind::Anomaly { score_tensor, .. } if score_tensor == "pred_score"));
    assert_eq!((recipe.input.resize, recipe.input.mean), (Resize::PillowBilinear, vec![0.0; 3]));
    let whole = Wishes { review: Some(0.5), frame_px: Some((224, 224)), ..Wishes::default() };
    assert_eq!(answered(&proposed(&facts, &whole).unwrap(), &[]).input.resize, Resize::None);
}

#[test]
fn a_graph_without_a_word_is_asked_about_and_parses_once_answered() {
    let labels = Some(vec!["good".to_owned(), "bad".to_owned()]);
    let classifier = facts(&[1, 3, 224, 224], vec![tensor("191", &[1, 2], "Gemm")], &[]);
    let input = [
        ("input.colour", "\"rgb\""),
        ("input.resize", "\"pillow-bicubic\""),
        ("input.fit", "\"stretch\""),
        ("input.mean", "[0.5, 0.5, 0.5]"),
        ("input.std", "[0.5, 0.5, 0.5]"),
        ("output.activation", "\"softmax\""),
    ];
    let policy = [("policy.review", "0.2"), ("policy.reject", "0.7"), ("policy.class", "")];
    let draft = proposed(&classifier, &Wishes { labels: labels.clone(), ..Wishes::default() }).unwrap();
    answered(&draft, &[&input[..], &policy].concat());
    let unnamed = proposed(&classifier, &Wishes::default()).unwrap();
    let labelled = [("output.labels", "[\"good\", \"bad\"]")];
    answered(&unnamed, &[&input[..], &labelled, &policy].concat());

    let segmenter = facts(&[1, 3, 224, 224], vec![tensor("mask", &[1, 2, 224, 224], "Conv")], &[]);
    let map = [("output.map_score", "\"max\""), ("output.pixel_threshold", "0.5")];
    let draft = proposed(&segmenter, &Wishes { labels, ..Wishes::default() }).unwrap();
    answered(&draft, &[&input[..], &map, &policy].concat());

    let strange = facts(&[1, 1, 64, 64], vec![tensor("a", &[1, 4], ""), tensor("b", &[9], "")], &[]);
    let draft = proposed(&strange, &Wishes::default()).unwrap();
    assert!(draft.text.contains("a [1, 4], b [9]"), "{}", draft.text);
    assert_eq!(
        asked(&draft)[4..8],
        ["output.kind", "output.tensor", "output.activation", "output.labels"],
        "{:?}",
        asked(&draft)
    );
}

#[test]
fn a_recipe_with_a_question_is_refused_and_names_all_of_them() {
    let facts = facts(&[1, 3, 320, 640], vec![tensor("output0", &[1, 6, 2100], "Concat")], &ultralytics("detect", TWO));
    let draft = proposed(&facts, &Wishes::default()).unwrap();
    let said = Recipe::parse(&draft.text).unwrap_err().to_string();
    assert!(said.starts_with("3 questions are to answer, then it is a recipe: line "), "{said}");
    for question in
        ["`policy.review`: from which score", "`policy.reject`: from", "`policy.class`: which labels are no defect?"]
    {
        assert!(said.contains(question), "{said}");
    }
}

#[test]
fn names_from_a_file_cannot_write_a_recipe_of_their_own() {
    let evil = "a\"\n[policy]\nreject = 9\n#\u{7}\\";
    let mut strange = facts(&[1, 3, 64, 64], vec![tensor(evil, &[1, 2], "Gemm")], &[]);
    strange.inputs[0].name = evil.into();
    let draft = proposed(&strange, &Wishes::default()).unwrap();
    assert_eq!(draft.text.matches("\n[policy]\n").count(), 1, "{}", draft.text);
    assert_eq!(draft.text.matches("\nreject = ").count(), 1, "{}", draft.text);
}
