//! Several cameras see one part: one verdict on it, recorded, also when a view is missing or the service was killed in between.

use lineproof::edge::pb::{self, Verdict};
use serde_json::Value;
use tonic::Code;

use crate::{
    evidence::{entries, verify},
    harness::{Plant, Service, block_on, part},
};

fn plant(wait_ms: u64) -> Plant {
    let plant = Plant::new();
    plant.edit_config("cameras = [\"cam-1\"]", "cameras = [\"cam-1\", \"cam-2\"]");
    let view = |name: &str, camera: &str| {
        format!("[[part.view]]\nname = \"{name}\"\nline = \"line-1\"\nstation = \"station-1\"\ncamera = \"{camera}\"\n")
    };
    let views = view("top", "cam-1") + &view("side", "cam-2");
    let path = plant.data().join("lineproof.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let joined = format!("{text}\n[[part]]\nproduct = \"demo-part\"\nwait_ms = {wait_ms}\n{views}");
    std::fs::write(path, joined).unwrap();
    plant
}

/// Part `serial` as `camera` sees it: what simulated part `looks` looks like.
fn view(serial: u64, camera: &str, looks: u64) -> pb::InspectRequest {
    let serial_text = format!("SN-{serial:05}");
    pb::InspectRequest {
        camera: camera.into(),
        serial: serial_text,
        frame_counter: serial,
        frame_id: format!("{serial}"),
        ..part(looks)
    }
}

async fn decide(service: &Service, request: pb::InspectRequest) -> pb::InspectResponse {
    service.inspection().await.inspect(request).await.expect("a verdict").into_inner()
}

async fn joined(service: &Service, entry_index: u64) -> Result<pb::GetPartResponse, tonic::Status> {
    let asked = pb::GetPartRequest { entry_index, wait: None };
    service.inspection().await.get_part(asked).await.map(tonic::Response::into_inner)
}

/// Numbers of simulated parts with these verdicts.
fn looks(service: &Service) -> (u64, u64) {
    let (mut good, mut bad) = (None, None);
    for number in 1000.. {
        let request =
            pb::InspectRequest { product: "other".into(), recipe: "machined-surface@1.1.0".into(), ..part(number) };
        match block_on(decide(service, request)).verdict() {
            Verdict::Ok => good = good.or(Some(number)),
            Verdict::NotOk => bad = bad.or(Some(number)),
            _ => {}
        }
        if let (Some(good), Some(bad)) = (good, bad) {
            return (good, bad);
        }
    }
    unreachable!("half of the simulated parts are bad");
}

#[test]
fn the_worst_view_is_the_verdict_on_the_part_and_a_missing_one_makes_it_not_decidable() {
    let plant = plant(1500);
    let service = plant.serve();
    let (good, bad) = looks(&service);
    block_on(async {
        let top = decide(&service, view(1, "cam-1", good)).await;
        // Asked before the other view is there, the answer waits for it.
        let (part, side) = tokio::join!(joined(&service, top.entry_index), decide(&service, view(1, "cam-2", bad)));
        let part = part.unwrap();
        assert_eq!((part.verdict(), part.complete), (Verdict::NotOk, true));
        let views: Vec<_> =
            part.views.iter().map(|view| (view.view.as_str(), view.verdict(), view.entry_index)).collect();
        let expected = [("top", Verdict::Ok, Some(top.entry_index)), ("side", Verdict::NotOk, Some(side.entry_index))];
        assert_eq!(views, expected);
        assert_eq!(joined(&service, side.entry_index).await.unwrap(), part, "whichever view asks");

        // Both good; then only one view of the next part, in time.
        let top = decide(&service, view(2, "cam-1", good)).await;
        decide(&service, view(2, "cam-2", good)).await;
        assert_eq!(joined(&service, top.entry_index).await.unwrap().verdict(), Verdict::Ok);
        let top = decide(&service, view(3, "cam-1", good)).await;
        let part = joined(&service, top.entry_index).await.unwrap();
        assert_eq!((part.verdict(), part.complete), (Verdict::NotDecidable, false));
        assert_eq!((part.views[1].verdict(), part.views[1].entry_index), (Verdict::Undefined, None));

        // What is no view of such a part.
        let other = pb::InspectRequest {
            product: "other".into(),
            recipe: "machined-surface@1.1.0".into(),
            ..view(4, "cam-1", good)
        };
        let other = decide(&service, other).await;
        assert_eq!(joined(&service, other.entry_index).await.unwrap_err().code(), Code::FailedPrecondition);
        assert_eq!(joined(&service, 1 << 40).await.unwrap_err().code(), Code::NotFound);
        let top = decide(&service, view(5, "cam-1", good)).await;
        let asked = pb::GetPartRequest { entry_index: top.entry_index, wait: Some(prost_types::Duration::default()) };
        let early = service.inspection().await.get_part(asked).await.unwrap_err();
        assert_eq!(early.code(), Code::DeadlineExceeded, "{early}");
    });
    assert_eq!(service.stop().code, Some(0));
    let parts: Vec<Value> =
        entries(&plant.data(), "part").iter().map(|entry| serde_json::from_str(entry).unwrap()).collect();
    let verdicts: Vec<_> = parts.iter().map(|part| part["verdict"].as_str().unwrap()).collect();
    assert_eq!(verdicts, ["NOT_OK", "OK", "NOT_DECIDABLE"], "the last is still open, and the next start takes it up");
    assert!(verify(&plant.data(), &plant.vkey()).status.success());

    // A restart finds older verdicts in the log, and joins what was open.
    let service = plant.serve();
    block_on(async {
        let entry = |part: &Value| part["views"][0]["entry"].as_u64().unwrap();
        assert_eq!(joined(&service, entry(&parts[0])).await.unwrap().verdict(), Verdict::NotOk);
        let open = entry(&parts[2]) + 1;
        let mut last = None;
        for index in open..open + 8 {
            if let Ok(part) = joined(&service, index).await {
                last = Some(part);
            }
        }
        assert_eq!(last.map(|part| (part.verdict(), part.complete)), Some((Verdict::NotDecidable, false)));
    });
    assert_eq!(service.stop().code, Some(0));
}

#[test]
fn a_part_whose_views_come_before_and_after_a_kill_is_joined_once() {
    let plant = plant(20_000);
    let service = plant.serve();
    let (good, _) = looks(&service);
    let top = block_on(decide(&service, view(1, "cam-1", good)));
    service.kill();
    let service = plant.serve();
    block_on(async {
        let side = decide(&service, view(1, "cam-2", good)).await;
        let part = joined(&service, side.entry_index).await.unwrap();
        assert_eq!((part.verdict(), part.complete), (Verdict::Ok, true));
        assert_eq!(part.views[0].entry_index, Some(top.entry_index));
        // The line PC asks again for a frame it was not sure of: no second part.
        assert!(decide(&service, view(1, "cam-1", good)).await.duplicate);
    });
    service.kill();
    let service = plant.serve();
    assert_eq!(service.stop().code, Some(0));
    assert_eq!(entries(&plant.data(), "part").len(), 1);
}
