//! Another recipe inspects a product while the line runs, and is taken back.

use std::{
    fs,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use lineproof::edge::pb;
use serde_json::Value;
use tonic::Code;
use tonic_health::pb::health_check_response::ServingStatus;

use crate::{
    evidence::{all_entries, entries, verify},
    harness::{Plant, Service, block_on, part, request, simulated_png, text},
};

const OLD: &str = "machined-surface@1.1.0";
const NEW: &str = "machined-surface@1.2.0";

/// A second version of the embedded recipe, with other thresholds.
fn release(plant: &Plant, change: impl Fn(String) -> String) {
    let versions = plant.data().join("models/machined-surface");
    let (old, new) = (versions.join("1.1.0"), versions.join("1.2.0"));
    fs::create_dir(&new).unwrap();
    fs::copy(old.join("model.onnx"), new.join("model.onnx")).unwrap();
    let recipe = fs::read_to_string(old.join("recipe.toml")).unwrap();
    fs::write(new.join("recipe.toml"), change(recipe.replace("\"1.1.0\"", "\"1.2.0\""))).unwrap();
}

fn run(plant: &Plant, arguments: &[&str]) -> (Option<i32>, String) {
    let output = plant.run(arguments);
    (output.status.code(), text(&output))
}

fn recipe_of(service: &Service, number: u64) -> String {
    block_on(async { service.inspection().await.inspect(part(number)).await.expect("a verdict").into_inner().recipe })
}

fn parsed(plant: &Plant, kind: &str) -> Vec<Value> {
    entries(&plant.data(), kind).iter().map(|entry| serde_json::from_str(entry).unwrap()).collect()
}

#[test]
fn a_recipe_is_activated_under_load_without_a_frame_lost_and_rolled_back_by_one_command() {
    let plant = Plant::new();
    release(&plant, |recipe| recipe);
    let service = plant.serve();
    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let lines = 4;
    let seen = std::thread::scope(|scope| {
        let line = |number: u64| {
            let (service, stop, sent) = (&service, &stop, &sent);
            move || {
                block_on(async {
                    let mut client = service.inspection().await;
                    let image = simulated_png(number);
                    let mut seen = Vec::new();
                    for counter in 1.. {
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                        let frame_id = format!("l{number}-{counter}");
                        let asked = pb::InspectRequest { frame_id, ..request(counter, image.clone()) };
                        let answer = client.inspect(asked).await.expect("no frame is refused while recipes change");
                        seen.push(answer.into_inner().recipe);
                        sent.fetch_add(1, Ordering::Relaxed);
                    }
                    seen
                })
            }
        };
        let lines: Vec<_> = (0..lines).map(|number| scope.spawn(line(number))).collect();
        let wait_for_frames = |more: u64| {
            let until = sent.load(Ordering::Relaxed) + more;
            while sent.load(Ordering::Relaxed) < until {
                assert!(!lines.iter().any(std::thread::ScopedJoinHandle::is_finished), "a line failed");
                std::thread::yield_now();
            }
        };
        wait_for_frames(20);
        let (code, said) = run(&plant, &["model", "activate", NEW, "--product", "demo-part"]);
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains(&format!("demo-part is inspected by {NEW}, before by {OLD}")), "{said}");
        wait_for_frames(40);
        let (code, said) = run(&plant, &["model", "rollback", "--product", "demo-part", "--json"]);
        assert_eq!(code, Some(0), "{said}");
        let said: Value = serde_json::from_str(&said).unwrap();
        assert_eq!(said["assigned"][0]["recipe"], OLD, "{said}");
        wait_for_frames(40);
        stop.store(true, Ordering::Relaxed);
        lines.into_iter().map(|line| line.join().expect("a line ends well")).collect::<Vec<_>>()
    });
    for line in &seen {
        // Every line saw the old one, the new one, the old one, and changed no more often.
        let mut changes = line.clone();
        changes.dedup();
        assert_eq!(changes, [OLD, NEW, OLD]);
    }
    assert_eq!(service.stop().code, Some(0));

    // Each decision names what made it, and the log says when that changed: one assignment at the start, two by command.
    let decisions = parsed(&plant, "decision");
    assert_eq!(decisions.len(), seen.iter().map(Vec::len).sum::<usize>());
    let assignments = parsed(&plant, "assignment");
    let of = |at: usize, key: &str| assignments[at][key].clone();
    assert_eq!(assignments.len(), 3, "{assignments:?}");
    assert_eq!(
        (of(0, "event"), of(1, "event"), of(2, "event")),
        ("assigned".into(), "assigned".into(), "rolled_back".into())
    );
    assert_eq!((of(1, "previous"), of(2, "previous")), (of(0, "recipe"), of(1, "recipe")));
    assert_eq!(of(2, "recipe"), of(0, "recipe"));
    let assigned_first = all_entries(&plant.data())
        .into_iter()
        .find(|entry| entry.contains(NEW) && !entry.contains(r#""kind":"recipe""#));
    assert!(
        assigned_first.unwrap().contains(r#""kind":"assignment""#),
        "no decision names a recipe before its assignment"
    );
    assert!(verify(&plant.data(), &plant.vkey()).status.success());
}

#[test]
fn a_change_lasts_over_a_restart_and_is_written_into_the_configuration() {
    let plant = Plant::new();
    release(&plant, |recipe| recipe);
    // Nothing runs: it is written down and said.
    let (code, said) = run(&plant, &["model", "activate", NEW, "--product", "demo-part"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("takes effect at the next start"), "{said}");
    let config = fs::read_to_string(plant.data().join("lineproof.toml")).unwrap();
    assert!(config.contains(&format!("recipe = \"{NEW}\"")) && config.contains("# Which recipe inspects"), "{config}");
    let service = plant.serve();
    assert_eq!(recipe_of(&service, 1), NEW);
    // The first one is all there is to go back to.
    let (code, said) = run(&plant, &["model", "rollback", "--product", "demo-part"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("nothing is noted that inspected product demo-part before"), "{said}");
    let (code, said) = run(&plant, &["model", "activate", OLD, "--product", "demo-part"]);
    assert_eq!(code, Some(0), "{said}");
    service.kill();
    let service = plant.serve();
    assert_eq!(recipe_of(&service, 2), OLD);
    let (_, said) = run(&plant, &["model", "rollback", "--product", "demo-part"]);
    assert!(said.contains(NEW), "{said}");
    assert_eq!(recipe_of(&service, 3), NEW);
    // A product that has no recipe yet gets one.
    let (code, said) = run(&plant, &["model", "activate", OLD, "--product", "second-part"]);
    assert_eq!(code, Some(0), "{said}");
    let answer = block_on(async {
        let asked = pb::InspectRequest { product: "second-part".into(), ..part(4) };
        service.inspection().await.inspect(asked).await.expect("a verdict").into_inner()
    });
    assert_eq!(answer.recipe, OLD);
    assert_eq!(service.stop().code, Some(0));
    assert_eq!(parsed(&plant, "assignment").len(), 4, "the starts, which changed nothing after the first, wrote none");
}

#[test]
fn what_cannot_serve_changes_nothing_and_a_reload_takes_up_what_is_new() {
    let plant = Plant::new();
    let service = plant.serve();
    release(&plant, |recipe| recipe.replace("digest = \"blake3:", "digest = \"blake4:"));
    let before = fs::read_to_string(plant.data().join("lineproof.toml")).unwrap();
    for (recipe, reason) in [(NEW, "cannot serve"), ("nobody@1.0.0", "there is no recipe nobody@1.0.0")] {
        let (code, said) = run(&plant, &["model", "activate", recipe, "--product", "demo-part"]);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(reason), "{said}");
    }
    assert_eq!(fs::read_to_string(plant.data().join("lineproof.toml")).unwrap(), before);
    assert_eq!(recipe_of(&service, 1), OLD);
    let (code, said) = run(&plant, &["model", "list"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(&format!("{OLD}  serves on cpu; inspects demo-part")), "{said}");
    assert!(said.contains(&format!("{NEW}  does not serve")), "{said}");

    // Put right, it is taken up beside the other, and frames may name it.
    fs::remove_dir_all(plant.data().join("models/machined-surface/1.2.0")).unwrap();
    release(&plant, |recipe| recipe);
    let (code, said) = run(&plant, &["model", "reload"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(&format!("{NEW} is loaded and serves")), "{said}");
    block_on(async {
        let asked = pb::InspectRequest { recipe: NEW.into(), ..part(2) };
        assert_eq!(service.inspection().await.inspect(asked).await.unwrap().into_inner().recipe, NEW);
        assert_eq!(service.health(&format!("recipe/{NEW}")).await, ServingStatus::Serving);
    });
    // A recipe in use does not change under its name.
    let path = plant.data().join("models/machined-surface/1.2.0/recipe.toml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{text}\n# another\n")).unwrap();
    let (code, said) = run(&plant, &["model", "reload"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("put the new content into a new version"), "{said}");
    // Gone from the folder, it is retired; the product's own stays until a restart, whatever becomes of its folder.
    fs::remove_dir_all(plant.data().join("models/machined-surface")).unwrap();
    let (code, said) = run(&plant, &["model", "reload"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(&format!("{NEW} is gone from the folder")), "{said}");
    assert_eq!(recipe_of(&service, 3), OLD);
    block_on(async {
        let asked = pb::InspectRequest { recipe: NEW.into(), ..part(4) };
        assert_eq!(service.inspection().await.inspect(asked).await.unwrap_err().code(), Code::FailedPrecondition);
        while service.health(&format!("recipe/{NEW}")).await != ServingStatus::ServiceUnknown {
            tokio::task::yield_now().await;
        }
    });
    assert_eq!(service.stop().code, Some(0));
    let events: Vec<_> =
        parsed(&plant, "recipe").iter().map(|entry| entry["event"].as_str().unwrap().to_owned()).collect();
    assert_eq!(events, ["activated", "activated", "retired"]);
}

#[test]
fn a_rollback_takes_back_what_was_changed_while_nothing_ran_and_products_come_and_go() {
    let plant = Plant::new();
    release(&plant, |recipe| recipe);
    let service = plant.serve();
    assert_eq!(recipe_of(&service, 1), OLD);
    assert_eq!(service.stop().code, Some(0));
    // Changed twice while nothing ran: what was in use last is what a rollback gives.
    for recipe in [NEW, OLD, NEW] {
        let (code, said) = run(&plant, &["model", "activate", recipe, "--product", "demo-part"]);
        assert_eq!(code, Some(0), "{said}");
    }
    let (code, said) = run(&plant, &["model", "rollback", "--product", "demo-part"]);
    assert_eq!(code, Some(0), "{said}");
    let service = plant.serve();
    assert_eq!(recipe_of(&service, 2), OLD);

    // A product that the configuration forgets is said and recorded; another's activation does not touch it.
    let (code, said) = run(&plant, &["model", "activate", NEW, "--product", "second-part"]);
    assert_eq!(code, Some(0), "{said}");
    let path = plant.data().join("lineproof.toml");
    let text = fs::read_to_string(&path).unwrap();
    let at = text.find("\n[[product]]\nproduct = \"second-part\"").expect("it was added at the end");
    fs::write(&path, &text[..at]).unwrap();
    let (_, said) = run(&plant, &["model", "activate", NEW, "--product", "demo-part"]);
    assert!(!said.contains("second-part"), "{said}");
    let (code, said) = run(&plant, &["model", "reload"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("second-part has no recipe any more"), "{said}");
    assert_eq!(service.stop().code, Some(0));
    let events: Vec<_> =
        parsed(&plant, "assignment").iter().map(|entry| format!("{} {}", entry["event"], entry["product"])).collect();
    let expected = ["assigned demo-part", "assigned second-part", "assigned demo-part", "unassigned second-part"];
    assert_eq!(events.iter().map(|event| event.replace('"', "")).collect::<Vec<_>>(), expected);
}

#[test]
fn a_linked_configuration_stays_a_link_and_keeps_its_mode() {
    use std::os::unix::fs::PermissionsExt as _;

    let plant = Plant::new();
    release(&plant, |recipe| recipe);
    let (link, real) = (plant.data().join("lineproof.toml"), plant.folder().join("managed.toml"));
    fs::rename(&link, &real).unwrap();
    fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    let (code, said) = run(&plant, &["model", "activate", NEW, "--product", "demo-part"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(fs::symlink_metadata(&link).unwrap().file_type().is_symlink());
    assert!(fs::read_to_string(&real).unwrap().contains(NEW));
    assert_eq!(fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o640);
}
