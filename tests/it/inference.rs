//! How models run, as an operator configures it: sessions that workers share, and another execution provider.

use lineproof::edge::pb;
use serde_json::Value;

use crate::{
    evidence::entries,
    harness::{Plant, Service, block_on, part, skipped, text},
};

const PARTS: std::ops::RangeInclusive<u64> = 1..=24;

fn plant(inference: &str) -> Plant {
    let plant = Plant::new();
    plant.edit_config("ok_share = 0.1", "ok_share = 1.0");
    plant.edit_config("workers = 0", "workers = 4");
    plant.edit_config("[log]\n", &format!("[inference]\n{inference}\n\n[log]\n"));
    plant
}

/// Sends the parts all at once, and gives every decision by its frame's number.
fn inspect(plant: &Plant, service: Service) -> Vec<Value> {
    block_on(async {
        let client = service.inspection().await;
        let asked = PARTS.map(|number| {
            let mut client = client.clone();
            let asked = pb::InspectRequest { useful_for: None, ..part(number) };
            tokio::spawn(async move { client.inspect(asked).await })
        });
        for answer in asked.collect::<Vec<_>>() {
            answer.await.unwrap().expect("a verdict");
        }
    });
    assert_eq!(service.stop().code, Some(0));
    let decisions = entries(&plant.data(), "decision");
    let mut decisions: Vec<Value> = decisions.iter().map(|entry| serde_json::from_str(entry).unwrap()).collect();
    decisions.sort_by_key(|decision| decision["frame"]["counter"].as_u64());
    decisions
}

fn score(decision: &Value) -> f32 {
    let text = decision["scores"]["decision"].as_str().expect("a score");
    let bits = text.strip_prefix("0x").and_then(|text| text.get(..8)).expect("its bits");
    f32::from_bits(u32::from_str_radix(bits, 16).unwrap())
}

fn assert_same(decisions: &[Value], others: &[Value], eps: f32) {
    assert_eq!(decisions.len(), PARTS.count());
    for (a, b) in decisions.iter().zip(others) {
        assert_eq!((&a["verdict"], &a["frame"]["id"]), (&b["verdict"], &b["frame"]["id"]));
        assert!((score(a) - score(b)).abs() <= eps, "{a} {b}");
    }
}

fn replayed(plant: &Plant) -> Value {
    let output = plant.run(&["replay", "--since", "1h", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let lines: Vec<Value> = text(&output).lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let outcomes = lines.iter().filter_map(|line| line["outcome"].as_str());
    serde_json::json!({ "exact": outcomes.filter(|outcome| *outcome == "exact").count() })
}

#[test]
fn workers_that_share_a_session_give_the_verdicts_that_each_alone_gives() {
    let alone = plant("sessions = 0");
    let alone = inspect(&alone, alone.serve());
    let sharing = plant("sessions = 1\nbatch_frames_max = 4\nbatch_budget_ms = 10000");
    let shared = inspect(&sharing, sharing.serve());
    // Frames that ran together may differ in their last bits from those that ran alone.
    assert_same(&alone, &shared, 1e-5);
    let alone_again = shared.iter().zip(&alone).filter(|(shared, _)| shared["runtime"]["batch"] == 1);
    for (shared, alone) in alone_again {
        assert_eq!(shared["scores"], alone["scores"]);
    }
    // Each is decided again in a batch of the size it was recorded with.
    assert_eq!(replayed(&sharing)["exact"], PARTS.count());
}

#[test]
fn openvino_gives_the_same_verdicts_and_every_record_names_it() {
    let Some(library) = std::env::var_os("LINEPROOF_OPENVINO").filter(|path| !path.is_empty()) else {
        return skipped("LINEPROOF_OPENVINO names no ONNX Runtime with OpenVINO; `make unit` fetches one");
    };
    let library = format!("onnxruntime = {:?}", library.to_str().expect("a path in UTF-8"));
    let serve = |plant: &Plant| {
        plant.edit_config("# onnxruntime = \"lib/libonnxruntime.so\"", &library);
        Service::spawn(
            crate::harness::lineproof().arg("serve").arg("--data").arg(plant.data()).env_remove("ORT_DYLIB_PATH"),
        )
        .unwrap_or_else(|ended| panic!("{}", ended.log))
    };
    let cpu = plant("providers = [\"cpu\"]");
    let on_cpu = inspect(&cpu, serve(&cpu));
    let openvino = plant("providers = [\"openvino\"]");
    let on_openvino = inspect(&openvino, serve(&openvino));
    assert!(on_cpu.iter().all(|decision| decision["runtime"]["provider"] == "cpu"));
    assert!(on_openvino.iter().all(|decision| decision["runtime"]["provider"] == "openvino:CPU"));
    assert_same(&on_cpu, &on_openvino, 1e-4);

    // A provider that this build does not have: nothing serves, or what the configuration names instead, and that is said.
    let missing = plant("providers = [\"cuda\"]");
    let service = serve(&missing);
    let refused = block_on(async { service.inspection().await.inspect(part(1)).await.unwrap_err() });
    assert!(refused.message().contains("execution provider cuda:0 cannot be used here"), "{refused}");
    drop(service);
    let instead = plant("providers = [\"cuda\", \"openvino\"]\nfall_back = true");
    let service = serve(&instead);
    let listed = text(&instead.run(&["model", "list"]));
    assert!(listed.contains("serves on openvino:CPU INSTEAD: cuda:0: "), "{listed}");
    let decisions = inspect(&instead, service);
    assert!(decisions.iter().all(|decision| decision["runtime"]["provider"] == "openvino:CPU"));
}
